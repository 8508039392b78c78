"""What Emissary or Envoy refuses is refused here too: wrong shapes, and conditions that never hold."""

from typing import Any

import pytest
from rules import document, findings, read_rules

LEGACY, V3 = "v2", "v3alpha1"
GROUP = "{domain: [{group: [%s]}]}"


def refusal(version: str = LEGACY, **attributes: Any) -> str:
    """The only finding about a Mapping that is left out, at the line of its attribute."""
    rules = read_rules(document("a", version, **attributes) + document("b"))
    assert [mapping.name for mapping in rules.mappings] == ["b"]
    (error,) = [d for d in rules.diagnostics if d.severity == "error"]
    assert error.line is not None
    assert error.line >= 7
    return error.message.removeprefix("Mapping a: ")


def accepted(version: str = LEGACY, **attributes: Any) -> bool:
    rules = read_rules(document("a", version, **attributes))
    return len(rules.mappings) == 1 and not any(d.severity in ("error", "warning") for d in rules.diagnostics)


@pytest.mark.parametrize(
    ("version", "labels", "problem"),
    [
        (LEGACY, "{domain: text}", "labels.domain must be a list, not the text 'text'"),
        (LEGACY, "{domain: {group: [a]}}", "labels.domain must be a list, not the map"),
        (LEGACY, "{domain: [text]}", "labels.domain[0] must be a map of one name, not the text 'text'"),
        (LEGACY, "{domain: [{}]}", "labels.domain[0] must be a map of one name, not the map {}"),
        (LEGACY, "{domain: [{group: text}]}", "labels.domain[0].group must be a list, not the text 'text'"),
        (LEGACY, GROUP % "1", "labels.domain[0].group[0] must be a text or a map of one name, not the number 1"),
        (LEGACY, GROUP % "a, {x: y}", "labels.domain[0].group[1] must be a text or a map of one name"),
        (LEGACY, GROUP % "{x: {heder: y}}", "labels.domain[0].group[0].header is missing"),
        (LEGACY, GROUP % "{x: {header: 5}}", "labels.domain[0].group[0].header must be a text, not the number 5"),
        (
            LEGACY,
            GROUP % "{x: {header: y, omit_if_not_present: z}}",
            "labels.domain[0].group[0].omit_if_not",
        ),
        (
            LEGACY,
            GROUP % "{x: {header: y}, z: {header: y}}",
            "labels.domain[0].group[0] must be a text or a map of one",
        ),
        (V3, "{domain: [{a: [], b: []}]}", "labels.domain[0] must be a map of one name"),
        (V3, GROUP % "text", "labels.domain[0].group[0] must be a map of one of generic_key, request_headers"),
        (V3, GROUP % "{x: {header: y}}", "labels.domain[0].group[0] must be a map of one of generic_key"),
        (V3, GROUP % "{generic_key: y}", "labels.domain[0].group[0].generic_key must be a map, not the text 'y'"),
        (V3, GROUP % "{generic_key: {key: y}}", "labels.domain[0].group[0].generic_key.value is missing"),
        (V3, GROUP % "{request_headers: {key: y}}", "labels.domain[0].group[0].request_headers.header_name is missing"),
        (V3, GROUP % "{remote_address: {key: y}}", "labels.domain[0].group[0].remote_address.key must be the text"),
    ],
)
def test_labels_of_a_wrong_shape_are_refused_without_their_mapping(version: str, labels: str, problem: str) -> None:
    rules = read_rules(document("a", version, labels=labels))
    assert [mapping.name for mapping in rules.mappings] == ["a"]
    (error,) = [d for d in rules.diagnostics if d.severity == "error"]
    assert error.line == 7
    assert error.message.removeprefix("Mapping a: ").startswith(problem)


@pytest.mark.parametrize(
    ("version", "label"),
    [
        (LEGACY, "remote_address"),
        (LEGACY, "{generic_key: text}"),
        (LEGACY, "{x: {header: x-name, omit_if_not_present: true}}"),
        (V3, "{generic_key: {value: text, key: name}}"),
        (V3, "{request_headers: {key: x, header_name: x-name, omit_if_not_present: true}}"),
        (V3, "{remote_address: {key: remote_address}}, {destination_cluster: {key: destination_cluster}}"),
    ],
)
def test_labels_as_emissary_takes_them_are_fine(version: str, label: str) -> None:
    assert accepted(version, labels=GROUP % label)


@pytest.mark.parametrize("version", [LEGACY, V3])
@pytest.mark.parametrize("name", ['""', '"a b"', '"a:"', '":path"', '"\u00e9"', '"a\\nb"'])
def test_header_names_that_are_no_tokens_are_refused(version: str, name: str) -> None:
    for attribute in ("add_request_headers", "add_response_headers"):
        assert refusal(version, **{attribute: f"{{{name}: {{value: x}}}}"}).endswith("is not a header name")
    for attribute in ("remove_request_headers", "remove_response_headers"):
        assert refusal(version, **{attribute: f"[{name}]"}).endswith("is not a header name")
    for attribute in ("headers", "regex_headers") if name != '":path"' else ():
        assert refusal(version, **{attribute: f"{{{name}: x}}"}).endswith("is not a header name")


@pytest.mark.parametrize("attribute", ["regex_headers", "regex_query_parameters"])
def test_an_empty_regex_is_refused(attribute: str) -> None:
    assert refusal(**{attribute: '{x: ""}'}) == "the regex for x is empty"


@pytest.mark.parametrize("attribute", ["query_parameters", "regex_query_parameters"])
def test_a_query_parameter_has_a_name(attribute: str) -> None:
    assert refusal(**{attribute: '{"": x}'}) == "a query parameter has no name"


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"headers": '{":foo": x}'}, "':foo' is no pseudo header of a request"),
        ({"regex_headers": '{":status": "2.."}'}, "':status' is no pseudo header of a request"),
        ({"headers": '{":": x}'}, "':' is not a header name"),
        ({"headers": '{":method": POST, ":METHOD": GET}'}, ":METHOD cannot be 'GET' and 'POST' at once"),
        ({"headers": '{":method": POST}', "method": "GET"}, ":method cannot be 'POST' and 'GET' at once"),
        ({"headers": '{":method": POST}', "method": "GET|PUT", "method_regex": "true"}, "and match 'GET|PUT'"),
        ({"method": "POST", "regex_headers": '{":method": "GET|PUT"}'}, "cannot be 'POST' and match 'GET|PUT'"),
        ({"headers": '{":path": /a}', "regex_headers": '{":path": /b.*}'}, "cannot be '/a' and match '/b.*'"),
        ({"headers": '{":path": a}'}, ":path is never 'a'"),
        ({"headers": '{":method": "G ET"}'}, ":method is never 'G ET'"),
        ({"headers": '{":scheme": ftp}'}, ":scheme is http or https, never 'ftp'"),
        ({"regex_headers": '{":scheme": "ws.*"}'}, ":scheme is http or https, never 'ws.*'"),
        ({"method": '"G ET"'}, "'G ET' is no method"),
    ],
)
def test_a_condition_on_a_pseudo_header_that_never_holds_is_refused(attributes: dict[str, str], problem: str) -> None:
    assert problem in refusal(LEGACY, **attributes)


@pytest.mark.parametrize(
    "attributes",
    [
        {"headers": '{":method": POST}', "method": "POST"},
        {"headers": '{":method": POST}', "regex_headers": '{":method": "P.*"}'},
        {"method": "GET|POST", "method_regex": "true"},
        {"headers": '{":path": "/a/b?c", x: y}', "regex_headers": '{x: z, ":scheme": "http.*"}'},
        {"headers": '{x: "", ":scheme": https}'},
        {"regex_headers": '{":authority": "a.*"}'},
    ],
)
def test_conditions_that_can_hold_are_fine(attributes: dict[str, str]) -> None:
    assert accepted(**attributes)


def test_an_error_of_the_method_is_told_once() -> None:
    rules = read_rules(document(method='"("', method_regex="true", headers='{":method": GET}'))
    assert findings(rules.diagnostics) == [("error", "bad-value", 7)]


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"keepalive": "{probes: -1}"}, "probes -1 is negative"),
        ({"keepalive": "{idle_time: 4294967296}"}, "idle_time 4294967296 is more than 4294967295"),
        ({"retry_policy": "{retry_on: 5xx, num_retries: -1}"}, "num_retries -1 is negative"),
        ({"retry_policy": "{retry_on: 5xx, num_retries: 4294967296}"}, "num_retries 4294967296 is more than"),
        ({"retry_policy": "{retry_on: 5xx, per_try_timeout: 99999999999h}"}, "is not a duration"),
        ({"circuit_breakers": "[{max_requests: 4294967296}]"}, "max_requests 4294967296 is more than"),
        ({"timeout_ms": 9_000_000_000_001}, "9000000000001 ms is more than 9000000000000"),
        ({"connect_timeout_ms": 9_000_000_000_001}, "ms is more than"),
        ({"idle_timeout_ms": 9_000_000_000_001}, "ms is more than"),
        ({"health_checks": "[{health_check: {}}]"}, "health_check must be either http or grpc"),
        (
            {"health_checks": "[{health_check: {http: {path: /}, grpc: {}}}]"},
            "health_check must be either http or grpc",
        ),
        ({"health_checks": "[{health_check: {http: {path: /, remove_request_headers: ['a b']}}}]"}, "'a b' is not a"),
        ({"cors": '{origins: ["a\\nb"]}'}, "holds a control character"),
        ({"allow_upgrade": '[""]'}, "'' is no protocol"),
        ({"allow_upgrade": '["a\\nb"]'}, "is no protocol"),
        ({"docs": "{path: 1}"}, "docs.path must be a text, not the number 1"),
        ({"docs": "{ignored: x}"}, "docs.ignored must be true or false, not the text 'x'"),
        ({"docs": "{timeout_ms: true}"}, "docs.timeout_ms must be a whole number, not the boolean true"),
        ({"error_response_overrides": "[{}]"}, "error_response_overrides[0].on_status_code must be a number from 400"),
        ({"error_response_overrides": "[{on_status_code: 399}]"}, "from 400 to 599, not the number 399"),
        ({"error_response_overrides": "[{on_status_code: 404, body: x}]"}, "[0].body must be a map, not the text 'x'"),
        ({"envoy_override": "text"}, "envoy_override must be a map, not the text 'text'"),
    ],
)
def test_a_value_that_emissary_or_envoy_does_not_take_is_refused(attributes: dict[str, Any], problem: str) -> None:
    assert problem in refusal(LEGACY, **attributes)


@pytest.mark.parametrize("statuses", ["{min: 300, max: 200}", "{min: 99, max: 200}", "{min: 200, max: 600}"])
def test_expected_statuses_are_a_range_of_statuses(statuses: str) -> None:
    checks = f"[{{health_check: {{http: {{path: /, expected_statuses: [{statuses}]}}}}}}]"
    assert "is no range within 100 to 599" in refusal(health_checks=checks)


@pytest.mark.parametrize(
    ("version", "attributes", "line"),
    [
        (LEGACY, {"headers_regex": "{a: b}"}, 7),
        (LEGACY, {"headers": '{":authority": a.com}'}, 7),
        (V3, {"hostname": "b.com", "headers": '{":authority": a.com}'}, 8),
        (LEGACY, {"redirect_response_code": "302"}, 7),
        (V3, {"hostname": "b.com", "host": "a.com"}, 8),
        (V3, {"hostname": "'*'", "host_regex": "true"}, 8),
        (LEGACY, {"host_regex": "true"}, 7),
        (LEGACY, {"method_regex": "true"}, 7),
        (LEGACY, {"prefix_exact": "true", "prefix_regex": "true"}, 7),
    ],
)
def test_what_decides_nothing_where_it_is_written_is_reported(
    version: str, attributes: dict[str, str], line: int
) -> None:
    rules = read_rules(document("a", version, **attributes))
    assert len(rules.mappings) == 1
    assert [(d.severity, d.line) for d in rules.diagnostics] == [("warning", line)]


def test_the_authority_of_v3alpha1_is_its_host() -> None:
    rules = read_rules(document(version=V3, headers='{":authority": a.com}'))
    assert (rules.mappings[0].host.text, rules.diagnostics) == ("a.com", ())
