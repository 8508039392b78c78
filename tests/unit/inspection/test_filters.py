"""What is said of an AuthService: by explain and check, at start, and after a reload."""

import logging

import pytest
from auth_rules import auth_service
from rules import get, read_rules
from servers import mapping

from canary_mw.config.document import Document
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.inspection.explanation import explain
from canary_mw.inspection.explanation_json import explanation_json
from canary_mw.inspection.explanation_text import explanation_lines
from canary_mw.inspection.filters import lint_filters, start_texts
from canary_mw.inspection.lint_settings import lint_local, lint_upstreams
from canary_mw.routing.table import RouteTable
from canary_mw.rules.module import ModuleSettings

RULES = mapping("shop", "/shop/", "shop") + mapping("free", "/free/", "shop", bypass_auth="true")
AUTH = auth_service(service="auth.ns:3000", add_auth_headers="{x-api: s3cret}")


@pytest.mark.parametrize(
    ("path", "middleware", "asks"),
    [
        ("/shop/", False, True),
        ("/free/", False, False),
        ("/none/", False, False),
        ("/none/", True, True),
        ("/healthz", True, False),
    ],
)
def test_explain_says_who_is_asked(path: str, middleware: bool, asks: bool) -> None:
    table = RouteTable.from_yaml(RULES + AUTH, middleware=middleware)
    explanation = explain(table, get(path))
    text, found = "\n".join(explanation_lines(explanation)), explanation_json(table, explanation)
    assert ("asks AuthService auth (auth.ns:3000)" in text) == asks
    assert bool(found["candidates"][0]["asks"]) == asks
    assert "s3cret" not in text + str(found)


def test_explain_without_services_has_nothing_of_them() -> None:
    table = RouteTable.from_yaml(RULES)
    assert "asks" not in explanation_json(table, explain(table, get("/shop/")))["candidates"][0]


def test_explain_shows_a_document_in_error() -> None:
    table = RouteTable.build((), settings=_settings(RULES + auth_service(timeout_ms="x")), middleware=True)
    assert "AuthService auth is in error: answered 500" in "\n".join(explanation_lines(explain(table, get("/shop/"))))


def _settings(text: str) -> ModuleSettings:
    return read_rules(text).shared.settings


def test_check_finds_a_service_that_would_ask_itself() -> None:
    table = RouteTable.from_yaml(RULES + AUTH, local=["auth.ns"], middleware=True)
    assert [each.code for each in lint_filters(table)] == ["auth-is-local"]
    assert lint_local(table, ["auth.ns"]) == []
    assert lint_filters(RouteTable.from_yaml(RULES + AUTH, local=["shop"])) == []


def test_check_and_the_start_say_that_what_no_mapping_takes_is_unguarded() -> None:
    table = RouteTable.from_yaml(RULES + AUTH, local=["shop"], middleware=True)
    assert [each.code for each in lint_filters(table, guard_unmapped=False)] == ["unguarded"]
    assert [warning for _, warning in start_texts(table, asks=True, guard_unmapped=False)] == [False, True]
    assert lint_filters(RouteTable.from_yaml(RULES + AUTH), guard_unmapped=False) == []


def test_the_url_of_an_auth_service_is_used() -> None:
    table = RouteTable.from_yaml(RULES + AUTH)
    assert [each.code for each in lint_upstreams(table, ["shop", "auth.ns"])] == []


@pytest.mark.parametrize(
    ("local", "asks", "text", "warning"),
    [
        ("shop", True, "asks AuthService auth (auth.ns:3000)", False),
        ("shop", False, "AuthService auth is not asked: filters are turned off", True),
        ("auth.ns", True, "AuthService auth is this process itself: nobody is asked, and every request passes", True),
    ],
)
def test_the_start_says_who_is_asked(local: str, asks: bool, text: str, warning: bool) -> None:
    table = RouteTable.from_yaml(RULES + AUTH, local=[local], middleware=True)
    assert list(start_texts(table, asks=asks)) == [(text, warning)]


def test_a_removed_service_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="canary_mw")
    source = StaticSource(RULES)
    store = RuleStore(source)
    for text, level, said in (
        (RULES, None, ""),
        (RULES + AUTH, logging.INFO, "AuthService auth is new"),
        (RULES + auth_service(service="auth.ns:3000"), logging.INFO, "AuthService auth changed"),
        (RULES, logging.WARNING, "nobody is asked any more who sends a request: AuthService auth is gone"),
    ):
        caplog.clear()
        source._document = Document(text, "rules")
        store.reload()
        found = [record for record in caplog.records if "AuthService" in record.getMessage()]
        assert [record.levelno for record in found] == ([] if level is None else [level])
        assert all(said in record.getMessage() for record in found)
        assert "s3cret" not in caplog.text
    assert store.table.filters is None
