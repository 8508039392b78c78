"""TracingService documents: each attribute, what is ignored with a notice, and what is an error."""

import pytest
from collector import OTLP, SERVICE, ZIPKIN

from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.rules.filters.traces import CustomTag, Sampling, TracePolicy

ALL = """sampling: {client: 1, random: 2.5, overall: 3}
custom_tags:
- {tag: lit, literal: {value: v}}
- {tag: env, environment: {name: HOME, default_value: none}}
- {tag: user, request_header: {name: X-User}}
config:
  collector_endpoint: /spans
  collector_hostname: zipkin.example
  trace_id_128bit: false
  propagation_modes: [B3, TRACE_CONTEXT]
  service_name: shop
"""


def read(text: str, previous: RuleSet | None = None) -> RuleSet:
    return parse([Document(text, "rules")], previous=previous)


def policy(rules: RuleSet) -> TracePolicy | None:
    return rules.shared.settings.tracing


def codes(rules: RuleSet) -> list[tuple[str, str]]:
    return [(each.severity, each.code) for each in rules.diagnostics]


def test_every_attribute_counts() -> None:
    rules = read(ZIPKIN + ALL)
    assert rules.diagnostics == ()
    found = policy(rules)
    assert found is not None
    assert (found.name, found.service.text, found.driver, found.node) == (
        "tracing",
        "collector",
        "zipkin",
        "default-default",
    )
    assert found.sampling == Sampling(1.0, 2.5, 3.0)
    assert found.tags == (
        CustomTag("lit", "literal", value="v"),
        CustomTag("env", "environment", "HOME", "none"),
        CustomTag("user", "request_header", "x-user"),
    )
    assert (found.endpoint, found.hostname, found.long_ids) == ("/spans", "zipkin.example", False)
    assert (found.modes, found.service_name) == (("B3", "TRACE_CONTEXT"), "shop")


def test_defaults_are_those_of_emissary() -> None:
    zipkin, otlp = policy(read(ZIPKIN)), policy(read(OTLP))
    assert zipkin is not None
    assert otlp is not None
    assert (zipkin.sampling, zipkin.endpoint, zipkin.long_ids) == (Sampling(100, 100, 100), "/api/v2/spans", True)
    assert (zipkin.modes, otlp.modes) == (("B3",), ("TRACE_CONTEXT",))


@pytest.mark.parametrize("version", ["v0", "v1", "v2"])
def test_older_versions_tag_by_headers(version: str) -> None:
    text = ZIPKIN.replace("v3alpha1", version)
    by_headers = policy(read(text + "tag_headers: [X-User]\n"))
    assert by_headers is not None
    assert by_headers.tags == (CustomTag("X-User", "request_header", "x-user"),)
    both = read(text + "tag_headers: [x-user]\nv3CustomTags: [{tag: a, literal: {value: b}}]\n")
    assert codes(both) == [("notice", "tag-headers-ignored")]
    found = policy(both)
    assert found is not None
    assert found.tags == (CustomTag("a", "literal", value="b"),)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ("{collector_endpoint_version: HTTP_PROTO}", "json-is-sent"),
        ("{shared_span_context: true}", "own-span-ids"),
        ("{propagation_modes: [ENVOY]}", "mode-ignored"),
        ("{access_token_file: /token}", "lightstep-only"),
    ],
)
def test_what_is_not_done_is_said(config: str, code: str) -> None:
    rules = read(f"{ZIPKIN}config: {config}\n")
    assert codes(rules) == [("notice", code)]
    found = policy(rules)
    assert found is not None
    assert found.modes == ("B3",)


def test_what_zipkin_alone_has_is_said() -> None:
    assert codes(read(OTLP + "config: {collector_endpoint: /x}\n")) == [("notice", "zipkin-only")]


def test_datadog_is_a_warning_with_the_way_to_it_and_traces_nothing() -> None:
    rules = read(SERVICE + "driver: datadog\n")
    assert codes(rules) == [("warning", "driver-not-spoken")]
    assert "4317" in (rules.diagnostics[0].hint or "")
    assert policy(rules) is None


@pytest.mark.parametrize(
    "more",
    [
        "driver: lightstep",
        "driver: jaeger",
        "driver: zipkin\nsampling: {random: 101}",
        "driver: zipkin\nsampling: {random: -1}",
        "driver: zipkin\ncustom_tags: [{tag: a}]",
        "driver: zipkin\ncustom_tags: [{tag: a, literal: {value: b}, environment: {name: c}}]",
        'driver: zipkin\ncustom_tags: [{tag: "", literal: {value: b}}]',
        'driver: zipkin\ncustom_tags: [{tag: a, request_header: {name: "x y"}}]',
        "driver: zipkin\ntag_headers: ['']",
        "driver: zipkin\nconfig: {collector_endpoint: no path}",
        'driver: zipkin\nconfig: {collector_hostname: "a b"}',
        "driver: zipkin\nconfig: {propagation_modes: [OTHER]}",
        "service: 5\ndriver: zipkin",
    ],
)
def test_what_cannot_be_meant_is_an_error_and_the_last_good_version_stays(more: str) -> None:
    good = read(ZIPKIN)
    text = SERVICE.replace("service: collector\n", "") if more.startswith("service") else SERVICE
    bad = read(f"{text}{more}\n", previous=good)
    assert [each.severity for each in bad.diagnostics] == ["error"]
    assert policy(bad) == policy(good)
    assert policy(read(f"{text}{more}\n")) is None


def test_one_without_a_name_is_left_out() -> None:
    assert codes(read(ZIPKIN.replace("name: tracing\n", ""))) == [("error", "no-name")]


def test_of_several_the_one_in_force_stays() -> None:
    second = ZIPKIN.replace("name: tracing", "name: other")
    first = read(ZIPKIN)
    both = read(second + ZIPKIN, previous=first)
    assert codes(both) == [("error", "several-tracing-services")]
    assert (policy(both) or policy(first)) == policy(first)
    alone = policy(read(second + ZIPKIN))
    assert alone is not None
    assert alone.name == "other"


def test_a_removed_document_ends_it_but_not_a_cut_off_file() -> None:
    good = read(ZIPKIN)
    assert policy(read("---\n", previous=good)) is None
    assert policy(read("---\nkind: [\n", previous=good)) == policy(good)


def test_one_for_another_ambassador_is_passed_over() -> None:
    rules = read(ZIPKIN + "ambassador_id: [other]\n")
    assert policy(rules) is None
    assert codes(rules) == [("notice", "other-ambassador-id")]
