"""Conditions on the result of a query: what they mean, what says nothing, and what cannot be read."""

from math import inf, nan

import pytest

from canary_mw.rules.queries.condition import MOST_CHARACTERS, NoData, check, holds
from canary_mw.rules.queries.query import filled, unknown_names

ONE, THREE = (0.5,), (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("condition", "result", "expected"),
    [
        ("result[0] < 0.8", ONE, True),
        ("result[0] >= 0.95", ONE, False),
        ("result < 0.8", ONE, True),
        ("result == 0.5", ONE, True),
        ("result != .5", ONE, False),
        ("result[0]<=5e-1", ONE, True),
        ("!(result[0] > 1)", ONE, True),
        ("not (result[0] > 1) and true", ONE, True),
        ("result[2] - result[0] == 2", THREE, True),
        ("result[0] + 2 * 3 == 7", THREE, True),
        ("(result[0] + 2) * 3 == 9", THREE, True),
        ("8 / 2 / 2 == 2", ONE, True),
        ("-result[0] == - 1", THREE, True),
        ("1 - 2 - 3 == -4", ONE, True),
        ("len(result) == 3", THREE, True),
        ("all(result, # < 4)", THREE, True),
        ("all(result, {# < 3})", THREE, False),
        ("any(result, # == 2 && # > 1)", THREE, True),
        ("any(result, { # > 3 })", THREE, False),
        ("none(result, # > 3)", THREE, True),
        ("false || result[0] < 2 && result[1] > 1", THREE, True),
        ("true or false and false", ONE, True),
        # What is not asked any more needs no value.
        ("true || result[7] > 1", ONE, True),
        ("false && result[7] > 1", ONE, False),
        ("result[0] > 1e9", (inf,), True),
    ],
)
def test_what_a_condition_means(condition: str, result: tuple[float, ...], expected: bool) -> None:
    check(condition)
    assert holds(condition, result) is expected


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        ("result[0] < 1", ()),
        ("len(result) == 0", ()),
        ("true", (nan,)),
        ("result[0] < 1", (nan,)),
        ("any(result, # > 1)", (5.0, nan)),
        ("result[1] < 1", ONE),
        ("result < 1", THREE),
        ("1 / (result[0] - 1) > 1", THREE),
        ("result[0] - result[0] == 0", (inf,)),
    ],
)
def test_no_data_is_neither_true_nor_false(condition: str, result: tuple[float, ...]) -> None:
    check(condition)
    with pytest.raises(NoData):
        holds(condition, result)


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "  ",
        "result",
        "result[0]",
        "1",
        "result[0] <",
        "< 1",
        "result[0] < 1 < 2",
        "result[0] = 1",
        "result[-1] < 1",
        "result[0.5] < 1",
        "result[9999999] < 1",
        "result[0 < 1",
        "(result[0] < 1",
        "result[0] < 1)",
        "# < 1",
        "all(result, # )",
        "all(result)",
        "all(result, all(result, # < 1))",
        "any(result, {# < 1)",
        "len(result[0]) > 1",
        "(result[0] < 1) + 1 > 0",
        "!result[0]",
        "result[0] && true",
        "isNaN(result[0])",
        "default(result, 0) < 1",
        "__import__('os')",
        "result.append(1)",
        "result[0] < 1; 2",
        "\x00",
        "result[0] < ١",
        "(" * 100 + "result[0] < 1" + ")" * 100,
        "!" * 100 + "true",
        "-" * 100 + "1 < 0",
        "true" + " && true" * MOST_CHARACTERS,
    ],
)
def test_what_cannot_be_read_says_why(condition: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check(condition)


def test_names_stand_for_values_as_texts_of_promql() -> None:
    text = "rate(errors{release=\"{{release}}\", w='{{ weight }}'}[5m]) and {{revision}}"
    assert unknown_names(text) == []
    values = {"release": 'a"b\\c', "weight": "5", "revision": "x'\n"}
    assert filled(text, values) == "rate(errors{release=\"a\\\"b\\\\c\", w='5'}[5m]) and x\\'\\n"
    assert unknown_names("{{release}} {{args.x}} {{}}") == ["args.x", ""]
