"""The rules as one immutable value: Mappings in groups, groups in the order of routing, found by an index.

A table is built whole and replaced whole; a request keeps the one it began with.
"""

from bisect import insort
from collections.abc import Collection, Iterable
from operator import attrgetter, is_
from typing import NamedTuple

from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.parser import parse
from canary_mw.exceptions import ConfigError
from canary_mw.http.messages import RequestHead
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.index import Groups, HostIndex, Order
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.module import DEFAULT_SETTINGS, ModuleSettings


class _Place(NamedTuple):
    """The Mappings of one prefix and host, in document order: no others share a group with them, or narrow one."""

    mappings: tuple[Mapping, ...]
    groups: tuple[MappingGroup, ...]
    diagnostics: tuple[Diagnostic, ...]


_Key = tuple[str, str, str]
_sort_key = attrgetter("sort_key")


class RouteTable:
    """Built once per reload, read by every request.

    Attributes:
        mappings: in document order.
        groups: in the order of routing (`_route_weight` of Emissary, larger first; equal ones: the later first).
        diagnostics: what only the whole of the rules shows: weights over 100 or with a hole, refused companions.
        middleware: a wrapped app stands behind the rules and takes what they leave.
        settings: of the Module.
        request_policy: what it demands of every request, or None.
        has_local: some Mapping leads to the service that this process is.
    """

    __slots__ = (
        "__weakref__",
        "_index",
        "_local",
        "_places",
        "diagnostics",
        "groups",
        "has_local",
        "mappings",
        "middleware",
        "request_policy",
        "settings",
    )

    def __init__(
        self,
        mappings: Iterable[Mapping],
        local: frozenset[str],
        middleware: bool,
        settings: ModuleSettings = DEFAULT_SETTINGS,
        before: "RouteTable | None" = None,
    ) -> None:
        self.mappings = tuple(mappings)
        self.middleware = middleware
        self.settings = settings
        self.request_policy = settings.request_policy
        self._local = local
        self._places: dict[_Key, _Place] = _places(self.mappings, local, middleware, before._places if before else {})
        self.groups = _in_order(self._places.values(), before.order if before else {})
        self.diagnostics = tuple(found for place in self._places.values() for found in place.diagnostics)
        self.has_local = any(group.local_decisions for group in self.groups)
        self._index = HostIndex(self.groups)

    @classmethod
    def build(
        cls,
        mappings: Iterable[Mapping],
        *,
        local: Collection[str] = (),
        middleware: bool = False,
        settings: ModuleSettings = DEFAULT_SETTINGS,
    ) -> "RouteTable":
        """Group, order and index Mappings.

        Args:
            local: names of the service that this process is (see `Service.names`).
            middleware: see the attribute.
            settings: of the Module.
        """
        return cls(mappings, frozenset(local), middleware, settings)

    def rebuild(self, mappings: Iterable[Mapping], settings: ModuleSettings = DEFAULT_SETTINGS) -> "RouteTable":
        """What `build` gives, for the same process; groups that the change does not touch are taken over."""
        return type(self)(mappings, self._local, self.middleware, settings, self)

    @classmethod
    def from_yaml(cls, text: str, *, local: Collection[str] = (), middleware: bool = False) -> "RouteTable":
        """Read and build the rules of one text, as a test has them at hand.

        Args:
            text: as a file of rules holds it; `$VAR` in it stays as it is.
            local: see `build`.
            middleware: see the attribute.

        Raises:
            ConfigError: the first error in the rules, if there is one.
        """
        rules = parse([Document(text, "rules")])
        settings = rules.shared.settings
        table = cls.build(rules.mappings, local=local, middleware=middleware, settings=settings)
        for found in (*rules.diagnostics, *table.diagnostics):
            if found.severity == "error":
                name = found.mapping
                # A ConfigError names its Mapping itself.
                message = found.message.removeprefix(f"Mapping {name}: ")
                raise ConfigError(message, file=found.file, line=found.line, mapping=name, hint=found.hint)
        return table

    @property
    def order(self) -> Order:
        """The place of each group in `groups`."""
        return self._index.order

    def admit(self, head: RequestHead) -> RequestHead:
        """The request as it is matched and sent under the Module's demands.

        Raises:
            ClientError: it is not let in.
        """
        return head if self.request_policy is None else self.request_policy.admit(head)

    def candidates(self, head: RequestHead) -> Groups:
        """Groups whose prefix and host may match, in the order of routing; each must still be tested."""
        only = self._index.only
        return only.find(head.path) if only is not None else self._index.find(head.host or b"", head.path)

    def __repr__(self) -> str:
        return f"<RouteTable {len(self.mappings)} Mappings in {len(self.groups)} groups>"


def _places(
    mappings: Iterable[Mapping], local: frozenset[str], middleware: bool, before: dict[_Key, _Place]
) -> dict[_Key, _Place]:
    members: dict[_Key, list[Mapping]] = {}
    for mapping in mappings:
        members.setdefault((mapping.prefix, mapping.prefix_kind, mapping.host.text), []).append(mapping)
    places = {}
    for key, some in members.items():
        old = before.get(key)
        same = old is not None and len(old.mappings) == len(some) and all(map(is_, old.mappings, some))
        places[key] = old if old is not None and same else _place(some, local, middleware)
    return places


def _place(mappings: list[Mapping], local: frozenset[str], middleware: bool) -> _Place:
    findings: list[Diagnostic] = []
    groups = _grouped(mappings, findings)
    for group in groups:
        group.seal(narrows=_narrows(group, groups), local=local, middleware=middleware)
        findings += _weight_findings(group, middleware)
    return _Place(tuple(mappings), tuple(groups), tuple(findings))


def _in_order(places: Iterable[_Place], before: Order) -> tuple[MappingGroup, ...]:
    """Larger rank first, of equal ones the later; those that were in order `before` still are."""
    groups = [group for place in places for group in place.groups]
    present = set(groups)
    ordered = [group for group in before if group in present]
    ordered.reverse()
    # Only groups of one place can be equal, and all of them are new or none.
    fresh = sorted((group for group in groups if group not in before), key=_sort_key)
    if not ordered:
        ordered = fresh
    else:
        for group in fresh:
            insort(ordered, group, key=_sort_key)
    ordered.reverse()
    return tuple(ordered)


def _grouped(mappings: list[Mapping], findings: list[Diagnostic]) -> list[MappingGroup]:
    groups: dict[tuple[object, ...], MappingGroup] = {}
    for mapping in mappings:
        key = mapping.key
        group = groups.get(key)
        if group is None:
            group = groups[key] = MappingGroup(mapping)
        refused = group.add(mapping)
        if refused:
            text = f"Mapping {mapping.name} is left out: {refused}"
            findings.append(_finding("error", "group-refused", mapping, text))
    return list(groups.values())


def _narrows(group: MappingGroup, neighbours: list[MappingGroup]) -> bool:
    """Whether it takes some of the requests of another group of the same prefix, and sends them to another service."""
    mine = _conditions(group.first)
    services = {m.service for m in group.members}
    return any(
        _conditions(other.first) < mine and bool({m.service for m in other.members} - services)
        for other in (neighbours if mine else ())
        if other is not group
    )


def _conditions(mapping: Mapping) -> set[object]:
    found: set[object] = {("header", c.key, c.value) for c in mapping.conditions}
    found |= {("query", c.name, c.value) for c in mapping.query}
    return found | ({("method", mapping.method.value)} if mapping.method else set())


def _weight_findings(group: MappingGroup, middleware: bool) -> Iterable[Diagnostic]:
    if not group.weighted or group.redirect or (len(group.members) == 1 and not middleware):
        return
    total = sum(m.weight or 0 for m in group.members)
    last = next(m for m in reversed(group.members) if m.weight is not None)
    if total > 100:
        text = f"the weights of {group.name} add up to {total}, more than 100"
        yield _finding("error", "weights-over-100", last, text, "what is over 100 is cut off; lower a weight")
    elif group.total < 100 and not middleware:
        text = f"the weights of {group.name} add up to {total}, and no Mapping of the group takes the rest"
        yield _finding("warning", "weights-hole", last, text, "leave the weight of the stable Mapping out")


def _finding(severity: str, code: str, mapping: Mapping, message: str, hint: str | None = None) -> Diagnostic:
    return Diagnostic(
        severity="error" if severity == "error" else "warning",
        code=code,
        message=message,
        file=mapping.file,
        line=mapping.line or None,
        mapping=mapping.name,
        hint=hint,
    )
