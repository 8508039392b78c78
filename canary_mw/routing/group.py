"""Mappings that match the same requests, and how they divide them (SEMANTICS of weights as Emissary's groups).

A group is built once: its tests, its thresholds, the `Decision` that each share leads to. Later tables take it over
for as long as its Mappings and its neighbours are the same, so it knows nothing of its place among all groups.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from canary_mw.http.messages import RequestHead
from canary_mw.rules.mapping import Mapping, Variant
from canary_mw.rules.matchers import HostPattern, header_matcher, literal_prefix, query_matches, without_port


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a group chose; made at build time, shared by all requests that it fits.

    Attributes:
        group: the name of the group; the group itself leads here, and would never end if this led back.
        local: the service is the one that this process is, so the wrapped app answers.
        shadow: the Mapping that gets a copy, if the group has one.
    """

    mapping: Mapping
    group: str
    variant: Variant
    local: bool
    shadow: Mapping | None = None


class Share(NamedTuple):
    """A decision takes the draws below `bound` that no earlier share took; bounds are percents in [0, 100]."""

    bound: float
    decision: Decision


class MatchTest(NamedTuple):
    """One thing that a request must fulfil, and how to name it.

    Attributes:
        proven: holds for every group that the index gives for a request, so routing need not run it.
    """

    text: str
    matches: Callable[[RequestHead], object]
    proven: bool = False


# Where nothing else orders two groups (ties in rank): exact before plain before regex.
_KIND_ORDER = {"exact": 2, "plain": 1, "regex": 0}


class MappingGroup:
    """The live Mappings of one key, in document order.

    Attributes:
        members: proxied Mappings.
        redirect: a redirecting Mapping; it takes the whole group.
        shadow: the Mapping that gets copies.
        host: the host that its requests name.
        literals: (case folded, text) under which the index keeps it.
        shares: in order of their bounds.
        total: percent of the draws that the group takes, in [0, 100].
        local_decisions: decisions for the service that this process is; one that only gets copies is among them.
        only_decision: the decision that takes all draws, if there is one.
        checks: what the index leaves open of `tests`.
    """

    __slots__ = (
        "_checked",
        "checks",
        "host",
        "literals",
        "local_decisions",
        "members",
        "only_decision",
        "rank",
        "redirect",
        "shadow",
        "shares",
        "total",
    )

    def __init__(self, first: Mapping) -> None:
        self.members: list[Mapping] = []
        self.redirect: Mapping | None = None
        self.shadow: Mapping | None = None
        self.rank = first.rank
        self.host = first.host
        self.literals: tuple[tuple[bool, bytes], ...] = ()
        self.shares: tuple[Share, ...] = ()
        self.total = 0.0
        self.local_decisions: tuple[Decision, ...] = ()
        self.only_decision: Decision | None = None
        self.checks: tuple[Callable[[RequestHead], object], ...] = ()
        self._checked = False

    def add(self, mapping: Mapping) -> str | None:
        """Take a Mapping in; return why it cannot be, or None."""
        if mapping.shadow:
            if self.shadow is not None:
                return f"the group has the shadow {self.shadow.name} already"
            self.shadow = mapping
        elif mapping.redirect:
            if self.redirect is not None or self.members:
                return f"a redirect takes its whole group, and {(self.redirect or self.members[0]).name} is in it"
            self.redirect = mapping
        elif self.redirect is not None:
            return f"{self.redirect.name} redirects the whole group"
        else:
            self.members.append(mapping)
            self.rank = max(self.rank, mapping.rank)
        return None

    @property
    def first(self) -> Mapping:
        """The Mapping whose tests are the group's."""
        found = self.members[0] if self.members else self.redirect or self.shadow
        assert found is not None  # a group is made for a Mapping
        return found

    @property
    def mappings(self) -> list[Mapping]:
        """Everything in it: members, else the redirect, else the shadow."""
        return self.members or [m for m in (self.redirect, self.shadow) if m is not None]

    @property
    def tests(self) -> tuple[MatchTest, ...]:
        """All that a request must fulfil, cheapest first; made when asked for, since routing needs `checks` only."""
        return tuple(_tests(self.first, self.mappings))

    @property
    def sort_key(self) -> tuple[list[int | str], int]:
        """Larger comes first."""
        return self.rank, _KIND_ORDER[self.first.prefix_kind]

    @property
    def name(self) -> str:
        """How findings and `explain` call it: its Mappings."""
        return " + ".join(m.name for m in self.mappings)

    @property
    def weighted(self) -> bool:
        """Whether any member names a weight."""
        return any(m.weight is not None for m in self.members)

    def mismatch(self, head: RequestHead) -> MatchTest | None:
        """The first test that the request fails, or None when it matches."""
        for test in self.tests:
            if not test.matches(head):
                return test
        return None

    def pick(self, head: RequestHead, draw: float) -> Decision | None:
        """The decision that owns `draw`, a percent in [0, 100), or None when the weights leave it to later groups."""
        for bound, decision in self.shares:
            if draw < bound and (not self._checked or decision.mapping.accepts_path(head.path)):
                return decision
        return None

    def claimed_percent(self, head: RequestHead) -> float:
        """The percent of the draws that it takes of such requests: `total`, or less where members differ in case."""
        if not self._checked:
            return self.total
        return max((bound for bound, decision in self.shares if decision.mapping.accepts_path(head.path)), default=0.0)

    def relative_weights(self, head: RequestHead) -> list[Share]:
        """The percent of each decision that this request can get inside the group."""
        out, low = [], 0.0
        for bound, decision in self.shares:
            if bound > low and (not self._checked or decision.mapping.accepts_path(head.path)):
                out.append(Share(bound - low, decision))
                low = bound
        return out

    def seal(self, *, narrows: bool, local: Collection[str], middleware: bool) -> None:
        """Work out tests, shares and variants, when all Mappings are in.

        Args:
            narrows: it takes some requests out of a wider group that leads elsewhere, so all of it is gray.
            local: names of the service that this process is.
            middleware: the wrapped app takes what the weights leave, so a lone weight keeps its meaning.
        """
        bounds = [(self.redirect, 100.0)] if self.redirect else thresholds(self.members, alone_is_all=not middleware)
        stable = _stable([mapping for mapping, _ in bounds], narrows=narrows, rest_is_stable=middleware)
        shares = []
        for mapping, bound in bounds:
            is_local = _is_local(mapping, local)
            variant = mapping.variant or ("stable" if is_local or mapping in stable else "gray")
            shares.append(Share(bound, Decision(mapping, self.name, variant, is_local, self.shadow)))
        self.shares = tuple(shares)
        self.total = max((share.bound for share in shares), default=0.0)
        copies = [Decision(m, self.name, "gray", True) for m in (self.shadow,) if m is not None and _is_local(m, local)]
        self.local_decisions = (*(share.decision for share in shares if share.decision.local), *copies)
        self.host = self.first.host
        self.literals = _literals(self.first, self.mappings)
        self.checks = tuple(test.matches for test in self.tests if not test.proven)
        self._checked = len({m.case_sensitive for m in self.members}) > 1
        if len(shares) == 1 and shares[0].bound >= 100 and not self._checked:
            self.only_decision = shares[0].decision


def thresholds(members: list[Mapping], *, alone_is_all: bool = True) -> list[tuple[Mapping, float]]:
    """Cumulative bounds in percent, weighted Mappings first (Emissary `normalize_weights_in_mappings`).

    Args:
        alone_is_all: a single Mapping takes all, whatever its weight.
    """
    if len(members) == 1 and (alone_is_all or members[0].weight is None):
        return [(members[0], 100.0)]
    bounds = {id(m): 0 for m in members}
    free = [m for m in members if m.weight is None]
    total = 0
    for mapping in members:
        if mapping.weight is None:
            continue
        if mapping.weight > 100:
            return [(m, float(bounds[id(m)])) for m in members]
        total += mapping.weight
        bounds[id(mapping)] = total
    if total <= 100:
        each = round((100 - total) / len(free)) if free else 0
        for mapping in free:
            total = 100 if mapping is free[-1] else total + each
            bounds[id(mapping)] = total
    ordered = [m for m in members if m.weight is not None] + free
    return [(m, float(min(bounds[id(m)], 100))) for m in ordered]


def _is_local(mapping: Mapping, local: Collection[str]) -> bool:
    return any(name in local for name in mapping.service.names)


def _stable(members: list[Mapping], *, narrows: bool, rest_is_stable: bool) -> list[Mapping]:
    """The weightless Mappings, else the heaviest, unless the group is gray as a whole."""
    if narrows or not members:
        return []
    weightless = [m for m in members if m.weight is None]
    if weightless or rest_is_stable:
        return weightless
    return [max(members, key=lambda m: m.weight or 0)]


def _literals(first: Mapping, mappings: list[Mapping]) -> tuple[tuple[bool, bytes], ...]:
    if first.pattern is not None:
        return ((False, literal_prefix(first.pattern)),)
    texts = {(not m.case_sensitive, m.prefix_bytes) for m in mappings}
    return tuple({(fold, text.lower() if fold else text) for fold, text in texts})


def _tests(first: Mapping, mappings: list[Mapping]) -> Iterable[MatchTest]:
    folded = any(not m.case_sensitive for m in mappings)
    if first.prefix_kind == "plain" and not folded:
        yield MatchTest(f"prefix {first.prefix}", _begins_with(first.prefix_bytes), proven=True)
    elif first.prefix_kind == "regex":
        yield MatchTest(f"prefix_regex {first.prefix}", lambda head: first.accepts_path(head.path))
    else:
        text = (
            f"prefix{'_exact' if first.prefix_kind == 'exact' else ''} {first.prefix}{' (any case)' if folded else ''}"
        )
        yield MatchTest(text, lambda head: any(m.accepts_path(head.path) for m in mappings))
    if first.host.kind != "any":
        yield MatchTest(f"host {first.host.text}", _host_test(first.host), proven=True)
    if first.method is not None:
        accepts = first.method.accepts
        yield MatchTest(str(first.method).removeprefix(":"), lambda head: accepts(head.method.encode("latin-1")))
    for condition in first.conditions:
        yield MatchTest(f"header {condition}", header_matcher(condition))
    for condition in first.query:
        yield MatchTest(f"query {condition}", partial(query_matches, condition))


def _begins_with(prefix: bytes) -> Callable[[RequestHead], bool]:
    return lambda head: head.path.startswith(prefix)


def _host_test(pattern: HostPattern) -> Callable[[RequestHead], object]:
    def holds(head: RequestHead) -> object:
        host = (head.host or b"").lower()
        return pattern.accepts(host if pattern.names_port else without_port(host))

    return holds
