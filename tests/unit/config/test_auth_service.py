"""AuthService documents: all versions and attributes, and that no mistake in one opens the door."""

import re
from typing import Any

import pytest
from auth_rules import auth_service
from rules import read_rules
from servers import mapping

from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.rules.filters.asked import Filters
from canary_mw.rules.filters.auth import AuthPolicy, IncludeBody
from canary_mw.rules.upstream import CircuitBreakers

MAPPING = mapping("a", "/a/", "shop")
VERSIONS = ("v0", "v1", "v2", "v3alpha1")


def filters(text: str, previous: RuleSet | None = None, **document: Any) -> tuple[Filters, RuleSet]:
    """What a text asks of every request."""
    rules = parse([Document(text, "rules.yaml", **document)], previous=previous)
    return rules.shared.settings.filters, rules


def policy(text: str) -> AuthPolicy:
    """The AuthService of a text without findings but notices."""
    found, rules = filters(text)
    assert [each for each in rules.diagnostics if each.severity == "error"] == []
    assert found.auth is not None
    return found.auth


def errors(text: str) -> list[str]:
    """The messages of the errors in a text; nothing in force is what it asks."""
    found, rules = filters(text)
    assert found.auth is None
    assert found.auth_in_error
    return [each.message for each in rules.diagnostics if each.severity == "error"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_knows_service_and_prefix(version: str) -> None:
    found = policy(auth_service(version, service="Auth.ns:3000", path_prefix="check"))
    assert [each.text for each in found.services] == ["auth.ns:3000"]
    assert found.path_prefix == b"/check"
    assert (found.timeout, found.status_on_error, found.failure_mode_allow) == (5.0, 403, False)


def test_v0_has_one_list_for_both_ways() -> None:
    found = policy(auth_service("v0", allowed_headers="[X-User]"))
    assert b"x-user" in found.request_headers
    assert b"x-b3-traceid" in found.request_headers
    assert found.granted_headers == {b"x-user"}


def test_the_module_of_v0_is_an_auth_service() -> None:
    text = "---\napiVersion: getambassador.io/v0\nkind: Module\nname: authentication\nconfig:\n  auth_service: auth\n"
    found, rules = filters(text + MAPPING)
    assert rules.diagnostics == ()
    assert found.auth is not None
    assert found.auth.services[0].text == "auth"


ATTRIBUTES: dict[str, tuple[str, str, Any]] = {
    "timeout_ms": ("250", "timeout", 0.25),
    "allowed_request_headers": ("[X-Tok, x-other]", "request_headers", {b"x-tok", b"x-other"}),
    "allowed_authorization_headers": ("[X-User, te]", "granted_headers", {b"x-user"}),
    "include_body": ("{max_bytes: 9, allow_partial: false}", "include_body", IncludeBody(9, False)),
    "allow_request_body": ("true", "include_body", IncludeBody(4096, True)),
    "add_linkerd_headers": ("true", "linkerd", True),
    "failure_mode_allow": ("true", "failure_mode_allow", True),
    "status_on_error": ("{code: 503}", "status_on_error", 503),
}
NEWER: dict[str, tuple[str, str, Any]] = {
    "add_auth_headers": ("{X-Api: k}", "added_headers", ((b"x-api", b"k"),)),
    "connect_timeout_ms": ("100", "connect_timeout", 0.1),
}


@pytest.mark.parametrize("version", ["v1", "v2", "v3alpha1"])
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_counts(version: str, name: str) -> None:
    text, field, value = ATTRIBUTES[name]
    assert getattr(policy(auth_service(version, **{name: text})), field) == value


@pytest.mark.parametrize("version", ["v2", "v3alpha1"])
@pytest.mark.parametrize("name", NEWER)
def test_a_newer_attribute_counts(version: str, name: str) -> None:
    text, field, value = NEWER[name]
    assert getattr(policy(auth_service(version, **{name: text})), field) == value


@pytest.mark.parametrize(
    ("version", "name"),
    [("v0", name) for name in (*ATTRIBUTES, *NEWER)] + [("v1", name) for name in ("add_auth_headers", "stats_name")],
)
def test_the_older_versions_are_closed(version: str, name: str) -> None:
    text = (ATTRIBUTES | NEWER).get(name, ("x", "", None))[0]
    assert errors(auth_service(version, **{name: text})) == [f"AuthService auth: {name} is no attribute of {version}"]


@pytest.mark.parametrize(("version", "name"), [("v2", "v3CircuitBreakers"), ("v3alpha1", "circuit_breakers")])
def test_circuit_breakers_are_its_own_or_those_of_the_module(version: str, name: str) -> None:
    module = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig:\n  circuit_breakers:\n"
    module += "  - {max_requests: 7}\n"
    assert policy(module + auth_service(version)).options.circuit_breakers == CircuitBreakers(max_requests=7)
    own = policy(module + auth_service(version, **{name: "[{max_requests: 3}]"}))
    assert own.options.circuit_breakers == CircuitBreakers(max_requests=3)


@pytest.mark.parametrize(("tls", "version"), [("true", "v1"), ("mine", "v2"), ("mine", "v3alpha1")])
def test_tls_is_asked_for_by_name_or_alone(tls: str, version: str) -> None:
    context = "---\napiVersion: getambassador.io/v3alpha1\nkind: TLSContext\nname: mine\nsecret: s\n"
    found = policy(context + auth_service(version, tls=tls))
    assert found.services[0].origin.scheme == "https"
    assert (found.options.tls is None) == (tls == "true")
    assert errors(auth_service(version, tls="unknown"))


WRONG = {
    "no service": auth_service().replace("auth_service: auth\n", ""),
    "no name": auth_service().replace("name: auth\n", ""),
    "a wrong type": auth_service(timeout_ms="soon"),
    "a part of a body": auth_service(include_body="{max_bytes: 5}"),
    "a misspelt attribute": auth_service(allowed_authorisation_headers="[x-user]"),
    "a header that is none": auth_service(allowed_authorization_headers="['x user']"),
    "all headers granted": auth_service(allowed_authorization_headers="['*']"),
    "a prefix that is none": auth_service(path_prefix="'/a b'"),
    "an old protocol": auth_service(proto="grpc", protocol_version="v2"),
    "an unknown version": auth_service("v9"),
    "a misspelt kind": auth_service().replace("kind: AuthService", "kind: AuthServise"),
    "a status that is none": auth_service(status_on_error="{code: 99}"),
    "null": auth_service(failure_mode_allow="null"),
}


@pytest.mark.parametrize("text", WRONG.values(), ids=list(WRONG))
def test_a_document_in_error_without_a_good_version_closes_the_door(text: str) -> None:
    assert errors(MAPPING + text)


@pytest.mark.parametrize("text", WRONG.values(), ids=list(WRONG))
def test_a_document_in_error_keeps_its_last_good_version(text: str) -> None:
    good, rules = filters(MAPPING + auth_service(timeout_ms=1))
    now, _ = filters(MAPPING + text, rules)
    if "name: auth" in text:
        assert now == good
    else:
        assert now.auth or now.auth_in_error


def test_a_file_that_is_cut_off_opens_no_door() -> None:
    """Wherever it ends, but between two documents: such a file is whole."""
    document = auth_service(path_prefix="/check")
    _, rules = filters(MAPPING + document)
    for end in range(len("---\n") + 1, len(document)):
        text = MAPPING + document[:end]
        now, _ = filters(text, rules, **_cut_off(text))
        assert now.auth is not None or now.auth_in_error, text


def _cut_off(text: str) -> dict[str, Any]:
    """As the source of a file says it: a text that does not end its last line may be a part."""
    from canary_mw.config.document import Diagnostic

    message = "the last line of the file does not end"
    partial = Diagnostic(severity="warning", code="not-removed", message=message, file="rules.yaml")
    return {} if text.endswith("\n") else {"partial": partial}


def test_a_text_that_is_no_yaml_closes_the_door_if_it_names_an_auth_service() -> None:
    found, _ = filters(MAPPING + auth_service() + "path_prefix: [\n")
    assert found.auth is None
    assert found.auth_in_error == "rules.yaml"


def test_a_removed_auth_service_opens_the_door() -> None:
    _, rules = filters(MAPPING + auth_service())
    assert filters(MAPPING, rules)[0] == Filters()


def test_secrets_are_in_no_representation_and_no_finding() -> None:
    found, rules = filters(auth_service(add_auth_headers="{x-api: s3cret}"))
    assert "s3cret" not in repr(found)
    _, wrong = filters(auth_service(add_auth_headers='{x-api: "s3cret\\x01"}'))
    assert wrong.diagnostics
    assert not re.search("s3cret", "".join(map(str, (*rules.diagnostics, *wrong.diagnostics))))


@pytest.mark.parametrize(
    "written",
    ["s3cret", "[s3cret]", "{x-api: [s3cret]}", "{x-api: {s3cret: s3cret}}", "{x-api: 53.3}", "{x-api: true}"],
)
def test_a_secret_of_a_wrong_type_is_in_no_finding(written: str) -> None:
    _, rules = filters(auth_service(add_auth_headers=written))
    (found,) = rules.diagnostics
    assert found.code == "wrong-type"
    assert not re.search("s3cret|53.3|true", str(found))


def test_one_that_differs_from_the_first_is_left_out() -> None:
    found, rules = filters(auth_service(name="b", service="two", timeout_ms=9) + auth_service(name="a", service="one"))
    assert found.auth is not None
    assert [each.text for each in found.auth.services] == ["one"]
    assert [each.code for each in rules.diagnostics] == ["auth-services-differ"]
    assert "timeout differ from those of AuthService a" in rules.diagnostics[0].message


def test_bypass_auth_is_read_from_mappings() -> None:
    assert [each.bypass_auth for each in read_rules(mapping("a", "/a/", "s", bypass_auth="true")).mappings] == [True]
    assert [each.bypass_auth for each in read_rules(MAPPING).mappings] == [False]


def test_the_module_may_exempt_all_mappings_that_do_not_say_otherwise() -> None:
    module = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig:\n"
    module += "  defaults: {httpmapping: {bypass_auth: true}}\n"
    found = read_rules(module + MAPPING + mapping("b", "/b/", "s", bypass_auth="false")).mappings
    assert [each.bypass_auth for each in found] == [True, False]


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"failure_mode_allow": "true"}, "fails-open"),
        ({"include_body": "{max_bytes: 2000000, allow_partial: true}"}, "large-body"),
        ({"stats_name": "s"}, "no-effect"),
        ({"proto": "grpc"}, "protocol-version"),
    ],
)
def test_what_is_legal_and_worth_a_word_gets_a_notice(attributes: dict[str, str], code: str) -> None:
    _, rules = filters(auth_service(**attributes))
    assert [(each.severity, each.code) for each in rules.diagnostics] == [("notice", code)]
