"""The rules as one immutable value: Mappings in groups, groups in routing order, found by an index.

A table is built and replaced as a whole; a request uses one from its beginning to its end.
"""

from bisect import insort
from collections.abc import Collection, Iterable
from collections.abc import Mapping as Dict
from operator import attrgetter, is_
from typing import NamedTuple

from canary_mw.config.document import Diagnostic, Document
from canary_mw.exceptions import ConfigError
from canary_mw.http.lanes import lane_headers
from canary_mw.http.messages import RequestHead
from canary_mw.routing.assignment import CompiledRelease
from canary_mw.routing.findings import mapping_finding, split_findings, weight_findings
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.index import Groups, HostIndex, Order
from canary_mw.routing.releases.overridden import compiled
from canary_mw.routing.releases.override import NO_OVERRIDES, Overrides
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.module import DEFAULT_SETTINGS, ModuleSettings
from canary_mw.rules.release import NO_RELEASES, Releases


class _PrefixEntry(NamedTuple):
    """The Mappings of one prefix and host, in document order, and what is built from them.

    Groups do not depend on the Mappings of other prefixes or hosts: none of these share or narrow a group of them.
    """

    mappings: tuple[Mapping, ...]
    groups: tuple[MappingGroup, ...]
    diagnostics: tuple[Diagnostic, ...]
    marks: tuple[object, ...]


_Key = tuple[str, str, str]
_sort_key = attrgetter("sort_key")


class RouteTable:
    """Built once per reload, read by every request.

    Attributes:
        mappings: in document order.
        groups: in routing order (Emissary `_route_weight`: the larger first, of equal ones the later first).
        diagnostics: findings about groups: weights that add up to less than 100, Mappings left out of a group.
        middleware: the rules belong to a middleware, so the wrapped app takes the requests that no Mapping takes.
        settings: of the Module.
        request_policy: checks and changes of every request by the Module, or None.
        has_extras: the Module, a release, a filter, a log or traces ask for more than a look-up of each request.
        has_exceptions: some Mapping leads to the local service, or some group has a release.
        filters: what is asked about every request of this process, or None.
        releases: the releases in force, by name.
        lane_headers: by which services before this one tell what they have decided; none without releases.
        asks_person: a release looks at the user or session.
        documents: the releases as they are written, and the Mappings that are held back.
    """

    __slots__ = (
        "__weakref__",
        "_entries",
        "_index",
        "_local",
        "asks_person",
        "diagnostics",
        "documents",
        "filters",
        "groups",
        "has_exceptions",
        "has_extras",
        "lane_headers",
        "mappings",
        "middleware",
        "releases",
        "request_policy",
        "settings",
    )

    def __init__(
        self,
        mappings: Iterable[Mapping],
        local: frozenset[str],
        middleware: bool,
        settings: ModuleSettings = DEFAULT_SETTINGS,
        previous: "RouteTable | None" = None,
        releases: Releases = NO_RELEASES,
        overrides: Overrides = NO_OVERRIDES,
    ) -> None:
        self.mappings = tuple(mappings)
        self.middleware = middleware
        self.settings = settings
        self.request_policy = settings.request_policy
        self.filters = settings.filters.seen_by(local)
        checked = self.request_policy is not None or self.filters is not None
        self.has_extras = bool(checked or releases.in_force or settings.logs or settings.tracing)
        self._local = local
        self.documents = releases
        self.releases: Dict[str, CompiledRelease] = compiled(releases, overrides, previous.releases if previous else {})
        self.lane_headers = lane_headers(each.lane for each in self.releases.values())
        self.asks_person = any(each.asks_person for each in self.releases.values())
        reusable = previous._entries if previous else {}
        build = _Builder(local, middleware, releases.held_back, self.releases)
        self._entries: dict[_Key, _PrefixEntry] = build.entries(self.mappings, reusable)
        self.groups = _in_routing_order(self._entries.values(), previous.order if previous else {})
        found = [each for entry in self._entries.values() for each in entry.diagnostics]
        self.diagnostics = (*found, *split_findings(self.releases, previous.releases if previous else {}))
        self.has_exceptions = bool(self.releases) or any(group.sent_shares for group in self.groups)
        self._index = HostIndex(self.groups)

    @classmethod
    def build(
        cls,
        mappings: Iterable[Mapping],
        *,
        local: Collection[str] = (),
        middleware: bool = False,
        settings: ModuleSettings = DEFAULT_SETTINGS,
        releases: Releases = NO_RELEASES,
    ) -> "RouteTable":
        """Group, order and index Mappings.

        Args:
            local: names of the local service, the one that this process serves (see `Service.names`).
            middleware: see the attribute.
            settings: of the Module.
            releases: those in force, and what is held back.
        """
        return cls(mappings, frozenset(local), middleware, settings, None, releases)

    def rebuild(
        self,
        mappings: Iterable[Mapping],
        settings: ModuleSettings = DEFAULT_SETTINGS,
        releases: Releases = NO_RELEASES,
        overrides: Overrides = NO_OVERRIDES,
    ) -> "RouteTable":
        """The same result as `build` with the same `local` and `middleware`; reuses the groups that do not change."""
        return type(self)(mappings, self._local, self.middleware, settings, self, releases, overrides)

    @classmethod
    def from_yaml(cls, text: str, *, local: Collection[str] = (), middleware: bool = False) -> "RouteTable":
        """Read and build the rules of one text; meant for tests.

        Args:
            text: the content of a rules file; `$VAR` in it is not replaced.
            local: see `build`.
            middleware: see the attribute.

        Raises:
            ConfigError: the first error in the rules, if there is one.
        """
        # Here, because pydantic takes long to load, and most tables are built from Mappings that were read elsewhere.
        from canary_mw.config.parser import parse

        rules = parse([Document(text, "rules")], middleware=middleware)
        settings = rules.shared.settings
        table = cls.build(
            rules.mappings, local=local, middleware=middleware, settings=settings, releases=rules.releases
        )
        for found in (*rules.diagnostics, *table.diagnostics):
            if found.severity == "error":
                # The text of a ConfigError begins with its Mapping.
                message = found.message.removeprefix(f"Mapping {found.mapping}: ")
                raise ConfigError(message, file=found.file, line=found.line, mapping=found.mapping, hint=found.hint)
        return table

    @property
    def local(self) -> frozenset[str]:
        """The names of the local service."""
        return self._local

    @property
    def order(self) -> Order:
        """The position of each group in `groups`."""
        return self._index.order

    def admit(self, head: RequestHead) -> RequestHead:
        """Check a request by the Module's settings; return it as it is matched and sent.

        Raises:
            ClientError: the Module's settings refuse the request.
        """
        return head if self.request_policy is None else self.request_policy.admit(head)

    def candidates(self, head: RequestHead) -> Groups:
        """Groups whose prefix and host may match, in routing order; the caller still runs the `checks` of each."""
        only = self._index.only
        return only.find(head.path) if only is not None else self._index.find(head.host or b"", head.path)

    def __repr__(self) -> str:
        return f"<RouteTable {len(self.mappings)} Mappings in {len(self.groups)} groups>"


class _Builder:
    """Builds the groups of a table.

    Args:
        held_back: names of Mappings that get nothing.
        releases: by name.
    """

    def __init__(
        self,
        local: frozenset[str],
        middleware: bool,
        held_back: frozenset[str],
        releases: Dict[str, CompiledRelease],
    ) -> None:
        self._local = local
        self._middleware = middleware
        self._held_back = held_back
        self._owners = {name: each for each in releases.values() for name in each.document.gray_mappings}

    def entries(self, mappings: Iterable[Mapping], previous: dict[_Key, _PrefixEntry]) -> dict[_Key, _PrefixEntry]:
        """The groups by prefix and host; those of which nothing has changed are reused."""
        members: dict[_Key, list[Mapping]] = {}
        for mapping in mappings:
            members.setdefault((mapping.prefix, mapping.prefix_kind, mapping.host.text), []).append(mapping)
        entries = {}
        for key, new in members.items():
            old, marks = previous.get(key), self._marks(new)
            same = old is not None and len(old.mappings) == len(new) and all(map(is_, old.mappings, new))
            entries[key] = old if old is not None and same and old.marks == marks else self._entry(new, marks)
        return entries

    def _marks(self, mappings: list[Mapping]) -> tuple[object, ...]:
        """What of the releases concerns some Mappings; empty for nothing."""
        if not self._owners and not self._held_back:
            return ()
        marks = [self._owners.get(each.name) or (each.name in self._held_back) for each in mappings]
        return tuple(marks) if any(marks) else ()

    def _entry(self, mappings: list[Mapping], marks: tuple[object, ...]) -> _PrefixEntry:
        findings: list[Diagnostic] = []
        groups = _build_groups(mappings, findings)
        for group in groups:
            release = next((owner for each in group.members if (owner := self._owners.get(each.name))), None)
            group.seal(
                narrows=_narrows(group, groups, self._middleware),
                local=self._local,
                middleware=self._middleware,
                release=release,
                held_back=self._held_back if marks else (),
            )
            findings += weight_findings(group, self._middleware)
        return _PrefixEntry(tuple(mappings), tuple(groups), tuple(findings), marks)


def _in_routing_order(entries: Iterable[_PrefixEntry], previous: Order) -> tuple[MappingGroup, ...]:
    """Groups by rank, the larger first, of equal ones the later first; reused groups are not sorted again."""
    groups = [group for entry in entries for group in entry.groups]
    present = set(groups)
    ordered = [group for group in previous if group in present]
    ordered.reverse()
    # Only groups of one entry can have equal sort keys, and these are either all new or all reused.
    new = sorted((group for group in groups if group not in previous), key=_sort_key)
    if not ordered:
        ordered = new
    else:
        for group in new:
            insort(ordered, group, key=_sort_key)
    ordered.reverse()
    return tuple(ordered)


def _build_groups(mappings: list[Mapping], findings: list[Diagnostic]) -> list[MappingGroup]:
    groups: dict[tuple[object, ...], MappingGroup] = {}
    for mapping in mappings:
        key = mapping.key
        group = groups.get(key)
        if group is None:
            group = groups[key] = MappingGroup(mapping)
        conflict = group.add(mapping)
        if conflict:
            text = f"Mapping {mapping.name} is left out: {conflict}"
            findings.append(mapping_finding("error", "group-refused", mapping, text))
    return list(groups.values())


def _narrows(group: MappingGroup, groups: list[MappingGroup], middleware: bool) -> bool:
    """Whether a group takes some requests of another group of its prefix and host to another service.

    In a middleware the wrapped app is behind all groups: one for a header or a parameter takes requests from it.
    """
    conditions = _conditions(group.first)
    services = {m.service for m in group.members}
    wider = [each for each in groups if conditions and each is not group and _conditions(each.first) < conditions]
    if not wider:
        return middleware and bool(group.first.conditions or group.first.query)
    return any({m.service for m in each.members} - services for each in wider)


def _conditions(mapping: Mapping) -> set[object]:
    found: set[object] = {("header", c.key, c.value) for c in mapping.conditions}
    found |= {("query", c.name, c.value) for c in mapping.query}
    return found | ({("method", mapping.method.value)} if mapping.method else set())
