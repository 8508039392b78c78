"""Findings are in the words of YAML: nothing of Python, pydantic or PyYAML shows through."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules import document, findings, read_rules

from canary_mw.config.ambassador.module import ModuleConfig
from canary_mw.config.ambassador.schema import LegacyMapping, MappingV3
from canary_mw.config.ambassador.tls_context import TLSContext
from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.parser import parse
from canary_mw.config.wording import in_words

LEAKS = re.compile(
    r"(?<!!!)\b(None|NoneType|True|False|dict|tuple|bytes|float|int|str|bool|datetime|OrderedDict|object at|Mark)\b"
    r"|\[key\]|Input should|valid (string|integer|dictionary|list|boolean)|instance of|<class|\bfunction-|Node\("
    r"|OddKey|PlainWord|tag:yaml\.org"
)


def texts(found: Diagnostic) -> str:
    return f"{found.message} {found.hint or ''}"


def one_finding(text: str) -> Diagnostic:
    (found,) = (each for each in read_rules(text).diagnostics if each.severity == "error")
    return found


ODD = {
    "null": "null",
    "tilde": "~",
    "nothing": "",
    "a boolean": "true",
    "a word": "y",
    "a number": "5",
    "a fraction": "1.5",
    "a large number": "1e300",
    "a negative number": "-1",
    "a text": "x",
    "an empty text": "''",
    "a text with a line feed": '"a\\nb"',
    "a date": "2020-01-01",
    "a time": "2020-01-01 10:00:00",
    "a list": "[a, 1, null, true, 1.5, [b], {c: d}]",
    "a list of nulls": "[null]",
    "a list of lists": "[[a]]",
    "a list of maps": "[{a: null, b: [true]}]",
    "an empty list": "[]",
    "a map": "{a: b, c: 1, d: null, e: [f, false], g: {h: null}}",
    "a map of maps": "{a: {value: null, append: x}}",
    "an empty map": "{}",
    "a set": "{a, b}",
    "a map with odd keys": "{on: a, 1: b, 1.5: c, ~: d, null: e, no: {off: x}}",
    "a map with an empty key": "{'': a, : b}",
    "a set with a tag": "!!set {a, b}",
    "binary": "!!binary aGVsbG8=",
    "a date with a tag": "!!timestamp 2020-01-01",
    "pairs": "!!pairs [a: b]",
    "an ordered map": "!!omap [a: b]",
    "a list as a number": "!!int [1, a]",
    "a map as a boolean": "!!bool {a: b}",
    "a word as a number": "!!float y",
    "a list as a text": "!!str [a]",
    "a number as a map": "!!map 5",
    "an object": "!!python/object:os.path {}",
    "infinity": ".inf",
    "a key that is a list": "{? [a] : b}",
}
NESTED = {
    "retry_policy": ("retry_on", "num_retries", "per_try_timeout"),
    "cors": ("origins", "methods", "credentials", "max_age"),
    "load_balancer": ("policy", "cookie", "header", "source_ip"),
    "keepalive": ("probes",),
    "regex_rewrite": ("pattern",),
    "outlier_detection": ("base_ejection_time", "consecutive_5xx", "consecutive_gateway_failure", "interval"),
    "add_request_headers": ("x-a",),
    "circuit_breakers": ("priority", "max_requests"),
    "health_checks": ("health_check", "interval"),
}


def nested(name: str, inner: str, value: str) -> str:
    whole = f"{{{inner}: {value}}}"
    return f"[{whole}]" if name in ("circuit_breakers", "health_checks") else whole


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("version", ["v2", "v3alpha1"])
def test_no_attribute_of_a_mapping_tells_a_wrong_value_in_words_of_python(version: str, value: str) -> None:
    model = MappingV3 if version == "v3alpha1" else LegacyMapping
    written = [(name, value) for name in model.model_fields]
    written += [(name, nested(name, inner, value)) for name, several in NESTED.items() for inner in several]
    for name, attribute in written:
        rules = read_rules(document(version=version, **{name: attribute}))
        for found in rules.diagnostics:
            assert not LEAKS.search(texts(found)), (name, found)
            assert "\n" not in str(found)


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_nor_do_the_module_a_tls_context_and_what_every_document_has(value: str) -> None:
    head = "apiVersion: getambassador.io/v2\n"
    module, context, rule = (f"{head}kind: {kind}\n" for kind in ("Module\nname: ambassador", "TLSContext", "Mapping"))
    documents = [f"{module}config: {{{key}: {value}}}\n" for key in ModuleConfig.model_fields]
    documents += [f"{context}name: c\n{key}: {value}\n" for key in TLSContext.model_fields]
    documents += [f"{rule}{key}: {value}\n" for key in ("name", "namespace", "metadata", "spec", "metadata_labels")]
    documents += [
        f"{module}config: {value}\n",
        f"{rule}name: a\nmetadata: {{labels: {value}}}\n",
        f"{head}kind: {value}\n",
        f"kind: {value}\n",
        f"apiVersion: {value}\nkind: Mapping\nname: a\n",
        f"apiVersion: v1\nkind: List\nitems: {value}\n",
        f"apiVersion: v1\nkind: Service\nmetadata: {{annotations: {{getambassador.io/config: {value}}}}}\n",
        f"apiVersion: v1\nkind: ConfigMap\ndata: {value}\n",
        f"? {value}\n: a\n",
        f"{value}\n",
    ]
    for text in documents:
        for found in parse([Document(text, "rules.yaml")]).diagnostics:
            assert not LEAKS.search(texts(found)), (text, found)
            assert "\n" not in str(found)


@pytest.mark.parametrize(
    ("attribute", "value", "line", "message"),
    [
        ("headers", "\n  x-a: null", 8, "headers.x-a is null (leave it out instead)"),
        ("headers", "\n  x-a:\n  x-b: c", 8, "headers.x-a is null (leave it out instead)"),
        ("headers", "{x-a, x-b: c}", 7, "headers.x-a is null (leave it out instead)"),
        ("regex_headers", "{x-a: ~}", 7, "regex_headers.x-a is null (leave it out instead)"),
        ("remove_request_headers", "[x-a, null]", 7, "remove_request_headers[1] is null (leave it out instead)"),
        ("add_request_headers", "{x-a: null}", 7, "add_request_headers.x-a is null (leave it out instead)"),
        (
            "add_request_headers",
            "{x-a: {value: null}}",
            7,
            "x-a.value is null (leave it out instead)",
        ),
        ("add_request_headers", "{x-a: {append: n}}", 7, "add_request_headers.x-a.value is missing"),
        ("circuit_breakers", "[null]", 7, "circuit_breakers[0] is null (leave it out instead)"),
        ("headers", "\n  on: a", 8, 'headers: the key `on` is read as the boolean true (put it in quotes: "on")'),
        (
            "headers",
            "\n  x: y\n  No: a",
            9,
            'headers: the key `No` is read as the boolean false (put it in quotes: "No")',
        ),
        ("headers", "\n  1: a", 8, 'headers: the key `1` is read as the number 1 (put it in quotes: "1")'),
        ("headers", "\n  0x1F: a", 8, 'headers: the key `0x1F` is read as the number 31 (put it in quotes: "0x1F")'),
        ("headers", "\n  ~: a", 8, 'headers: the key `~` is read as null (put it in quotes: "~")'),
        ("headers", "\n  ?\n  : a", 8, "headers: a key is empty, which is read as null (give it a name)"),
        (
            "query_parameters",
            "{1: a}",
            7,
            "query_parameters: the key `1` is read as the number 1 (put it in quotes",
        ),
        ("cors", "{off: a}", 7, 'cors: the key `off` is read as the boolean false (put it in quotes: "off")'),
        ("labels", "{a: [{1: b}]}", 7, 'labels: the key `1` is read as the number 1 (put it in quotes: "1")'),
        ("service", "[a, {b: null}, true]", 6, "service must be a text, not the list ['a', {b: null}, true]"),
        ("weight", "{a: [1.5]}", 7, "weight must be a whole number, not the map {a: [1.5]}"),
        ("weight", "2020-01-01", 7, "weight must be a whole number, not the text '2020-01-01'"),
        ("weight", "it's", 7, 'weight must be a whole number, not the text "it\'s"'),
        ("weight", "1e300", 7, "weight must be a whole number, not the number 1e+300"),
        ("shadow", '"y"', 7, "shadow must be true or false, not the text 'y'"),
        ("headers", "{str: 5}", 7, "headers.str must be a text or true or false, not the number 5 (put it in quotes)"),
        ("regex_headers", "{x: '\\d('}", 7, "regex '\\d(' is not RE2 syntax"),
        ("outlier_detection", "{base_ejection_time: true}", 7, "must be a time, not the boolean true"),
        ("outlier_detection", "{consecutive_5xx: null}", 7, "consecutive_5xx must be a whole number, not null"),
    ],
)
def test_a_wrong_value_is_told_with_what_to_write(attribute: str, value: str, line: int, message: str) -> None:
    (found,) = read_rules(document(**{attribute: value})).diagnostics
    assert found.line == line
    assert message in str(found)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("kind: Mapping\nname: a\nyes: x\n", 3, 'the key `yes` is read as the boolean true (put it in quotes: "yes")'),
        ("kind: Mapping\nspec:\n  1: x\n", 3, 'the key `1` is read as the number 1 (put it in quotes: "1")'),
        ("kind: Mapping\nname: 5.0\n", 2, "`name` must be a text, not the number 5 (put it in quotes)"),
        ("kind: Mapping\nmetadata_labels: {a: null}\n", 2, "`a` is null (leave it out instead)"),
        ("a: !!set {b, c}\n", 1, "the tag `!!set` is not allowed here (write a list, without a tag)"),
        ("a: !!binary aGk=\n", 1, "the tag `!!binary` is not allowed here (write the text itself, without a tag)"),
        ("a: !!int [1]\n", 1, "a list or map cannot be read as a number"),
    ],
)
def test_a_document_that_cannot_be_read_is_told_with_what_to_write(text: str, line: int, message: str) -> None:
    found = one_finding(text)
    assert found.line == line
    assert message in str(found)


def test_keys_that_are_no_texts_are_no_error_where_nothing_reads_them() -> None:
    text = (
        document(envoy_override="{1: {on: a}}", xyzzy="{1: a}")
        + "---\napiVersion: apps/v1\nkind: Deployment\n1: {on: a}\n"
    )
    assert findings(read_rules(text).diagnostics) == [("warning", "unknown-field", 8), ("notice", "no-effect-yet", 7)]


@pytest.mark.parametrize("name", ["a\nrules.yaml:1: error", "a\x1b[31m", "a\u2028b", "a\x85b"])
def test_a_name_cannot_begin_a_line_of_the_log(name: str) -> None:
    (found,) = read_rules(document(json.dumps(name), prefix="/a/", service="a", weight="x")).diagnostics
    assert found.mapping == name
    assert str(found).isprintable()


JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
@settings(deadline=None)
def test_a_value_in_words_is_one_short_line(value: object) -> None:
    text = in_words(value)
    assert len(text) < 80
    assert text.isprintable() or not json.dumps(value, ensure_ascii=False).isprintable()
    assert "\n" not in text
