"""What a reload has changed, in words: shares, and Mappings and releases that came, went or changed."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from itertools import islice
from typing import TypeVar

from canary_mw.config.document import on_one_line
from canary_mw.inspection.filters import OPENED, change_lines
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.table import RouteTable
from canary_mw.rules.filters.asked import NO_FILTERS
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.matchers import ANY_HOST

T = TypeVar("T")

# Lines about one reload, and lines that are counted.
MAX_LINES = 10
MAX_COUNTED = 1000
# Fields of a Mapping that have another name in documents.
_ATTRIBUTES = {
    "conditions": "headers",
    "options": "limits, timeouts or endpoints",
    "query": "query_parameters",
    "redirect": "host_redirect",
    "retry": "retry_policy",
    "upgrades": "allow_upgrade",
    "variant": "metadata_labels",
}
# Those whose values are short enough for a line.
_SHOWN = ("prefix", "weight", "precedence", "rewrite", "host_rewrite", "timeout_ms")


def describe_changes(before: RouteTable, after: RouteTable) -> list[str]:
    """What differs between two tables, at most `MAX_LINES` lines, and one that counts the others.

    What is the same object in both tables is not looked at, so that it costs what has changed.
    """
    lines = list(islice(_lines(before, after), MAX_COUNTED + 1))
    left = len(lines) - MAX_LINES
    rest = f"and more than {MAX_COUNTED - MAX_LINES} more" if len(lines) > MAX_COUNTED else f"and {left} more"
    return [*map(on_one_line, lines[:MAX_LINES]), *([rest] if left > 0 else [])]


def level_of(line: str) -> int:
    """The level of such a line in the log."""
    return logging.WARNING if line.startswith(OPENED) else logging.INFO


def _lines(before: RouteTable, after: RouteTable) -> Iterator[str]:
    yield from change_lines(before, after)
    if replace(before.settings, filters=NO_FILTERS) != replace(after.settings, filters=NO_FILTERS):
        yield "the settings of the Module changed"
    yield from _share_lines(_apart(before.groups, after.groups), _apart(after.groups, before.groups), after.middleware)
    yield from _release_lines(before, after)
    old, new = _apart(before.mappings, after.mappings), _apart(after.mappings, before.mappings)
    yield from _mapping_lines(_by_name(old), _by_name(new))


def _apart(some: Iterable[T], others: Iterable[T]) -> list[T]:
    """What is not, as the same object, among the others."""
    same = set(map(id, others))
    return [each for each in some if id(each) not in same]


def _by_name(mappings: Iterable[Mapping]) -> dict[str, Mapping]:
    return {f"{each.name}.{each.namespace}": each for each in mappings}


def _share_lines(before: Iterable[MappingGroup], after: Iterable[MappingGroup], middleware: bool) -> Iterator[str]:
    old = {group.first.key: group for group in before}
    for group in after:
        previous = old.get(group.first.key)
        # What a release changes is in the line about it.
        if previous is not None and not (previous.governed and group.governed):
            changes = _share_changes(_shares(previous, middleware), _shares(group, middleware))
            if changes:
                yield f"{place_of(group.first)}: {', '.join(changes)}"


def _release_lines(before: RouteTable, after: RouteTable) -> Iterator[str]:
    for name, release in after.releases.items():
        old = before.releases.get(name)
        shares = release.effective_shares()
        if old is None:
            yield f"GrayRelease {name} is added: {', '.join(f'{each} {share:.4g} %' for each, share in shares.items())}"
        elif old is not release:
            changes = _share_changes(old.effective_shares(), shares)
            yield f"GrayRelease {name}: {', '.join(changes) or 'changed, with the same shares'}"
    for name in before.releases:
        if name not in after.releases:
            yield f"GrayRelease {name} is removed"


def _share_changes(old: dict[str, float], new: dict[str, float]) -> list[str]:
    changed = [name for name in {**new, **old} if abs(old.get(name, 0.0) - new.get(name, 0.0)) > 1e-6]
    return [f"{name} {old.get(name, 0.0):.4g} % to {new.get(name, 0.0):.4g} %" for name in changed]


def _shares(group: MappingGroup, middleware: bool) -> dict[str, float]:
    """The percent of each service; in a middleware the next group or the app has the rest."""
    shares: dict[str, float] = {}
    if group.governed:
        for percent, decision in group.governed.shares():
            service = decision.mapping.service.text
            shares[service] = shares.get(service, 0.0) + percent
        return shares
    low = 0.0
    for bound, decision in group.shares:
        service = decision.mapping.service.text
        shares[service] = shares.get(service, 0.0) + max(bound - low, 0.0)
        low = max(low, bound)
    if middleware and low < 100.0:
        shares["the rest"] = 100.0 - low
    return shares


def place_of(mapping: Mapping) -> str:
    """What the group of a Mapping matches: its prefix, host, method and conditions."""
    tests = [] if mapping.host == ANY_HOST else [f"host {mapping.host.text}"]
    tests += [] if mapping.method is None else [mapping.method.value]
    tests += [str(condition) for condition in (*mapping.conditions, *mapping.query)]
    return f"{mapping.prefix} ({', '.join(tests)})" if tests else mapping.prefix


def _mapping_lines(old: dict[str, Mapping], new: dict[str, Mapping]) -> Iterator[str]:
    for name, mapping in new.items():
        if name not in old:
            yield f"Mapping {mapping.name} is added: {place_of(mapping)} to {mapping.service.text}"
    for name, mapping in old.items():
        if name not in new:
            yield f"Mapping {mapping.name} is removed: {place_of(mapping)} to {mapping.service.text}"
    for name, mapping in new.items():
        # A weight alone is in the line about the shares.
        if name in old and replace(old[name], weight=mapping.weight) != mapping:
            yield f"Mapping {mapping.name} is changed: {', '.join(_field_changes(old[name], mapping))}"


def _field_changes(old: Mapping, new: Mapping) -> Iterator[str]:
    for each in fields(Mapping):
        name = each.name
        before, after = getattr(old, name), getattr(new, name)
        if not each.compare or before == after:
            continue
        if name == "service":
            before, after = before.text, after.text
        shown = name == "service" or name in _SHOWN
        yield f"{name} {before} to {after}" if shown else _ATTRIBUTES.get(name, name)
