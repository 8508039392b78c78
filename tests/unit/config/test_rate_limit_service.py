"""RateLimitService documents and labels: all versions, and that a mistake costs no more than it must."""

from typing import Any

import pytest
from rules import document, get, read_rules

from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.rules.filters.limits import Label, RateLimitPolicy
from canary_mw.rules.mapping import Mapping

VERSIONS = ("v0", "v1", "v2", "v3alpha1")


def service(version: str = "v3alpha1", name: str = "limits", **attributes: object) -> str:
    """A RateLimitService document; values as YAML writes them."""
    given = {"service": "limiter:5000", **attributes}
    lines = "".join(f"{key}: {value}\n" for key, value in given.items())
    return f"---\napiVersion: getambassador.io/{version}\nkind: RateLimitService\nname: {name}\n{lines}"


def module(**config: object) -> str:
    """The Module, with `config` as YAML writes it."""
    lines = "".join(f"  {key}: {value}\n" for key, value in config.items())
    return f"---\napiVersion: getambassador.io/v3alpha1\nkind: Module\nname: ambassador\nconfig:\n{lines}"


def read(text: str, previous: RuleSet | None = None) -> tuple[RateLimitPolicy | None, RuleSet]:
    """The RateLimitService of a text."""
    rules = parse([Document(text, "rules.yaml")], previous=previous)
    return rules.shared.settings.filters.rate_limit, rules


def policy(text: str) -> RateLimitPolicy:
    """The same, without an error."""
    found, rules = read(text)
    assert [each for each in rules.diagnostics if each.severity == "error"] == []
    assert found is not None
    return found


def labelled(labels: str, version: str = "v3alpha1", **attributes: str) -> Mapping:
    """A Mapping with labels."""
    (found,) = read_rules(_document(version, labels=labels, **attributes)).mappings
    return found


def _document(version: str, **attributes: str) -> str:
    return document(**attributes).replace("getambassador.io/v2", f"getambassador.io/{version}")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_a_service_and_a_timeout(version: str) -> None:
    found = policy(service(version, timeout_ms=250))
    assert (found.service.text, found.domain, found.timeout) == ("limiter:5000", "ambassador", 0.25)
    assert policy(service(version)).timeout == 0.02


@pytest.mark.parametrize("version", ["v1", "v2", "v3alpha1"])
def test_the_domain_is_its_own_or_that_of_the_module(version: str) -> None:
    assert policy(service(version, domain="shop")).domain == "shop"
    assert policy(module(default_label_domain="other") + service(version)).domain == "other"


@pytest.mark.parametrize(("version", "grpc"), [("v2", "v3GRPC"), ("v3alpha1", "grpc")])
def test_the_newer_attributes_count(version: str, grpc: str) -> None:
    found = policy(service(version, failure_mode_deny="true", **{grpc: "{use_resource_exhausted_code: true}"}))
    assert (found.failure_mode_deny, found.resource_exhausted) == (True, True)


@pytest.mark.parametrize(("version", "name"), [("v0", "domain"), ("v0", "tls"), ("v1", "failure_mode_deny")])
def test_the_older_versions_are_closed(version: str, name: str) -> None:
    found, rules = read(service(version, **{name: "x"}))
    assert found is None
    assert [each.code for each in rules.diagnostics if each.severity == "error"] == ["unknown-field"]


@pytest.mark.parametrize(
    "attributes",
    [{"protocol_version": "v2"}, {"timeout_ms": "soon"}, {"tls": "unknown"}, {"failure_mode_dney": "true"}],
)
def test_a_document_in_error_keeps_its_last_good_version(attributes: dict[str, str]) -> None:
    good, rules = read(service())
    now, after = read(service(**attributes), rules)
    assert now == good
    assert any(each.severity == "error" for each in after.diagnostics)
    assert read(service(**attributes))[0] is None


def test_of_several_the_one_in_force_stays() -> None:
    good, rules = read(service(name="b"))
    both, after = read(service(name="a", timeout_ms=1) + service(name="b"), rules)
    assert both == good
    assert [each.code for each in after.diagnostics if each.severity == "error"] == ["several-rate-limit-services"]
    assert read("", rules)[0] is None


@pytest.mark.parametrize(
    "labels", ["{ambassador: {defaults: text}}", "{ambassador: {defaults: [{unknown: {key: a}}, 5]}}"]
)
def test_default_labels_in_error_keep_the_last_good_module(labels: str) -> None:
    _, rules = read(module(default_labels="{ambassador: {defaults: [a]}}") + service())
    good = rules.shared.settings.default_labels
    _, after = read(module(default_labels=labels) + service(), rules)
    assert after.shared.settings.default_labels == good
    assert any(each.severity == "error" for each in after.diagnostics)


# Labels.

KINDS: dict[str, tuple[str, str, Label]] = {
    "generic_key": ("{generic_key: {value: a}}", "a", Label("constant", "generic_key", "a")),
    "its key": ("{generic_key: {value: a, key: k}}", "{generic_key: a, v3Key: k}", Label("constant", "k", "a")),
    "header": (
        "{request_headers: {key: user, header_name: X-User}}",
        "{user: {header: X-User}}",
        Label("header", "user", "x-user"),
    ),
    "method": (
        "{request_headers: {key: m, header_name: ':method'}}",
        "{m: {header: ':method'}}",
        Label("header", "m", ":method"),
    ),
    "remote_address": (
        "{remote_address: {key: remote_address}}",
        "remote_address",
        Label("remote_address", "remote_address"),
    ),
    "source_cluster": (
        "{source_cluster: {key: source_cluster}}",
        "source_cluster",
        Label("source_cluster", "source_cluster"),
    ),
    "destination_cluster": (
        "{destination_cluster: {key: destination_cluster}}",
        "destination_cluster",
        Label("constant", "destination_cluster", "cluster_svc_default"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", ["v1", "v2", "v3alpha1"])
def test_a_label_of_each_version(kind: str, version: str) -> None:
    new, old, label = KINDS[kind]
    written = new if version == "v3alpha1" else old
    found = labelled(f"{{shop: [{{group: [{written}]}}]}}", version, service="svc").descriptors
    assert found == {"shop": ((label,),)}


def test_each_group_is_a_descriptor() -> None:
    found = labelled("{a: [{one: [{generic_key: {value: x}}]}, {two: [{generic_key: {value: y}}]}]}").descriptors["a"]
    assert [[label.value for label in group] for group in found] == [["x"], ["y"]]


def test_rate_limits_of_v0_are_labels_of_the_default_domain() -> None:
    text = _document("v0", rate_limits="[{descriptor: d, headers: [X-User]}]", service="svc")
    (found,) = read_rules(text).mappings
    assert [label.key for label in found.descriptors["ambassador"][0]] == [
        *("source_cluster", "destination_cluster", "remote_address", "generic_key", "X-User")
    ]


@pytest.mark.parametrize(
    "label",
    [
        "{unknown: {key: a}}",
        "{request_headers: {key: a}}",
        "{request_headers: {key: a, header_name: 'x y'}}",
        "{generic_key: {key: a}}",
        "text",
        "{remote_address: {key: other}}",
    ],
)
def test_a_label_in_error_leaves_out_its_descriptor_alone(label: str) -> None:
    labels = f"{{a: [{{bad: [{{generic_key: {{value: x}}}}, {label}]}}, {{good: [{{generic_key: {{value: y}}}}]}}]}}"
    rules = read_rules(_document("v3alpha1", labels=labels))
    assert [each.descriptors["a"] for each in rules.mappings] == [((Label("constant", "generic_key", "y"),),)]
    assert [(each.code, each.line) for each in rules.diagnostics if each.severity == "error"] == [("bad-label", 7)]


@pytest.mark.parametrize(
    ("service_text", "namespace", "name"),
    [
        ("up", "default", "cluster_up_default"),
        ("https://up:443", "shop", "cluster_https___up_443_otls_shop"),
        (
            "a-service-with-a-name-that-is-longer-than-others.namespace:8080",
            "default",
            "cluster_a_service_with_a_name_that_is_lo-C18C0C41BF7BC3D5-0",
        ),
    ],
)
def test_the_destination_is_named_as_envoy_names_it(service_text: str, namespace: str, name: str) -> None:
    text = "{a: [{g: [{destination_cluster: {key: destination_cluster}}]}]}"
    found = labelled(text, service=service_text, namespace=namespace).descriptors["a"][0][0].value
    assert found[:41] == name[:41]
    assert len(found) <= 60


# What is counted.


def counted(labels: str, config: dict[str, Any], **head: Any) -> list[tuple[tuple[str, str], ...]]:
    """The descriptors of a request to a Mapping with labels."""
    found = policy(module(**config) + service()) if config else policy(service())
    mapping = labelled(labels) if labels else None
    written = mapping.descriptors.get(found.domain, ()) if mapping is not None else ()
    return found.descriptors(written, get(**head), "192.0.2.9")


USER = "{request_headers: {key: user, header_name: x-user, omit_if_not_present: %s}}"


@pytest.mark.parametrize("omit", ["true", "false"])
def test_a_missing_header_drops_the_whole_descriptor(omit: str) -> None:
    labels = f"{{ambassador: [{{g: [{{generic_key: {{value: a}}}}, {USER % omit}]}}]}}"
    assert counted(labels, {}) == []
    assert counted(labels, {}, headers=[("x-user", "b"), ("x-user", "c")]) == [(("generic_key", "a"), ("user", "b"))]
    assert counted(labels, {}, headers=[("x-user", "")]) == [(("generic_key", "a"), ("user", ""))]


def test_the_request_itself_can_be_counted() -> None:
    names = {"m": ":method", "p": ":path", "h": ":authority"}
    group = ", ".join(f"{{request_headers: {{key: {key}, header_name: '{name}'}}}}" for key, name in names.items())
    fixed = "{remote_address: {key: remote_address}}, {source_cluster: {key: source_cluster}}"
    (found,) = counted(f"{{ambassador: [{{g: [{group}, {fixed}]}}]}}", {}, target="/svc/a?b=1", headers=[("host", "h")])
    assert dict(found) == {
        "m": "GET",
        "p": "/svc/a?b=1",
        "h": "h",
        "remote_address": "192.0.2.9",
        "source_cluster": "default-default",
    }


def test_defaults_of_the_module_come_first_and_make_a_group_of_their_own() -> None:
    config = {"default_labels": "{ambassador: {defaults: [remote_address]}}"}
    assert counted("{ambassador: [{g: [{generic_key: {value: a}}]}]}", config) == [
        (("remote_address", "192.0.2.9"), ("generic_key", "a"))
    ]
    assert counted("", config) == [(("remote_address", "192.0.2.9"),)]
    assert counted("{elsewhere: [{g: [{generic_key: {value: a}}]}]}", {}) == []
