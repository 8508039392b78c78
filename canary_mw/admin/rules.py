"""The rules in force as JSON values."""

from collections.abc import Iterator
from typing import Any

from canary_mw.control.store import RuleStore
from canary_mw.routing.decided import Decision
from canary_mw.routing.group import MappingGroup


def describe_rules(store: RuleStore) -> dict[str, Any]:
    """Generation, error, findings and groups of the rules in force."""
    table = store.table
    return {
        "generation": store.generation,
        "error": None if store.error is None else str(store.error),
        "diagnostics": [str(each) for each in store.diagnostics],
        "groups": [_group(group) for group in table.groups],
    }


def _group(group: MappingGroup) -> dict[str, Any]:
    first = group.first
    return {
        "prefix": first.prefix,
        "kind": first.prefix_kind,
        "host": group.host.text,
        "method": first.method and first.method.value,
        "conditions": [str(each) for each in (*first.conditions, *first.query)],
        "precedence": first.precedence,
        "release": group.governed and group.governed.release.name,
        "members": list(_members(group)),
        "shadow": group.shadow and group.shadow.name,
    }


def _members(group: MappingGroup) -> Iterator[dict[str, Any]]:
    """The Mappings of a group, each with the percentage of requests that it gets."""
    for percent, decision in group.governed.shares() if group.governed else _shares(group):
        mapping = decision.mapping
        yield {
            "mapping": mapping.name,
            "namespace": mapping.namespace,
            "service": mapping.service.text,
            "variant": decision.variant,
            "local": decision.local,
            "percent": percent,
            "file": mapping.file,
            "line": mapping.line,
        }


def _shares(group: MappingGroup) -> Iterator[tuple[float, Decision]]:
    low = 0.0
    for bound, decision in group.shares:
        yield max(bound - low, 0.0), decision
        low = max(low, bound)
