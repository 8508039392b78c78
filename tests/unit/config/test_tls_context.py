"""TLSContext documents, and the Mappings that name them."""

import pytest
from rules import document, findings, one, read_rules

from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.rules.upstream import UpstreamTLS


def context(name: str = "ctx", **attributes: object) -> str:
    """A TLSContext as YAML."""
    lines = [f"{key}: {value}" for key, value in attributes.items()]
    return "\n".join(["---", "apiVersion: getambassador.io/v2", "kind: TLSContext", f"name: {name}", *lines, ""])


def tls_of(text: str) -> UpstreamTLS | None:
    """TLS options of the one Mapping of a text."""
    return one(text).options.tls


def again(before: RuleSet, text: str) -> RuleSet:
    """The rules after a change of their file."""
    return read_rules(text, previous=before)


def test_a_mapping_that_names_a_tls_context_uses_https_with_it() -> None:
    rules = read_rules(document(tls="ctx") + context(secret="certs", sni="api.example.com", min_tls_version="v1.3"))
    assert rules.diagnostics == ()
    mapping = rules.mappings[0]
    assert mapping.options.tls == UpstreamTLS("ctx", "default/certs", None, "api.example.com", "v1.3")
    assert (mapping.service.text, mapping.service.origin.port) == ("https://a", 443)
    assert mapping.extras == {"tls": "ctx"}


@pytest.mark.parametrize(
    ("service", "text"), [("http://a:8443", "https://a:8443"), ("https://a", "https://a"), ("a:9", "https://a:9")]
)
def test_the_service_becomes_https_whatever_its_scheme(service: str, text: str) -> None:
    assert one(context() + document(tls="ctx", service=service)).service.text == text


def test_a_redirect_has_the_same_target() -> None:
    mapping = one(context() + document(tls="ctx", host_redirect="true"))
    assert mapping.redirect is not None
    assert mapping.redirect.host == "a"


def test_tls_true_and_https_alone_are_verified_by_default() -> None:
    assert tls_of(document(tls="true")) is None
    assert tls_of(document(service="https://a")) is None


def test_an_unknown_tls_context_rejects_only_its_mapping_and_gives_the_line() -> None:
    rules = read_rules(context("other") + document(tls="ctx") + document("b"))
    assert [mapping.name for mapping in rules.mappings] == ["b"]
    (found,) = rules.diagnostics
    assert (found.severity, found.code, found.mapping) == ("error", "unknown-tls-context", "a")
    assert str(found) == (
        "rules.yaml:11: error unknown-tls-context Mapping a: TLSContext ctx is not defined, or in error itself"
        " (define it; known are: other)"
    )
    assert "known are: none" in str(read_rules(document(tls="ctx")).diagnostics[0])


def test_a_mapping_keeps_its_last_good_tls_context_when_that_is_gone() -> None:
    before = read_rules(context(secret="certs") + document(tls="ctx"))
    after = again(before, document(tls="ctx"))
    assert after.mappings[0].options.tls == UpstreamTLS("ctx", "default/certs")
    assert findings(after.diagnostics) == [("error", "unknown-tls-context", 7)]


def test_a_tls_context_in_error_keeps_its_last_good_version() -> None:
    before = read_rules(context(secret="certs") + document(tls="ctx"))
    after = again(before, context(secret="[certs]") + document(tls="ctx", weight=5))
    assert after.mappings[0].options.tls == UpstreamTLS("ctx", "default/certs")
    assert after.mappings[0].weight == 5
    assert findings(after.diagnostics) == [("error", "wrong-type", 5)]


def test_no_tls_context_is_lost_while_a_document_cannot_be_read() -> None:
    before = read_rules(context(secret="certs") + document(tls="ctx"))
    after = again(before, "---\n{\n" + document(tls="ctx", weight=5))
    assert after.mappings[0].options.tls == UpstreamTLS("ctx", "default/certs")
    assert after.mappings[0].weight == 5


def test_a_changed_tls_context_changes_its_mappings_and_an_unchanged_one_leaves_them() -> None:
    before = read_rules(context(secret="certs") + document(tls="ctx"))
    assert (
        again(before, context(secret="certs") + document(tls="ctx") + document("b")).mappings[0] is (before.mappings[0])
    )
    changed = again(before, context(secret="new") + document(tls="ctx"))
    assert changed.mappings[0].options.tls == UpstreamTLS("ctx", "default/new")


def test_a_tls_context_in_another_file_counts_and_so_does_one_after_the_mapping() -> None:
    rules = parse([Document(document(tls="ctx"), "a.yaml"), Document(context(secret="/certs"), "b.yaml")])
    assert rules.mappings[0].options.tls == UpstreamTLS("ctx", "/certs")


def test_a_tls_context_for_another_ambassador_is_passed_over() -> None:
    rules = read_rules(context(ambassador_id="[other]", sni="'?'") + document(tls="ctx"))
    assert findings(rules.diagnostics) == [("notice", "other-ambassador-id", 5), ("error", "unknown-tls-context", 13)]


def test_the_second_of_a_name_counts_and_is_reported() -> None:
    rules = read_rules(context(secret="one") + context(secret="two") + document(tls="ctx"))
    assert rules.mappings[0].options.tls == UpstreamTLS("ctx", "default/two")
    assert findings(rules.diagnostics) == [("error", "duplicate-name", 7)]


def test_the_name_of_one_in_a_second_namespace_has_that_appended() -> None:
    contexts = context(secret="one") + context(secret="two", namespace="qa")
    assert tls_of(contexts + document(tls="ctx")) == UpstreamTLS("ctx", "default/one")
    assert tls_of(contexts + document(tls="ctx.qa")) == UpstreamTLS("ctx.qa", "qa/two")


def test_a_tls_context_without_a_name_is_an_error() -> None:
    rules = read_rules("---\napiVersion: getambassador.io/v2\nkind: TLSContext\n" + document())
    assert findings(rules.diagnostics) == [("error", "no-name", 2)]


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"secret": "certs"}, "default/certs"),
        ({"secret": "certs.qa"}, "qa/certs"),
        ({"secret": "certs.v2", "secret_namespacing": "false"}, "default/certs.v2"),
        ({"secret": "certs", "namespace": "prod"}, "prod/certs"),
        ({"secret": "/etc/certs.d"}, "/etc/certs.d"),
        ({"secret": '""'}, None),
        ({}, None),
    ],
)
def test_a_secret_is_named_with_its_namespace_or_by_its_path(attributes: dict[str, str], found: str | None) -> None:
    tls = tls_of(context(**attributes) + document(tls="ctx"))
    assert tls is not None
    assert tls.secret == found
    named = {"ca_secret" if name == "secret" else name: value for name, value in attributes.items()}
    tls = tls_of(context(**named) + document(tls="ctx"))
    assert tls is not None
    assert (tls.secret, tls.ca_secret) == (None, found)


@pytest.mark.parametrize(
    ("attribute", "value", "text"),
    [
        ("secret", "../certs", "'../certs' is not the name of a Secret"),
        ("secret", "a/b", "'a/b' is not the name of a Secret"),
        ("secret", "Certs", "'Certs' is not the name of a Secret"),
        ("ca_secret", "a..", "'a..' is not the name of a Secret"),
        ("sni", "'*.example.com'", "sni '*.example.com' is not the name of a host"),
        ("sni", "https://a", "sni 'https://a' is not the name of a host"),
        ("max_tls_version", "v1.1", "max_tls_version v1.1 leaves no version"),
    ],
)
def test_a_value_that_cannot_work_is_an_error_at_its_line(attribute: str, value: str, text: str) -> None:
    rules = read_rules(context(**{attribute: value}))
    assert findings(rules.diagnostics) == [("error", "bad-value", 5)]
    assert rules.diagnostics[0].message == f"TLSContext ctx: {text}"
    assert rules.diagnostics[0].hint


def test_versions_that_exclude_each_other_and_unknown_ones_are_errors() -> None:
    both = context(min_tls_version="v1.3", max_tls_version="v1.2")
    assert findings(read_rules(both).diagnostics) == [("error", "bad-value", 6)]
    assert findings(read_rules(context(min_tls_version="v2")).diagnostics) == [("error", "wrong-type", 5)]


def test_old_versions_are_not_used_and_a_notice_says_so() -> None:
    rules = read_rules(context(min_tls_version="v1.0", max_tls_version="v1.3") + document(tls="ctx"))
    assert rules.mappings[0].options.tls == UpstreamTLS("ctx", None, None, None, "v1.2", "v1.3")
    assert findings(rules.diagnostics) == [("notice", "tls-version", 5)]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("alpn_protocols", "h2"),
        ("redirect_cleartext_from", "8080"),
        ("cipher_suites", "[AES128-SHA]"),
        ("ecdh_curves", "[P-256]"),
        ("crl_secret", "revoked"),
    ],
)
def test_what_has_no_effect_gets_a_notice(attribute: str, value: str) -> None:
    rules = read_rules(context(**{attribute: value}) + document(tls="ctx"))
    assert findings(rules.diagnostics) == [("notice", "no-effect-yet", 5)]
    assert rules.mappings[0].options.tls == UpstreamTLS("ctx")


@pytest.mark.parametrize("attribute", ["cert_chain_file", "private_key_file", "cacert_chain_file"])
def test_a_tls_context_of_single_files_is_reported_and_usable_by_no_mapping(attribute: str) -> None:
    rules = read_rules(context(**{attribute: "/certs/file"}))
    assert findings(rules.diagnostics) == [("warning", "not-supported", 5)]
    rules = read_rules(context(**{attribute: "/certs/file"}) + document(tls="ctx"))
    assert findings(rules.diagnostics) == [("warning", "not-supported", 5), ("error", "unknown-tls-context", 12)]


def test_an_unknown_attribute_is_reported_with_the_nearest() -> None:
    rules = read_rules(context(secrets="a"))
    assert findings(rules.diagnostics) == [("warning", "unknown-field", 5)]
    assert rules.diagnostics[0].hint == "did you mean secret?"


def test_a_misspelt_kind_is_reported_too() -> None:
    rules = read_rules(context().replace("TLSContext", "TLSContexts"))
    assert rules.diagnostics[0].hint == "did you mean TLSContext?"
