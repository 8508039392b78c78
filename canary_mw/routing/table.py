"""The rules as one immutable value: Mappings in groups, groups in routing order, found by an index.

A table is built and replaced as a whole. A request uses the same table from its beginning to its end.
"""

from bisect import insort
from collections.abc import Collection, Iterable
from operator import attrgetter, is_
from typing import NamedTuple

from canary_mw.config.document import Diagnostic, Document
from canary_mw.exceptions import ConfigError
from canary_mw.http.messages import RequestHead
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.index import Groups, HostIndex, Order
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.module import DEFAULT_SETTINGS, ModuleSettings
from canary_mw.rules.weights import last_resort, total_percent


class _PrefixEntry(NamedTuple):
    """The Mappings of one prefix and host, in document order, and what is built from them.

    Groups do not depend on the Mappings of other prefixes or hosts: none of these share or narrow a group of them.
    """

    mappings: tuple[Mapping, ...]
    groups: tuple[MappingGroup, ...]
    diagnostics: tuple[Diagnostic, ...]


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
        has_local: some Mapping leads to the local service.
    """

    __slots__ = (
        "__weakref__",
        "_entries",
        "_index",
        "_local",
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
        previous: "RouteTable | None" = None,
    ) -> None:
        self.mappings = tuple(mappings)
        self.middleware = middleware
        self.settings = settings
        self.request_policy = settings.request_policy
        self._local = local
        reusable = previous._entries if previous else {}
        self._entries: dict[_Key, _PrefixEntry] = _prefix_entries(self.mappings, local, middleware, reusable)
        self.groups = _in_routing_order(self._entries.values(), previous.order if previous else {})
        self.diagnostics = tuple(found for entry in self._entries.values() for found in entry.diagnostics)
        self.has_local = any(group.sent_shares for group in self.groups)
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
            local: names of the local service, the one that this process serves (see `Service.names`).
            middleware: see the attribute.
            settings: of the Module.
        """
        return cls(mappings, frozenset(local), middleware, settings)

    def rebuild(self, mappings: Iterable[Mapping], settings: ModuleSettings = DEFAULT_SETTINGS) -> "RouteTable":
        """The same result as `build` with the same `local` and `middleware`; reuses the groups that do not change."""
        return type(self)(mappings, self._local, self.middleware, settings, self)

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
        table = cls.build(rules.mappings, local=local, middleware=middleware, settings=settings)
        for found in (*rules.diagnostics, *table.diagnostics):
            if found.severity == "error":
                name = found.mapping
                # The text of a ConfigError begins with its Mapping.
                message = found.message.removeprefix(f"Mapping {name}: ")
                raise ConfigError(message, file=found.file, line=found.line, mapping=name, hint=found.hint)
        return table

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


def _prefix_entries(
    mappings: Iterable[Mapping], local: frozenset[str], middleware: bool, previous: dict[_Key, _PrefixEntry]
) -> dict[_Key, _PrefixEntry]:
    members: dict[_Key, list[Mapping]] = {}
    for mapping in mappings:
        members.setdefault((mapping.prefix, mapping.prefix_kind, mapping.host.text), []).append(mapping)
    entries = {}
    for key, new in members.items():
        old = previous.get(key)
        same = old is not None and len(old.mappings) == len(new) and all(map(is_, old.mappings, new))
        entries[key] = old if old is not None and same else _build_entry(new, local, middleware)
    return entries


def _build_entry(mappings: list[Mapping], local: frozenset[str], middleware: bool) -> _PrefixEntry:
    findings: list[Diagnostic] = []
    groups = _build_groups(mappings, findings)
    for group in groups:
        group.seal(narrows=_narrows(group, groups, middleware), local=local, middleware=middleware)
        findings += _weight_findings(group, middleware)
    return _PrefixEntry(tuple(mappings), tuple(groups), tuple(findings))


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
            findings.append(_finding("error", "group-refused", mapping, text))
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


def _weight_findings(group: MappingGroup, middleware: bool) -> Iterable[Diagnostic]:
    """Weights that leave a part of the requests; more than 100 is an error of the documents (`config/weights.py`)."""
    if middleware or not group.weighted or group.redirect or len(group.members) == 1:
        return
    total = total_percent(group.members)
    last = next(m for m in reversed(group.members) if m.weight is not None)
    text, hint = f"the weights of {group.name} add up to {total}", "leave the weight of the stable Mapping out"
    if taker := last_resort(group.members):
        text += f": {taker.name} takes all requests, as if it were alone"
        yield _finding("warning", "weights-hole", last, text, "write percentages, 0 to 100")
    elif group.total <= 0:
        text += ": none of them gets a request; where no other group matches, the response is 404"
        yield _finding("warning", "weights-hole", last, text, hint)
    elif group.total < 100:
        text += f": {100 - total} % go to other groups that match; what none takes is divided by relative weight"
        yield _finding("warning", "weights-hole", last, text, hint)


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
