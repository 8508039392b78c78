"""The rules as one immutable value: Mappings in groups, groups in the order of routing, found by an index.

A table is built whole and replaced whole; a request keeps the one it began with.
"""

from collections.abc import Collection, Iterable

from .ambassador import parse
from .exceptions import ConfigError
from .group import MappingGroup
from .index import Groups, HostIndex
from .mapping import Mapping
from .messages import Diagnostic, Document, RequestHead
from .module import NO_GLOBALS, Globals


class RouteTable:
    """Built once per reload, read by every request.

    Attributes:
        mappings: in document order.
        groups: in the order of routing (`_route_weight` of Emissary, larger first; equal ones: the later first).
        diagnostics: what only the whole of the rules shows: weights over 100 or with a hole, refused companions.
        middleware: a wrapped app stands behind the rules and takes what they leave.
        settings: of the Module.
        gate: what it demands of every request, or None.
        has_local: some Mapping leads to the service that this process is.
    """

    __slots__ = ("_index", "diagnostics", "gate", "groups", "has_local", "mappings", "middleware", "settings")

    def __init__(
        self,
        mappings: tuple[Mapping, ...],
        groups: tuple[MappingGroup, ...],
        diagnostics: tuple[Diagnostic, ...],
        middleware: bool,
        settings: Globals = NO_GLOBALS,
    ) -> None:
        self.mappings = mappings
        self.groups = groups
        self.diagnostics = diagnostics
        self.middleware = middleware
        self.settings = settings
        self.gate = settings.gate
        self.has_local = any(group.locals for group in groups)
        self._index = HostIndex(groups)

    @classmethod
    def build(
        cls,
        mappings: Iterable[Mapping],
        *,
        local: Collection[str] = (),
        middleware: bool = False,
        settings: Globals = NO_GLOBALS,
    ) -> "RouteTable":
        """Group, order and index Mappings.

        Args:
            local: names of the service that this process is (see `Service.names`).
            middleware: see the attribute.
            settings: of the Module.
        """
        mappings = tuple(mappings)
        names = frozenset(local)
        findings: list[Diagnostic] = []
        groups = _grouped(mappings, findings)
        ordered = sorted(groups, key=lambda group: group.sort_key)
        ordered.reverse()
        wider = _by_prefix(ordered)
        for order, group in enumerate(ordered):
            group.order = order
            narrows = _narrows(group, wider[_place(group)])
            group.finish(narrows=narrows, local=names, middleware=middleware)
            findings += _weight_findings(group, middleware)
        return cls(mappings, tuple(ordered), tuple(findings), middleware, settings)

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
        settings = rules.surroundings.globals
        table = cls.build(rules.mappings, local=local, middleware=middleware, settings=settings)
        for found in (*rules.diagnostics, *table.diagnostics):
            if found.severity == "error":
                name = found.mapping
                # A ConfigError names its Mapping itself.
                message = found.message.removeprefix(f"Mapping {name}: ")
                raise ConfigError(message, file=found.file, line=found.line, mapping=name, hint=found.hint)
        return table

    def admit(self, head: RequestHead) -> RequestHead:
        """The request as it is matched and sent under the Module's demands.

        Raises:
            ClientError: it is not let in.
        """
        return head if self.gate is None else self.gate.admit(head)

    def candidates(self, head: RequestHead) -> Groups:
        """Groups whose prefix and host may match, in the order of routing; each must still be tested."""
        only = self._index.only
        return only.find(head.path) if only is not None else self._index.find(head.host or b"", head.path)

    def __repr__(self) -> str:
        return f"<RouteTable {len(self.mappings)} Mappings in {len(self.groups)} groups>"


def _grouped(mappings: tuple[Mapping, ...], findings: list[Diagnostic]) -> list[MappingGroup]:
    groups: dict[tuple[object, ...], MappingGroup] = {}
    for mapping in mappings:
        group = groups.get(mapping.key)
        if group is None:
            group = groups[mapping.key] = MappingGroup(mapping)
        refused = group.add(mapping)
        if refused:
            text = f"Mapping {mapping.name} is left out: {refused}"
            findings.append(_finding("error", "group-refused", mapping, text))
    return list(groups.values())


def _place(group: MappingGroup) -> tuple[str, str, str]:
    return group.first.prefix, group.first.kind, group.host.text


def _by_prefix(groups: list[MappingGroup]) -> dict[tuple[str, str, str], list[MappingGroup]]:
    places: dict[tuple[str, str, str], list[MappingGroup]] = {}
    for group in groups:
        places.setdefault(_place(group), []).append(group)
    return places


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
