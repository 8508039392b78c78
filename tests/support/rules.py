"""Mappings, tables and readings for the tests of the core, in few words."""

from collections.abc import Mapping as Dict
from textwrap import dedent
from typing import Any

from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.forwarding.hop import HopContext
from canary_mw.http.messages import RequestHead
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping, RegexRewrite
from canary_mw.rules.matchers import Condition, compile_regex
from canary_mw.rules.service import parse_service

HOP = HopContext(b"canary-mw-test", trusted=False, new_id=lambda: b"new-id")


def mapping(name: str = "a", prefix: str = "/svc/", service: str = "", **more: Any) -> Mapping:
    """A Mapping; its service is called like it unless named."""
    return Mapping(name=name, prefix=prefix, service=parse_service(service or name)[0], **more)


def header(name: str, value: str = ".*", *, regex: bool | None = None) -> tuple[Condition, ...]:
    """The conditions of a Mapping that asks for one header; without a value it has only to be there."""
    return (Condition(name, value, value == ".*" if regex is None else regex),)


def substitution(pattern: str, replacement: str) -> RegexRewrite:
    """A regex_rewrite or regex_redirect."""
    return RegexRewrite(compile_regex(pattern), replacement.encode())


def table(*mappings: Mapping, **options: Any) -> RouteTable:
    """A table of Mappings."""
    return RouteTable.build(mappings, **options)


def get(target: str = "/svc/", headers: Any = (), **more: Any) -> RequestHead:
    """The head of a GET."""
    return RequestHead("GET", target, headers, **more)


def chosen(routes: RouteTable, head: RequestHead, roll: float = 0.0) -> str | None:
    """Name of the Mapping that takes a request."""
    decision = decide(routes, head, roll)
    return decision.mapping.name if decision else None


def decision_of(only: Mapping, **options: Any) -> Decision:
    """The decision of a table with one Mapping."""
    decision = table(only, **options).groups[0].shares[0].decision
    assert decision.mapping is only
    return decision


def read_rules(text: str, **options: Any) -> RuleSet:
    """The rules of one file, rules.yaml."""
    return parse([Document(dedent(text), "rules.yaml")], **options)


def document(name: str = "a", version: str = "v2", **attributes: Any) -> str:
    """One YAML document of a Mapping; an attribute None is left out."""
    given: Dict[str, Any] = {"prefix": f"/{name}/", "service": name, **attributes}
    lines = [f"{key}: {value}" for key, value in given.items() if value is not None]
    head = [f"apiVersion: getambassador.io/{version}", "kind: Mapping", f"name: {name}"]
    return "\n".join(["---", *head, *lines, ""])


def one(text: str, **options: Any) -> Mapping:
    """The Mapping of a text that defines exactly one."""
    (only,) = read_rules(text, **options).mappings
    return only


def findings(found: tuple[Diagnostic, ...]) -> list[tuple[str, str, int | None]]:
    """Severity, code and line of each finding."""
    return [(d.severity, d.code, d.line) for d in found]
