"""Values without quotes, by Go's rules: https://github.com/kubernetes-sigs/yaml, goyaml.v2/resolve.go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import document, findings, one, read_rules

from canary_mw.config.yaml.loader import load
from canary_mw.config.yaml.scalars import tag_of


def value_of(written: str) -> object:
    """The value of an attribute."""
    loaded = load(f"a: {written}\n")
    assert loaded is not None
    return loaded[1]["a"]


NUMBERS: dict[str, int | float] = {
    "0": 0,
    "7": 7,
    "+7": 7,
    "-7": -7,
    # Helm prints whole numbers from a million on like this.
    "1e+06": 1_000_000,
    "3.6e+06": 3_600_000,
    "1.2e+06": 1_200_000,
    "1e4": 10_000,
    "1E6": 1_000_000,
    "-1e3": -1000,
    "2e+01": 20,
    "5e-1": 0.5,
    "5000.0": 5000,
    "20.": 20,
    "7.00": 7,
    "-0.0": 0,
    "20.5": 20.5,
    ".5": 0.5,
    "-.5": -0.5,
    ".5e1": 5,
    # A leading zero is octal where the digits are, else decimal.
    "010": 8,
    "-010": -8,
    "00": 0,
    "08": 8,
    "09": 9,
    "-08": -8,
    "018": 18,
    "09.5": 9.5,
    "0o20": 16,
    "0O20": 16,
    "-0o20": -16,
    "0x10": 16,
    "0XfF": 255,
    "+0x10": 16,
    "0b101": 5,
    "-0B11": -3,
    "3_000": 3000,
    "1__0_": 10,
    "0x_f_f": 255,
    "1_000.5": 1000.5,
    "9223372036854775807": 2**63 - 1,
    "-9223372036854775808": -(2**63),
    "!!int 20": 20,
    "!!int '0x10'": 16,
    "!!float 20": 20,
}


@pytest.mark.parametrize("written", NUMBERS)
def test_a_number_is_read_as_in_go_and_without_a_fraction_it_is_a_whole_number(written: str) -> None:
    found = value_of(written)
    assert (type(found), found) == (type(NUMBERS[written]), NUMBERS[written])


@pytest.mark.parametrize("written", ["9223372036854775808", "-9223372036854775809", "1e20", "0x" + "f" * 17])
def test_a_number_of_more_than_64_bits_is_no_whole_number(written: str) -> None:
    assert type(value_of(written)) is float
    rules = read_rules(document(timeout_ms=written))
    assert [found.code for found in rules.diagnostics] == ["wrong-type"]


@pytest.mark.parametrize(
    "written",
    [
        *("12:30", "1:30", "1:20:30", "190:20:30.15", "10:30:00", "-1:30", "1:30.5"),
        *("2020-01-01", "2020-01-01 10:00:00", "2020-01-01T10:00:00Z", "1.2.3", "10.0.0.1", "20%", "1e", "e4"),
        *("0x", "0x_", "0xg", "0b2", "0b", "0o8", "0o", "+", "-x", ".", "..", "1.5.", ".1_0", ".e3", "_1", "1e4567"),
        *("inf", "nan", "+inf", "Infinity", "0x1p4", "1 000", "1,000", "١"),
        *("yEs", "tRUE", "oN", "nO", "y1", "nil", "None", "none", "NuLL", "=", "<<"),
        *("!!str 20", "!!str true", "!!str ~", "'20'", '"true"', "'~'", "'y'"),
    ],
)
def test_what_is_no_number_boolean_or_null_in_go_is_a_text(written: str) -> None:
    text = written.removeprefix("!!str ").strip("'\"")
    assert value_of(written) == text
    assert type(value_of(written)) is str


@pytest.mark.parametrize("written", ["yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "!!bool y"])
def test_the_words_for_true(written: str) -> None:
    assert value_of(written) is True


@pytest.mark.parametrize("written", ["no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", "!!bool 'n'"])
def test_the_words_for_false(written: str) -> None:
    assert value_of(written) is False


@pytest.mark.parametrize("written", ["", "~", "null", "Null", "NULL"])
def test_the_words_for_null(written: str) -> None:
    assert value_of(written) is None


@pytest.mark.parametrize(("word", "meaning"), [("y", True), ("Y", True), ("n", False), ("N", False)])
def test_a_single_letter_is_a_boolean_where_a_boolean_is_wanted_and_elsewhere_a_text(word: str, meaning: bool) -> None:
    assert one(document(shadow=word)).shadow is meaning
    assert one(document(case_sensitive=word)).case_sensitive is meaning
    added = f"{{x-a: {{value: {word}, append: {word}}}}}"
    assert one(document(add_request_headers=added)).add_request_headers[0].append is meaning
    assert [str(each) for each in one(document(headers=f"{{x-flag: {word}}}")).conditions] == [f"x-flag = {word}"]
    assert one(document(word, prefix=f"/{word}/")).name == word
    assert one(document(metadata_labels=f"{{{word}: {word}}}")).name == "a"


@pytest.mark.parametrize("word", ["y", "N", "yes", "true"])
def test_a_word_in_quotes_is_never_a_boolean(word: str) -> None:
    assert findings(read_rules(document(shadow=f'"{word}"')).diagnostics) == [("error", "wrong-type", 7)]


@pytest.mark.parametrize("written", ["20.5", '"20"', "20%", "~", "1:20", "2020-01-01", "y", "20 ms", "1e-1"])
def test_what_is_no_whole_number_is_refused_as_a_weight(written: str) -> None:
    rules = read_rules(document(weight=written) + document("b"))
    assert [mapping.name for mapping in rules.mappings] == ["b"]
    assert findings(rules.diagnostics) == [("error", "wrong-type", 7)]


@pytest.mark.parametrize("written", ["1:30", "12:30", "10.0.0.1", "2020-01-01"])
def test_a_header_a_name_and_a_label_may_look_like_a_time(written: str) -> None:
    rule = one(document(written, headers=f"{{x-at: {written}}}", metadata_labels=f"{{at: {written}}}"))
    assert rule.name == written
    assert [str(each) for each in rule.conditions] == [f"x-at = {written}"]


@given(st.text(min_size=1) | st.text("0123456789_.eExXbBoO+-:", min_size=1, max_size=12))
def test_any_text_has_a_tag(text: str) -> None:
    assert tag_of(text).startswith("tag:yaml.org,2002:")
