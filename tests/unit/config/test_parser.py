import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import chosen, document, findings, get, one, read_rules

from canary_mw.config import parser
from canary_mw.config.ambassador.interpretation import interpret
from canary_mw.config.ambassador.kinds import INSTEAD, REQUIRED
from canary_mw.config.ambassador.schema import MODELS, NO_EFFECT_YET
from canary_mw.config.document import Diagnostic, Document, document_in_error
from canary_mw.config.parser import RuleSet, parse
from canary_mw.http.headers import is_header_name
from canary_mw.routing.table import RouteTable
from canary_mw.rules.header_templates import HeaderTemplate
from canary_mw.rules.mapping import HeaderChange, Mapping


def names(rules: RuleSet) -> list[str]:
    return [mapping.name for mapping in rules.mappings]


def services(rules: RuleSet) -> dict[str, str]:
    return {mapping.name: mapping.service.text for mapping in rules.mappings}


def files(*texts: tuple[str, str], previous: RuleSet | None = None, **options: Any) -> RuleSet:
    """The rules of several files: (name, text)."""
    return parse([Document(text, name) for name, text in texts], previous=previous, **options)


def again(previous: RuleSet, text: str) -> RuleSet:
    """The rules of rules.yaml after an edit."""
    return read_rules(text, previous=previous)


@pytest.mark.parametrize(
    "version",
    [*("getambassador.io/" + known for known in MODELS), *("ambassador/" + known for known in MODELS)],
)
def test_every_version_is_read_in_either_group(version: str) -> None:
    rules = read_rules(document().replace("getambassador.io/v2", version))
    assert names(rules) == ["a"]
    assert not any(d.severity in ("error", "warning") for d in rules.diagnostics)


@pytest.mark.parametrize("version", ["getambassador.io/v4", "ambassador/v3", "getambassador.io/", "getambassadr.io/v2"])
def test_another_version_is_an_error_that_names_the_known_ones(version: str) -> None:
    rules = read_rules(document().replace("getambassador.io/v2", version))
    assert names(rules) == []
    assert findings(rules.diagnostics) == [("error", "unknown-version", 2)]
    assert "getambassador.io/v3alpha1" in str(rules.diagnostics[0].hint)


def test_a_missing_version_is_read_as_v2_with_a_warning() -> None:
    rules = read_rules(document(headers="{gray: true}").replace("apiVersion: getambassador.io/v2\n", ""))
    assert findings(rules.diagnostics) == [("warning", "no-api-version", 2)]
    assert str(rules.mappings[0].conditions[0]) == "gray present"


def other_kind(kind: str, **attributes: object) -> str:
    """A document of another kind than Mapping."""
    lines = [f"{name}: {value}" for name, value in attributes.items()]
    return "\n".join(["---", "apiVersion: getambassador.io/v3alpha1", f"kind: {kind}", "name: k", *lines, ""])


@pytest.mark.parametrize("kind", sorted(REQUIRED))
def test_another_kind_is_recognised_and_ignored_with_a_notice(kind: str) -> None:
    text = other_kind(kind, **dict.fromkeys(REQUIRED[kind], "x"))
    rules = read_rules(text + document())
    assert names(rules) == ["a"]
    assert findings(rules.diagnostics) == [("notice", "kind-ignored", 2)]
    assert rules.diagnostics[0].message == f"{kind} k: ignored: {INSTEAD[kind]}"


@pytest.mark.parametrize(("kind", "missing"), [(kind, name) for kind, names in REQUIRED.items() for name in names])
def test_another_kind_without_what_it_needs_is_an_error_that_hides_no_mapping(kind: str, missing: str) -> None:
    rest = {name: "x" for name in REQUIRED[kind] if name != missing}
    for text in (other_kind(kind, **rest), other_kind(kind, **rest, **{missing: '""'})):
        rules = read_rules(document() + text + document("b"))
        assert names(rules) == ["a", "b"]
        assert [(d.severity, d.code, d.mapping) for d in rules.diagnostics] == [("error", "missing", None)]
        assert rules.diagnostics[0].message == f"{kind} k: {missing} is missing"


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Host", {}),
        ("Host", {"mappingSelector": "{matchLabels: {a: b}}"}),
        ("Host", {"requestPolicy": "{insecure: {action: Route}}"}),
        ("Host", {"hostname": '""'}),
        ("DevPortal", {}),
    ],
)
def test_another_kind_may_leave_out_what_it_may_leave_out_in_emissary(kind: str, attributes: dict[str, str]) -> None:
    rules = read_rules(other_kind(kind, **attributes) + document())
    assert names(rules) == ["a"]
    assert findings(rules.diagnostics) == [("notice", "kind-ignored", 2)]


@pytest.mark.parametrize(
    ("resolver", "defined", "known"),
    [
        ("kubernetes-endpoint", "", True),
        ("endpoint", "", True),
        ("kubernetes-service", "", True),
        ("mine", "", False),
        ("k", other_kind("KubernetesEndpointResolver"), True),
        ("k", other_kind("ConsulResolver", address="a", datacenter="dc"), True),
        ("k", other_kind("Host", hostname="a.com"), False),
    ],
)
def test_a_resolver_must_be_one_that_is_defined(resolver: str, defined: str, known: bool) -> None:
    rules = read_rules(document(resolver=resolver) + document("b") + defined)
    assert names(rules) == (["a", "b"] if known else ["b"])
    assert ("error", "unknown-resolver", 7) in findings(rules.diagnostics) or known
    if not known:
        assert "kubernetes-endpoint" in str(rules.diagnostics[0].hint)


def test_a_resolver_that_is_defined_later_makes_the_mapping_valid() -> None:
    before = read_rules(document(resolver="k"))
    assert names(before) == []
    after = again(before, document(resolver="k") + other_kind("KubernetesEndpointResolver"))
    assert names(after) == ["a"]


@pytest.mark.parametrize(
    ("kind", "hint"), [("mapping", "did you mean Mapping?"), ("Maping", "did you mean Mapping?"), ("Xyzzy", None)]
)
def test_an_unknown_kind_is_an_error_with_the_nearest_one(kind: str, hint: str | None) -> None:
    rules = read_rules(document().replace("Mapping", kind) + document("b"))
    assert names(rules) == ["b"]
    assert findings(rules.diagnostics) == [("error", "unknown-kind", 2)]
    assert f"unknown kind {kind}: " in rules.diagnostics[0].message
    assert rules.diagnostics[0].hint == hint


def test_a_document_without_kind_or_name_is_an_error() -> None:
    rules = read_rules(document().replace("kind: Mapping\n", "") + document().replace("name: a\n", ""))
    assert findings(rules.diagnostics) == [("error", "unknown-kind", 2), ("error", "no-name", 7)]
    assert "no kind" in rules.diagnostics[0].message
    assert names(rules) == []


@pytest.mark.parametrize(
    ("version", "wanted", "read"),
    [
        ("v2", "default", True),
        ("v2", "[other, default]", True),
        ("v2", "other", False),
        ("v2", "[other]", False),
        ("v2", '""', True),
        ("v2", "[]", True),
        ("v3alpha1", "[default]", True),
        ("v3alpha1", "[other]", False),
        *((version, "--apiVersion-v3alpha1-only--default", True) for version in ("v0", "v1", "v2")),
        *((version, "[other, --apiVersion-v3alpha1-only--default]", True) for version in ("v1", "v2")),
        ("v2", "[--apiVersion-v3alpha1-only--other]", False),
        ("v3alpha1", '["--apiVersion-v3alpha1-only--default"]', False),
        ("v2", "_automatic_", True),
        ("v1", "[_automatic_]", True),
        ("v2", "[--apiVersion-v3alpha1-only--_automatic_]", True),
        ("v3alpha1", "[_automatic_]", True),
        ("v3alpha1", "[_automatic_, other]", False),
    ],
)
def test_a_mapping_for_another_ambassador_is_passed_over_with_a_notice(version: str, wanted: str, read: bool) -> None:
    rules = read_rules(document(version=version, ambassador_id=wanted))
    assert names(rules) == (["a"] if read else [])
    assert [d.code for d in rules.diagnostics if d.code != "no-hostname"] == ([] if read else ["other-ambassador-id"])


def test_the_notice_names_the_ids_and_the_own_one() -> None:
    rules = read_rules(document(ambassador_id="[blue, green]"), ambassador_id="red")
    assert findings(rules.diagnostics) == [("notice", "other-ambassador-id", 7)]
    text = "Mapping a: passed over: it is for ambassador_id blue, green, not for red"
    assert rules.diagnostics[0].message == text


@pytest.mark.parametrize("kind", ["Host", "DevPortal"])
def test_another_kind_for_another_ambassador_is_passed_over_silently(kind: str) -> None:
    assert read_rules(other_kind(kind, ambassador_id="[blue]")).diagnostics == ()


def test_the_own_ambassador_id_can_be_named() -> None:
    text = document(ambassador_id="blue") + document("b")
    assert names(read_rules(text, ambassador_id="blue")) == ["a", "b"]
    assert names(read_rules(text)) == ["b"]


def test_an_ambassador_id_of_another_type_is_an_error() -> None:
    assert findings(read_rules(document(ambassador_id=5)).diagnostics) == [("error", "wrong-type", 7)]


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("weight", '"20"', "weight must be a whole number, not the text '20'"),
        ("weight", "20.5", "weight must be a whole number, not the number 20.5"),
        ("weight", "true", "weight must be a whole number, not the boolean true"),
        ("weight", "null", "weight is null"),
        ("prefix", "[/a/]", "prefix must be a text, not the list ['/a/']"),
        ("prefix", '""', "prefix is missing"),
        ("service", "8080", "service must be a text, not the number 8080"),
        ("case_sensitive", '"no"', "case_sensitive must be true or false, not the text 'no'"),
        ("headers", "gray", "headers must be a map, not the text 'gray'"),
        ("headers", "{gray: 5}", "headers.gray must be a text or true or false, not the number 5"),
        ("headers", "{gray: null}", "headers.gray is null"),
        ("regex_headers", "{gray: true}", "regex_headers.gray must be a text, not the boolean true"),
        ("remove_request_headers", "{a: b}", "remove_request_headers must be a text or a list, not the map {a: 'b'}"),
        ("retry_policy", "{num_retries: 1}", "retry_policy.retry_on is missing"),
        ("regex_rewrite", "a", "regex_rewrite must be a map, not the text 'a'"),
        ("timeout_ms", "1.5", "timeout_ms must be a whole number"),
        ("service", "[" + "x" * 80 + "]", "service must be a text, not the list ['" + "x" * 55 + "..."),
    ],
)
def test_a_wrong_type_is_an_error_on_its_line_and_the_neighbours_are_read(
    attribute: str, value: str, message: str
) -> None:
    rules = read_rules(document(**{attribute: value}) + document("b"))
    assert names(rules) == ["b"]
    (error,) = rules.diagnostics
    assert (error.severity, error.code, error.mapping) == ("error", "wrong-type", "a")
    assert error.message.startswith("Mapping a: " + message)
    line = {"prefix": 5, "service": 6}.get(attribute, 7)
    assert error.line == line
    assert error.file == "rules.yaml"


def test_each_wrong_attribute_has_an_error_of_its_own() -> None:
    rules = read_rules(document(weight='"20"', timeout_ms='"1"', headers="{a: 1, b: 2}"))
    assert sorted(d.line or 0 for d in rules.diagnostics) == [7, 8, 9, 9]


def test_an_unquoted_number_gets_the_hint_to_quote_it() -> None:
    assert read_rules(document(headers="{gray: 5}")).diagnostics[0].hint == "put it in quotes"
    assert read_rules(document(weight='"5"')).diagnostics[0].hint is None


def test_a_missing_attribute_is_reported_at_the_document() -> None:
    rules = read_rules(document(service=None))
    assert findings(rules.diagnostics) == [("error", "wrong-type", 2)]
    assert "service is missing" in rules.diagnostics[0].message


@pytest.mark.parametrize(("redirect", "fine"), [(301, True), (308, True), (300, False), (200, False)])
def test_a_redirect_has_one_of_five_codes(redirect: int, fine: bool) -> None:
    rules = read_rules(document(host_redirect="true", redirect_response_code=redirect))
    assert bool(rules.mappings) is fine


@pytest.mark.parametrize(
    ("attribute", "hint"),
    [("Rewrite", "rewrite"), ("timeout", "timeout_ms"), ("retry_polcy", "retry_policy")],
)
def test_an_unknown_field_is_ignored_with_the_nearest_known_one(attribute: str, hint: str) -> None:
    rules = read_rules(document("a", "v2", **{attribute: 1}))
    assert names(rules) == ["a"]
    assert findings(rules.diagnostics) == [("warning", "unknown-field", 7)]
    assert rules.diagnostics[0].hint == f"did you mean {hint}?"


def test_an_unknown_field_like_no_other_has_no_hint() -> None:
    (warning,) = read_rules(document(xyzzy=1)).diagnostics
    assert (warning.code, warning.hint) == ("unknown-field", None)


DECIDING = sorted(
    {
        "weight",
        "headers",
        "regex_headers",
        "query_parameters",
        "regex_query_parameters",
        "host",
        "hostname",
        "host_regex",
    }
    | {"method", "method_regex", "prefix_exact", "prefix_regex", "case_sensitive", "precedence", "shadow"}
)
KNOWN = {name for model in MODELS.values() for name in model.model_fields}


def spelt(attribute: str, version: str = "v2", name: str = "a") -> str:
    more: dict[str, Any] = {attribute: 1}
    return document(name, version, **more)


def misspellings(name: str) -> set[str]:
    """One slip of the finger, another case, another separator, another order of the words."""
    places = range(len(name))
    left_out = {name[:i] + name[i + 1 :] for i in places if name[i] != "_"}
    doubled = {name[:i] + name[i] + name[i:] for i in places}
    exchanged = {name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in places[:-1]}
    replaced = {f"{name[:i]}x{name[i + 1 :]}" for i in places[1:]}
    words = name.split("_")
    written = {name.upper(), name.title(), name + "s", "-".join(words), " ".join(words), "".join(words)}
    camel = words[0] + "".join(word.title() for word in words[1:])
    return (left_out | doubled | exchanged | replaced | written | {camel, "_".join(words[::-1])}) - KNOWN


@pytest.mark.parametrize("version", ["v2", "v3alpha1"])
@pytest.mark.parametrize("name", DECIDING)
def test_a_misspelt_attribute_that_decides_who_matches_is_an_error_of_its_mapping(name: str, version: str) -> None:
    slips = sorted(misspellings(name))
    rules = read_rules("".join(spelt(slip, version, f"m{n}") for n, slip in enumerate(slips)) + document("b"))
    assert names(rules) == ["b"]
    wrong = {d.mapping: d for d in rules.diagnostics if d.severity == "error"}
    assert len(wrong) == len(slips) > 10
    for number, slip in enumerate(slips):
        error = wrong[f"m{number}"]
        assert (error.code, error.line) == ("unknown-field", 6 * number + 6 + number + 1)
        assert error.message.startswith(f"Mapping m{number}: unknown field {slip}: it looks like ")
        assert error.hint


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("wieght", "weight"),
        ("Weight", "weight"),
        ("heders", "headers"),
        ("header_regex", "regex_headers"),
        ("regexHeaders", "regex_headers"),
        ("query_params", "query_parameters"),
        ("queryParams", "query_parameters"),
        ("regex_query_params", "regex_query_parameters"),
        ("case_insensitive", "case_sensitive"),
        ("presedense", "precedence"),
        ("hostname_regex", "host_regex"),
        ("exact_prefix", "prefix_exact"),
    ],
)
def test_it_keeps_its_last_good_version_and_the_right_name_is_told(name: str, meant: str) -> None:
    before = read_rules(GOOD)
    after = again(before, document("a") + spelt(name, name="b").replace("service: b", "service: new") + document("c"))
    assert services(after) == {"a": "a", "b": "b", "c": "c"}
    assert findings(after.diagnostics) == [("error", "unknown-field", 13)]
    assert after.diagnostics[0].hint == f"did you mean {meant}?"
    assert meant in after.diagnostics[0].message


@pytest.mark.parametrize("version", [*MODELS])
@pytest.mark.parametrize("name", sorted(KNOWN - {"prefix", "service"}))
def test_an_attribute_of_any_version_is_no_misspelling(name: str, version: str) -> None:
    rules = read_rules(spelt(name, version).replace(f"{name}: 1", f"{name}: []"))
    assert not any(d.code == "unknown-field" and d.severity == "error" for d in rules.diagnostics)


@pytest.mark.parametrize(
    "name",
    "team owner description colour enabled tags post cost show port path query verb redirect timeout add_headers"
    " remove_headers request_headers host_header host_rewrit labelz metrics x-team".split(),
)
def test_any_other_unknown_field_stays_a_warning(name: str) -> None:
    rules = read_rules(spelt(name))
    assert names(rules) == ["a"]
    assert findings(rules.diagnostics) == [("warning", "unknown-field", 7)]


def test_a_nested_misspelling_stays_a_warning() -> None:
    rules = read_rules(document(add_request_headers="{x: {value: a, vallue: b, weight: 1}}", cors="{heders: [a]}"))
    assert names(rules) == ["a"]
    assert {(d.severity, d.code) for d in rules.diagnostics} == {("warning", "unknown-field")}
    assert len(rules.diagnostics) == 3


def test_all_errors_of_a_document_with_a_misspelling_are_told_at_once() -> None:
    rules = read_rules(document(wieght=1, timeout_ms="x", hedaers="{a: b}", foo=1))
    assert findings(rules.diagnostics) == [
        ("error", "unknown-field", 9),
        ("error", "unknown-field", 7),
        ("error", "wrong-type", 8),
    ]


def test_a_name_of_any_length_is_compared_in_no_time() -> None:
    rules = read_rules(document().replace("prefix", "? " + "weight" * 20_000 + "\n: 1\nprefix"))
    assert findings(rules.diagnostics) == [("warning", "unknown-field", 5)]


EFFECTLESS: dict[str, str] = {
    "circuit_breaker": "{max: 1}",
    "rate_limits": "[{descriptor: a}]",
    "keepalive": "{probes: 1, idle_time: 2, interval: 3}",
    "labels": "{ambassador: [{request: [a]}]}",
    "modules": "[{}]",
    "error_response_overrides": "[{on_status_code: 404}]",
    "docs": "{path: /docs}",
    "envoy_override": "{a: 1}",
    "resolver": "kubernetes-endpoint",
}
TEXTS = ("cluster_tag", "dns_type", "priority", "stats_name")


@pytest.mark.parametrize("attribute", sorted(NO_EFFECT_YET))
def test_a_known_attribute_that_does_nothing_yet_gets_a_notice(attribute: str) -> None:
    value = EFFECTLESS.get(attribute) or ("abc" if attribute in TEXTS else "true")
    rules = read_rules(document(**{attribute: value}))
    assert findings(rules.diagnostics) == [("notice", "no-effect-yet", 7)]
    assert rules.diagnostics[0].message == f"Mapping a: {attribute} is read and has no effect yet"
    assert attribute in rules.mappings[0].extras


def test_tls_is_kept_and_a_priority_selects_the_circuit_breakers() -> None:
    assert read_rules(document(tls="true")).mappings[0].extras == {"tls": True}
    assert read_rules(document(tls="true")).diagnostics == ()
    limits = "[{priority: high, max_requests: 7}]"
    rules = read_rules(document(priority="high", circuit_breakers=limits))
    assert rules.diagnostics == ()
    assert rules.mappings[0].options.circuit_breakers is not None


def test_every_known_attribute_has_an_effect_or_a_notice() -> None:
    """So that a new field of the schema cannot be forgotten."""
    read = {
        *"prefix service prefix_regex prefix_exact case_sensitive host host_regex hostname method method_regex".split(),
        *"headers regex_headers query_parameters regex_query_parameters precedence weight rewrite".split(),
        *"regex_rewrite host_rewrite auto_host_rewrite host_redirect path_redirect prefix_redirect".split(),
        *"regex_redirect redirect_response_code timeout_ms connect_timeout_ms tls ambassador_id".split(),
        *"add_request_headers remove_request_headers add_response_headers remove_response_headers".split(),
        *"retry_policy idle_timeout_ms cluster_idle_timeout_ms cluster_max_connection_lifetime_ms cors".split(),
        *"circuit_breakers shadow add_linkerd_headers allow_upgrade use_websocket".split(),
        *"load_balancer outlier_detection health_checks v3health_checks resolver bypass_auth".split(),
        *"auth_context_extensions labels rate_limits".split(),
    }
    # Written by Emissary's own conversion, which keeps in them what v2 said; and a field that v1 never documented.
    converted = {"v2ExplicitTLS", "v2BoolHeaders", "v2BoolQueryParameters", "v3StatsName", "headers_regex"}
    known = {name for model in MODELS.values() for name in model.model_fields}
    assert known - read - converted == NO_EFFECT_YET


@pytest.mark.parametrize(
    ("attribute", "value", "name", "hint"),
    [
        ("retry_policy", "{retry_on: 5xx, num_retry: 2}", "retry_policy.num_retry", "num_retries"),
        ("cors", "{origin: a}", "cors.origin", "origins"),
        ("circuit_breakers", "[{max_request: 1}]", "circuit_breakers[0].max_request", "max_requests"),
        ("add_request_headers", "{x: {value: a, apend: false}}", "add_request_headers.x.apend", "append"),
    ],
)
def test_an_unknown_field_inside_of_an_attribute_is_reported_too(
    attribute: str, value: str, name: str, hint: str
) -> None:
    rules = read_rules(document(**{attribute: value}))
    assert names(rules) == ["a"]
    assert findings(rules.diagnostics) == [("warning", "unknown-field", 7)]
    assert f"unknown field {name} is ignored" in rules.diagnostics[0].message
    assert rules.diagnostics[0].hint == f"did you mean {hint}?"


def test_a_name_twice_in_a_file_is_an_error_and_the_later_takes_the_earlier_ones_place() -> None:
    rules = read_rules(document(service="one") + document("b") + document(service="two"))
    assert services(rules) == {"a": "two", "b": "b"}
    assert names(rules) == ["a", "b"]
    assert findings(rules.diagnostics) == [("error", "duplicate-name", 14)]
    assert "replaces that of rules.yaml:2" in rules.diagnostics[0].message


def test_a_name_twice_over_two_files_is_an_error_and_the_later_file_wins() -> None:
    rules = files(("a.yaml", document(service="one") + document("b")), ("z.yaml", document(service="two")))
    assert services(rules) == {"a": "two", "b": "b"}
    assert names(rules) == ["a", "b"]
    (error,) = rules.diagnostics
    assert (error.code, error.file, error.line) == ("duplicate-name", "z.yaml", 2)
    assert "replaces that of a.yaml:2" in error.message


def test_a_name_twice_where_the_later_is_in_error_keeps_the_earlier() -> None:
    rules = read_rules(document(service="one") + document(weight="x"))
    assert services(rules) == {"a": "one"}
    assert [d.code for d in rules.diagnostics] == ["wrong-type"]


def test_the_same_name_in_another_namespace_is_another_mapping() -> None:
    rules = read_rules(document() + document(namespace="prod", service="a2") + document("b", namespace="prod"))
    assert rules.diagnostics == ()
    assert services(rules) == {"a": "a", "a.prod": "a2.prod", "b": "b.prod"}
    assert [m.namespace for m in rules.mappings] == ["default", "prod", "prod"]


def test_names_that_agree_up_to_a_dot_are_different() -> None:
    assert names(read_rules(document("a.x") + document("a.y"))) == ["a.x", "a.y"]


def test_mappings_come_in_the_order_in_which_they_are_written() -> None:
    written = [f"m{number}" for number in range(12, 0, -1)]
    assert names(read_rules("".join(document(name) for name in written))) == written


def test_a_mapping_knows_where_it_was_written() -> None:
    first, second = read_rules(document() + document("b")).mappings
    assert (first.file, first.line, second.line) == ("rules.yaml", 2, 8)


def test_true_requires_presence_and_false_requires_nothing() -> None:
    rule = one(document(headers='{gray: true, never: false, exact: "true"}', query_parameters="{q: true}"))
    assert [str(c) for c in rule.conditions] == ["exact = true", "gray present"]
    assert [str(c) for c in rule.query] == ["q present"]


def test_a_regex_of_the_same_name_takes_the_place_of_true() -> None:
    rule = one(document(headers="{gray: true}", regex_headers="{gray: 'a.*', b: c}"))
    assert [str(c) for c in rule.conditions] == ["b ~ c", "gray ~ a.*"]


def test_v3_knows_no_shorthands() -> None:
    for short in ({"headers": "{gray: true}"}, {"remove_request_headers": "x"}, {"add_request_headers": "{x: '1'}"}):
        assert read_rules(document(version="v3alpha1", **short)).mappings == ()


@pytest.mark.parametrize(
    ("version", "more", "kind", "text"),
    [
        ("v2", {}, "any", "*"),
        ("v2", {"host": "a.com"}, "exact", "a.com"),
        ("v2", {"host": "'*.com'"}, "suffix", "*.com"),
        ("v2", {"host": "a.*", "host_regex": "true"}, "regex", "a.*"),
        ("v2", {"host": '""'}, "any", "*"),
        ("v2", {"headers": "{':authority': a.com}"}, "any", "*"),
        ("v3alpha1", {"hostname": "'*'"}, "any", "*"),
        ("v3alpha1", {"hostname": "a.com", "host": "b.com"}, "exact", "a.com"),
        ("v3alpha1", {"host": "b.com"}, "exact", "b.com"),
        ("v3alpha1", {"host": "b.*", "host_regex": "true"}, "regex", "b.*"),
        ("v3alpha1", {"headers": "{':Authority': a.com}"}, "exact", "a.com"),
    ],
)
def test_a_host_is_read_as_its_version_means_it(version: str, more: dict[str, str], kind: str, text: str) -> None:
    host = one(document(version=version, **more)).host
    assert (host.kind, host.text) == (kind, text)


def test_a_v3_mapping_without_a_host_matches_every_host_with_a_notice() -> None:
    rules = read_rules(document(version="v3alpha1"))
    assert findings(rules.diagnostics) == [("notice", "no-hostname", 6)]
    assert chosen(RouteTable.build(rules.mappings), get("/a/", {"host": "any.com"})) == "a"
    assert read_rules(document(version="v3alpha1", hostname="'*'")).diagnostics == ()


@pytest.mark.parametrize(
    ("more", "service"),
    [
        ({}, "a"),
        ({"tls": "true"}, "https://a"),
        ({"tls": "true", "service": "http://a:8443"}, "https://a:8443"),
        ({"tls": "true", "service": "https://a"}, "https://a"),
        ({"tls": "false"}, "a"),
        ({"namespace": "prod"}, "a.prod"),
    ],
)
def test_a_service_follows_tls_and_namespace(more: dict[str, str], service: str) -> None:
    assert one(document(**more)).service.text == service


@pytest.mark.parametrize(("more", "rewrite"), [({}, "/"), ({"rewrite": "/api/"}, "/api/"), ({"rewrite": '""'}, None)])
def test_a_rewrite_is_a_slash_unless_given_and_empty_leaves_the_path_alone(
    more: dict[str, str], rewrite: str | None
) -> None:
    assert one(document(**more)).rewrite == rewrite


def test_the_plain_attributes_are_taken_over() -> None:
    rule = one(
        document(
            prefix_exact="true",
            case_sensitive="false",
            method="P.*",
            method_regex="true",
            precedence=3,
            weight=20,
            timeout_ms=0,
            connect_timeout_ms=500,
            host_rewrite="inner",
            shadow="true",
            metadata_labels="{variant: gray}",
        )
    )
    assert (rule.prefix_kind, rule.case_sensitive, rule.precedence, rule.weight) == ("exact", False, 3, 20)
    assert (str(rule.method), rule.timeout_ms, rule.connect_timeout_ms) == (":method ~ P.*", 0, 500)
    assert (rule.host_rewrite, rule.auto_host_rewrite, rule.shadow, rule.variant) == ("inner", False, True, "gray")
    assert one(document(prefix_regex="true", prefix_exact="true")).prefix_kind == "regex"
    assert one(document(auto_host_rewrite="true")).auto_host_rewrite
    assert one(document(metadata_labels="{variant: stable}")).variant == "stable"
    assert one(document(metadata_labels="{variant: blue}")).variant is None


@pytest.mark.parametrize(("labels", "allowed"), [("{shadow_writes: allow}", True), ("{shadow_writes: 'no'}", False)])
def test_a_label_lets_a_shadow_copy_writes(labels: str, allowed: bool) -> None:
    assert one(document(shadow="true", metadata_labels=labels)).shadow_writes is allowed
    assert not one(document(shadow="true")).shadow_writes


def test_headers_to_add_and_remove_are_taken_over() -> None:
    rule = one(
        document(
            add_request_headers="{X-B: b, x-a: {value: a, append: false}, x-percent: '100%%', x-empty: ''}",
            remove_request_headers="X-Gone",
            remove_response_headers="[server, X-P]",
        )
    )
    assert rule.add_request_headers == (
        HeaderChange(b"x-b", b"b"),
        HeaderChange(b"x-a", b"a", append=False),
        HeaderChange(b"x-empty", b""),
        HeaderChange(b"x-percent", b"100%"),
    )
    assert rule.remove_request_headers == (b"x-gone",)
    assert rule.remove_response_headers == (b"server", b"x-p")


def test_a_header_value_with_operators_is_compiled() -> None:
    (added,) = one(document(add_response_headers="{x-a: '%REQ(x-b)%'}")).add_response_headers
    assert isinstance(added.value, HeaderTemplate)


@pytest.mark.parametrize(
    ("more", "line", "message"),
    [
        ({"prefix_regex": "true", "prefix": "/("}, 5, "is not RE2 syntax"),
        ({"prefix_regex": "true", "prefix": "/(a|b){150}"}, 5, "the limit is 200"),
        ({"service": "'a b'"}, 6, "names no host"),
        ({"method": "(", "method_regex": "true"}, 7, "is not RE2 syntax"),
        ({"headers": "{'a b': c}"}, 7, "'a b' is not a header name"),
        ({"regex_headers": "{x: '('}"}, 7, "is not RE2 syntax"),
        ({"regex_query_parameters": "{x: '('}"}, 7, "is not RE2 syntax"),
        ({"host": "(", "host_regex": "true"}, 7, "is not RE2 syntax"),
        ({"rewrite": "'/a b'"}, 7, "which may not stand in a URL"),
        ({"rewrite": "/é"}, 7, "percent-encode it"),
        ({"regex_rewrite": "{}"}, 7, "the pattern is missing"),
        ({"regex_rewrite": "{pattern: '('}"}, 7, "is not RE2 syntax"),
        ({"regex_rewrite": "{pattern: a, substitution: 'a b'}"}, 7, "may not stand in a URL"),
        ({"host_rewrite": "'a b'"}, 7, "may not stand in a URL"),
        ({"host_rewrite": "a", "auto_host_rewrite": "true"}, 7, "exclude each other"),
        ({"timeout_ms": "-1"}, 7, "-1 ms is negative"),
        ({"connect_timeout_ms": "-1"}, 7, "-1 ms is negative"),
        ({"add_request_headers": "{host: a}"}, 7, "use host_rewrite"),
        ({"remove_request_headers": "Host"}, 7, "use host_rewrite"),
        ({"add_request_headers": "{content-length: '1'}"}, 7, "content-length frames the message"),
        ({"add_response_headers": "{Transfer-Encoding: chunked}"}, 7, "Transfer-Encoding frames the message"),
        ({"add_request_headers": "{'a:': b}"}, 7, "is not a header name"),
        ({"add_request_headers": '{x: "a\\nb"}'}, 7, "holds a control character"),
        ({"add_response_headers": '{x: "a\\0b"}'}, 7, "holds a control character"),
        ({"add_response_headers": "{x: '%NOVELTY%'}"}, 7, "x: %NOVELTY% is not an operator that is known here"),
        ({"add_response_headers": "{x: 5%}"}, 7, "write %% for a percent sign"),
        ({"remove_response_headers": "['a b']"}, 7, "is not a header name"),
        ({"host_redirect": "true", "path_redirect": "'/a b'"}, 8, "may not stand in a URL"),
        ({"host_redirect": "true", "regex_redirect": "{pattern: '('}"}, 8, "is not RE2 syntax"),
    ],
)
def test_a_value_that_cannot_work_rejects_only_its_mapping(more: dict[str, str], line: int, message: str) -> None:
    rules = read_rules(document(**more) + document("b"))
    assert names(rules) == ["b"]
    error = rules.diagnostics[0]
    assert (error.severity, error.code, error.line, error.mapping) == ("error", "bad-value", line, "a")
    assert message in str(error)


texts = st.text(st.sampled_from("ab:-_ \r\n\t\0%é\x7f\x1b"), max_size=6)


@given(st.one_of(texts, st.sampled_from(["host", "Host", "content-length", "via", "x-a"])), texts, st.booleans())
def test_no_rule_can_add_a_header_that_breaks_out_of_its_line(name: str, value: str, append: bool) -> None:
    added = json.dumps({name: {"value": value, "append": append}})
    for mapping in read_rules(document(add_request_headers=added, add_response_headers=added)).mappings:
        for change in (*mapping.add_request_headers, *mapping.add_response_headers):
            assert is_header_name(change.name.decode())
            assert change.name not in (b"host", b"content-length", b"transfer-encoding")
            assert isinstance(change.value, bytes)
            assert not set(b"\r\n\0\x7f\x1b") & {*change.value}


@given(st.sampled_from(["rewrite", "host_rewrite", "path_redirect", "prefix_redirect"]), texts)
def test_no_rule_can_write_a_blank_or_a_control_into_a_request_line(attribute: str, text: str) -> None:
    for mapping in read_rules(document(host_redirect="true", **{attribute: json.dumps(text)})).mappings:
        assert mapping.redirect is not None
        written = (mapping.rewrite, mapping.host_rewrite, mapping.redirect.path, mapping.redirect.prefix)
        assert all(0x20 < ord(char) < 0x7F for part in written if part for char in part)


def test_a_v3_host_with_a_star_is_an_error() -> None:
    rules = read_rules(document(version="v3alpha1", host="'*.com'"))
    assert findings(rules.diagnostics) == [("error", "bad-value", 7)]
    assert rules.diagnostics[0].hint == "write hostname: instead"


@pytest.mark.parametrize(
    ("more", "severity", "code", "line"),
    [
        ({"service": "a:99999"}, "warning", "service-text", 6),
        ({"regex_rewrite": "{pattern: a, substitution: '\\1'}"}, "warning", "bad-reference", 7),
        ({"regex_rewrite": "{pattern: a}", "rewrite": "/"}, "notice", "rewrite-overridden", 8),
        ({"weight": "-1"}, "warning", "weight-range", 7),
        ({"weight": "101"}, "warning", "weight-range", 7),
        ({"path_redirect": "/p"}, "warning", "no-redirect", 7),
        ({"host_redirect": "true", "path_redirect": "/p", "prefix_redirect": "/q"}, "error", "two-redirects", 9),
    ],
)
def test_a_mapping_that_works_in_part_is_reported(more: dict[str, str], severity: str, code: str, line: int) -> None:
    rules = read_rules(document(**more))
    assert names(rules) == ["a"]
    assert findings(rules.diagnostics) == [(severity, code, line)]


def test_a_redirect_is_taken_over() -> None:
    more = {"prefix_redirect": "/q/", "regex_redirect": "{pattern: a, substitution: b}"}
    rule = one(document(service="new.com", host_redirect="true", redirect_response_code=302, **more))
    assert rule.redirect is not None
    assert (rule.redirect.host, rule.redirect.prefix, rule.redirect.status) == ("new.com", "/q/", 302)
    assert rule.redirect.regex is not None
    assert one(document(host_redirect="true", shadow="true")).redirect is None


@pytest.mark.parametrize(
    ("more", "upgrades"),
    [
        ({}, None),
        ({"allow_upgrade": "[]"}, ()),
        ({"allow_upgrade": "[WebSocket, spdy/3.1]"}, ("websocket", "spdy/3.1")),
        ({"use_websocket": "true"}, ("websocket",)),
        ({"use_websocket": "false"}, ()),
        ({"allow_upgrade": "[]", "use_websocket": "true"}, ("websocket",)),
    ],
)
def test_upgrades_are_allowed_by_name(more: dict[str, str], upgrades: tuple[str, ...] | None) -> None:
    assert one(document(**more)).upgrades == upgrades


def test_an_upgrade_that_is_not_supported_gets_a_notice() -> None:
    assert read_rules(document(use_websocket="true")).diagnostics == ()
    rules = read_rules(document(allow_upgrade="[websocket, SPDY/3.1]"))
    assert findings(rules.diagnostics) == [("notice", "no-effect-yet", 7)]
    assert "spdy/3.1" in rules.diagnostics[0].message


GOOD = document("a") + document("b") + document("c")


def test_a_mapping_in_error_keeps_its_last_good_version() -> None:
    before = read_rules(GOOD)
    for bad in ({"weight": "x"}, {"service": None}, {"prefix_regex": "true", "prefix": "("}, {"service": "null"}):
        after = again(before, document("a", service="new") + document("b", **bad) + document("c"))
        assert services(after) == {"a": "new", "b": "b", "c": "c"}
        assert names(after) == ["a", "b", "c"]
        assert any(d.severity == "error" and d.mapping == "b" for d in after.diagnostics)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("kind: Mapping", "kind: Maping"), ("getambassador.io/v2", "getambassador.io/v22"), ("kind: Mapping\n", "")],
)
def test_a_mapping_with_a_misspelt_kind_or_version_keeps_its_last_good_version(right: str, wrong: str) -> None:
    before = read_rules(GOOD)
    after = again(before, document("a") + document("b").replace(right, wrong) + document("c"))
    assert names(after) == ["a", "b", "c"]


def test_a_bad_second_version_in_the_same_file_does_not_displace_a_good_first_one() -> None:
    after = again(read_rules(document(service="old")), document(service="new") + document(weight="x"))
    assert services(after) == {"a": "new"}
    assert [d.code for d in after.diagnostics] == ["wrong-type"]


def test_a_mapping_in_error_that_was_never_good_is_not_there() -> None:
    assert names(again(read_rules(GOOD), GOOD + document("d", weight="x"))) == ["a", "b", "c"]


def test_a_last_good_version_outlives_several_bad_edits() -> None:
    rules = read_rules(GOOD)
    for weight in ("x", "y", "'z'"):
        rules = again(rules, document("a") + document("b", weight=weight) + document("c"))
    assert names(rules) == ["a", "b", "c"]
    rules = again(rules, document("a") + document("b", service="corrected") + document("c"))
    assert services(rules)["b"] == "corrected"
    assert rules.diagnostics == ()


def test_what_a_readable_file_no_longer_has_is_gone_even_next_to_an_error() -> None:
    after = again(read_rules(GOOD), document("a", weight="x") + document("b"))
    assert names(after) == ["a", "b"]


CUT = Diagnostic(severity="warning", code="not-removed", message="it has no end", file="rules.yaml", hint="end it")


def test_nothing_behind_a_cut_is_removed_wherever_it_is() -> None:
    """Only a cut between two documents looks like a file that holds no more of them."""
    before = read_rules(GOOD)
    for end in range(len(GOOD)):
        text = GOOD[:end]
        partial = None if text.endswith("\n") else CUT
        after = parse([Document(text, "rules.yaml", partial=partial)], previous=before)
        shown = names(read_rules(text))
        last = text.rpartition("---\n")[2]
        cut_between = partial is None and (not last or "service: " in last)
        assert names(after) == (shown if cut_between else ["a", "b", "c"]), text
        assert [d.code for d in after.diagnostics].count("not-removed") == (
            set(names(after)) > set(document_names(text))
        )
        assert names(again(after, GOOD)) == ["a", "b", "c"]


def document_names(text: str) -> list[str]:
    """Names of the documents that a text shows, those in error too."""
    return re.findall(r"(?m)^name: (\w+)$", text)


def test_what_a_partial_file_shows_is_taken_and_the_finding_names_what_it_does_not_show() -> None:
    before = read_rules(GOOD + document("d") + document("e"))
    text = document("a", service="new") + document("f")
    partial = parse([Document(text, "rules.yaml", partial=CUT)], previous=before)
    assert services(partial) == {"a": "new", "b": "b", "c": "c", "d": "d", "e": "e", "f": "f"}
    (finding,) = partial.diagnostics
    assert finding == replace(
        CUT, message="no longer in the file, but still in force: b, c, d and 1 more; it has no end"
    )

    complete = again(partial, text)
    assert services(complete) == {"a": "new", "f": "f"}
    assert complete.diagnostics == ()
    assert complete.files["rules.yaml"].reading is partial.files["rules.yaml"].reading


def test_a_partial_file_that_shows_all_is_taken_as_it_is_with_a_notice() -> None:
    text = document("c") + document("b") + document("a", service="cut")
    after = parse([Document(text, "rules.yaml", partial=CUT)], previous=read_rules(GOOD))
    assert list(services(after).items()) == [("c", "c"), ("b", "b"), ("a", "cut")]
    message = "it has no end: its last document may be incomplete, and nothing would be removed"
    assert after.diagnostics == (replace(CUT, severity="notice", code="no-line-feed", message=message),)


def test_a_last_document_in_error_lets_nothing_be_removed_until_it_is_corrected() -> None:
    after = again(read_rules(GOOD), document("a") + document("b", weight="x"))
    assert names(after) == ["a", "b", "c"]
    assert findings(after.diagnostics) == [("error", "wrong-type", 13), ("warning", "not-removed", None)]
    assert "the last document of the file is in error" in after.diagnostics[1].message
    assert names(again(after, document("a") + document("b", weight="1"))) == ["a", "b"]


MODULE = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: {server_name: edge}\n"


@pytest.mark.parametrize("cut", ["config: {server_name: edge}\n", "kind: Module\nname: ambassador\nconfig: "])
def test_a_module_behind_a_cut_or_cut_itself_stays_with_all_that_follows(cut: str) -> None:
    before = read_rules(document("a") + MODULE + document("b"))
    for text in (document("a", service=None), document("a") + MODULE.replace(cut, "config: a\n")):
        after = again(before, text)
        assert (names(after), after.shared) == (["a", "b"], before.shared)
        assert [d.severity for d in after.diagnostics] == ["error", "warning"]
    assert again(before, document("a")).shared != before.shared


@pytest.mark.parametrize(
    "broken",
    ["---\nkind: {Mapp\n", "---\n- a list\n", "---\na: *b\n", "---\nname: x\nname: y\n", "---\n" + "[" * 60 + "\n"],
)
def test_a_file_with_an_unreadable_document_loses_nothing(broken: str) -> None:
    before = read_rules(GOOD)
    after = again(before, document("a", service="new") + broken + document("d"))
    assert services(after) == {"a": "new", "b": "b", "c": "c", "d": "d"}
    assert names(after) == ["a", "b", "c", "d"]
    clean = again(after, document("a", service="new") + document("d"))
    assert names(clean) == ["a", "d"]


def unread(name: str) -> Document:
    return document_in_error(name, "cannot be read")


def test_a_file_that_cannot_be_read_stays_as_it_was_with_its_module() -> None:
    module = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: {server_name: edge}\n"
    before = files(("a.yaml", module + GOOD + document("odd", surprise=1)), ("z.yaml", document("z")))
    after = parse([unread("a.yaml"), Document(document("z", service="new"), "z.yaml")], previous=before)

    assert services(after) == {**services(before), "z": "new"}
    assert after.shared == before.shared
    assert all(any(each is old for old in before.mappings) for each in after.mappings if each.name != "z")
    assert findings(after.diagnostics) == [("error", "unreadable-file", None), ("warning", "unknown-field", 30)]

    again = files(("a.yaml", module + document("a")), ("z.yaml", document("z")), previous=after)
    assert names(again) == ["a", "z"]
    assert again.diagnostics == ()


def test_a_directory_that_cannot_be_read_keeps_its_files_and_no_others() -> None:
    before = files(*((f"{name}.yaml", document(name.replace("/", "-"))) for name in ("d/a", "d/s/b", "d2/c", "d/e")))
    after = parse([unread("d"), Document(document("new"), "d/e.yaml")], previous=before)

    assert names(after) == ["d-a", "d-s-b", "new"]
    assert names(parse([unread("d/"), unread("d2/c.yaml")], previous=after)) == ["d-a", "d-s-b", "new"]
    assert names(parse([Document(document("a"), "d/a.yaml")], previous=after)) == ["a"]


def test_a_file_that_could_never_be_read_has_no_mappings() -> None:
    rules = parse([unread("a.yaml"), Document(document("z"), "z.yaml")])
    assert names(rules) == ["z"]
    assert findings(rules.diagnostics) == [("error", "unreadable-file", None)]


def test_an_emptied_file_is_taken_as_it_is() -> None:
    """That a source without any rules is an error, is checked in the store."""
    assert names(again(read_rules(GOOD), "")) == []


def test_a_broken_file_holds_back_nothing_of_its_neighbours() -> None:
    before = files(("a.yaml", document("a") + document("b")), ("c.yaml", document("c") + document("d")))
    after = files(("a.yaml", document("a") + "---\n{\n"), ("c.yaml", document("c")), previous=before)
    assert names(after) == ["a", "b", "c"]


def test_a_file_that_is_gone_removes_its_mappings() -> None:
    before = files(("a.yaml", document("a")), ("b.yaml", document("b")))
    after = files(("b.yaml", document("b")), previous=before)
    assert names(after) == ["b"]


def test_a_mapping_that_moves_to_another_file_is_no_duplicate() -> None:
    before = files(("a.yaml", document("a") + document("b")), ("z.yaml", document("c")))
    after = files(("a.yaml", document("a")), ("z.yaml", document("c") + document("b")), previous=before)
    assert names(after) == ["a", "c", "b"]
    assert after.diagnostics == ()


def test_a_last_good_version_belongs_to_its_file() -> None:
    before = files(("a.yaml", document("a")), ("z.yaml", document("b")))
    after = files(("a.yaml", document("a")), ("z.yaml", document("a", weight="x") + document("b")), previous=before)
    assert services(after) == {"a": "a", "b": "b"}
    assert [(d.code, d.file) for d in after.diagnostics] == [("wrong-type", "z.yaml")]


def test_a_mapping_that_is_renamed_while_another_document_is_broken_exists_twice_until_the_file_is_corrected() -> None:
    after = again(read_rules(document("a")), document("a2", prefix="/a/") + "---\n{\n")
    assert names(after) == ["a", "a2"]
    assert names(again(after, document("a2", prefix="/a/"))) == ["a2"]


def test_a_mapping_handed_to_another_ambassador_is_gone() -> None:
    assert names(again(read_rules(GOOD), document("a") + document("b", ambassador_id="other"))) == ["a"]


def test_an_unchanged_document_is_the_same_mapping() -> None:
    before = read_rules(GOOD)
    after = again(before, document("a") + document("b", service="b2") + document("c"))
    old, new = ({m.name: m for m in rules.mappings} for rules in (before, after))
    assert new["a"] is old["a"]
    assert new["c"] is old["c"]
    assert new["b"] is not old["b"]


def test_an_unchanged_document_is_not_interpreted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(("a.yaml", GOOD), ("z.yaml", document("d", weight="x")))
    seen: list[str | None] = []

    def counted(resource: Any, *more: Any) -> Any:
        seen.append(resource.name)
        return interpret(resource, *more)

    monkeypatch.setattr(parser, "interpret", counted)
    after = files(("a.yaml", GOOD), ("z.yaml", document("d", weight="x")), previous=before)
    assert seen == []
    assert after.diagnostics == before.diagnostics
    files(("a.yaml", GOOD), ("z.yaml", document("d", weight=5)), previous=after)
    assert seen == ["d"]


def test_a_document_that_moves_down_in_its_file_knows_its_new_line() -> None:
    before = read_rules(document("a", xyzzy=1))
    after = again(before, "# a comment\n\n" + document("b") + document("a", xyzzy=1))
    (moved,) = [m for m in after.mappings if m.name == "a"]
    assert moved.line == 10
    assert findings(after.diagnostics) == [("warning", "unknown-field", 15)]


def test_a_mapping_that_only_moved_keeps_what_it_computed() -> None:
    before = read_rules(document("a", prefix_regex="true", prefix="/a.*"))
    (old,) = before.mappings
    pattern = old.pattern
    (moved,) = again(before, "# moved\n" + document("a", prefix_regex="true", prefix="/a.*")).mappings
    assert (moved.line, old.line) == (3, 2)
    assert moved == old
    assert moved.pattern is pattern


@pytest.mark.parametrize("text", [document(weight="x"), document(xyzzy=1), document().replace("Mapping", "M")])
def test_findings_name_the_file_that_they_are_about_also_when_a_text_is_known_from_another(text: str) -> None:
    before = files(("a.yaml", text))
    renamed = files(("b.yaml", text), previous=before)
    assert {d.file for d in renamed.diagnostics} == {"b.yaml"}
    copied = files(("a.yaml", text), ("b.yaml", text), previous=before)
    own = [d for d in copied.diagnostics if d.code != "duplicate-name"]
    assert [d.file for d in own] == ["a.yaml", "b.yaml"]
    again_ = files(("a.yaml", text), ("b.yaml", text), previous=copied)
    assert again_.diagnostics == copied.diagnostics


def test_a_mapping_of_a_renamed_file_knows_its_new_file() -> None:
    before = files(("a.yaml", GOOD))
    after = files(("b.yaml", GOOD), previous=before)
    assert {m.file for m in after.mappings} == {"b.yaml"}


def test_the_same_text_gives_the_same_rules_whatever_came_before() -> None:
    text = document("a", weight=5) + document("b", xyzzy=1) + document("c", namespace="x")
    fresh = read_rules(text)
    over = again(again(read_rules(GOOD), document("b")), text)
    assert _facts(over.mappings) == _facts(fresh.mappings)
    assert over.diagnostics == fresh.diagnostics


def _facts(mappings: Sequence[Mapping]) -> list[tuple[object, ...]]:
    return [(m.name, m.key, m.service, m.weight, m.namespace, m.file, m.line) for m in mappings]


def test_variables_are_put_in_and_a_change_of_them_is_seen() -> None:
    text = document("a", service="$TARGET")
    before = read_rules(text, environ={"TARGET": "one"})
    after = read_rules(text, environ={"TARGET": "two"}, previous=before)
    assert (services(before), services(after)) == ({"a": "one"}, {"a": "two"})


def test_labels_of_the_service_reach_its_rules() -> None:
    inner = "\n".join("      " + line for line in document("a").splitlines())
    text = (
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: svc\n  labels: {variant: gray}\n"
        f"  annotations:\n    getambassador.io/config: |\n{inner}\n"
    )
    assert one(text).variant == "gray"
