"""What a process says when it starts: its rules, its own name, and where it finds each service."""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from canary_mw.config.document import Diagnostic, on_one_line
from canary_mw.inspection.filters import start_texts
from canary_mw.inspection.lint_settings import lint_local, lint_upstreams
from canary_mw.routing.table import RouteTable
from canary_mw.rules.service import Service

_MAX_SERVICES = 10


class Line(NamedTuple):
    """A line of the log."""

    text: str
    is_warning: bool = False


def start_lines(
    table: RouteTable,
    source: str,
    upstreams: Collection[str],
    place: Callable[[Service], str],
    *,
    asks: bool = True,
    guard_unmapped: bool = True,
) -> Iterator[Line]:
    """The lines about the rules in force at start; without any rules there is only the first.

    Args:
        source: where the rules come from.
        upstreams: the names that URLs are given for.
        place: where a service is found.
        asks: whether this process asks the services of filters.
        guard_unmapped: see `lint_filters`.
    """
    yield Line(on_one_line(f"{_count(len(table.mappings), 'Mapping')} from {source}; {_local(table)}"))
    yield from (
        Line(on_one_line(text), is_warning)
        for text, is_warning in start_texts(table, asks=asks, guard_unmapped=guard_unmapped)
    )
    if not table.mappings:
        return
    services = list({each.service.text: each.service for each in table.mappings if each.redirect is None}.values())
    found = [f"{each.text} {_where(each, table, place)}" for each in services[:_MAX_SERVICES]]
    more = f" and {len(services) - _MAX_SERVICES} more" if len(services) > _MAX_SERVICES else ""
    if found:
        yield Line(on_one_line(f"services: {', '.join(found)}{more}"))
    unused = [each for each in lint_upstreams(table, upstreams, table.local) if each.code == "unused-upstream"]
    yield from map(_warning, [*lint_local(table, sorted(table.local)), *unused])


def _local(table: RouteTable) -> str:
    if not table.local:
        return "no local service is named" + (", the app gets what no Mapping takes" if table.middleware else "")
    leading = sum(not table.local.isdisjoint(each.service.names) for each in table.mappings)
    verb = "leads" if leading == 1 else "lead"
    return f"local service {', '.join(sorted(table.local))}, {_count(leading, 'Mapping')} {verb} to it"


def _where(service: Service, table: RouteTable, place: Callable[[Service], str]) -> str:
    is_local = not table.local.isdisjoint(service.names)
    return "in this process" if is_local and table.middleware else place(service)


def _warning(found: Diagnostic) -> Line:
    return Line(on_one_line(f"{found.message} ({found.hint})"), is_warning=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
