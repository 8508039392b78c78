"""Mappings that match the same requests, and how weights divide the requests among them, as in Emissary's groups.

A group is built once, with its match tests, its shares and the `Decision` of each share. Later tables reuse it while
its Mappings and the other Mappings of its prefix and host are unchanged. Therefore it does not store its position
among all groups.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

from canary_mw.http.messages import RequestHead
from canary_mw.routing.assignment import CompiledRelease
from canary_mw.routing.decided import Decision, with_splits
from canary_mw.routing.governed import APP, GovernedGroup
from canary_mw.routing.match_tests import MatchTest, match_tests
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.matchers import literal_prefix
from canary_mw.rules.weights import thresholds, thresholds_without


class Share(NamedTuple):
    """A decision and the upper bound of its rolls: it takes those below `bound` that no earlier share took.

    Bounds are percents, at most 100.
    """

    bound: float
    decision: Decision


# The order of groups of equal rank: exact before plain before regex.
_KIND_ORDER = {"exact": 2, "plain": 1, "regex": 0}


class MappingGroup:
    """The Mappings of one key, in document order.

    Attributes:
        members: Mappings that forward to a service and are no shadow.
        redirect: a Mapping that redirects; it takes all requests of the group.
        shadow: the Mapping that gets copies of requests.
        host: the host pattern of the group.
        literals: literal texts that a path must begin with, each as (case folded, text); keys of the index.
        shares: ordered by their bounds.
        total: the percent of rolls that the group takes, in [0, 100].
        sent_shares: the decisions for what another canary-mw has sent to the local service, each with the bound of its
            rolls. One without a share of its own has the bound 100: a gray version that only some reach, a shadow.
        only_decision: the decision that takes all rolls, if there is one.
        draws: whether a request that was sent here may get another decision than one that was not.
        checks: those of `tests` that the index does not check.
        governed: what the release of the group decides, None without one; then it takes all requests.
    """

    __slots__ = (
        "_checked",
        "checks",
        "draws",
        "governed",
        "host",
        "literals",
        "members",
        "only_decision",
        "rank",
        "redirect",
        "sent_shares",
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
        self.sent_shares: tuple[Share, ...] = ()
        self.only_decision: Decision | None = None
        self.draws = True
        self.governed: GovernedGroup | None = None
        self.checks: tuple[Callable[[RequestHead], object], ...] = ()
        self._checked = False

    def add(self, mapping: Mapping) -> str | None:
        """Add a Mapping; return why it cannot be added, or None."""
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
        """The Mapping that the match tests come from."""
        first = self.members[0] if self.members else self.redirect or self.shadow
        assert first is not None  # a group is made for a Mapping
        return first

    @property
    def mappings(self) -> list[Mapping]:
        """The members; if there are none, the redirect and the shadow."""
        return self.members or [m for m in (self.redirect, self.shadow) if m is not None]

    @property
    def tests(self) -> tuple[MatchTest, ...]:
        """All match tests, cheapest first; computed on access, since routing uses only `checks`."""
        return tuple(match_tests(self.first, self.mappings))

    @property
    def sort_key(self) -> tuple[list[int | str], int]:
        """Sort key of the routing order; the larger comes first."""
        return self.rank, _KIND_ORDER[self.first.prefix_kind]

    @property
    def name(self) -> str:
        """The names of its Mappings; findings and `explain` show it."""
        return " + ".join(m.name for m in self.mappings)

    @property
    def weighted(self) -> bool:
        """Whether any member has a weight."""
        return any(m.weight is not None for m in self.members)

    def mismatch(self, head: RequestHead) -> MatchTest | None:
        """The first test that the request fails, or None when all match."""
        for test in self.tests:
            if not test.matches(head):
                return test
        return None

    def pick(self, head: RequestHead, roll: float) -> Decision | None:
        """The decision for `roll`, a percent in [0, 100), or None when the weights leave it to later groups."""
        for bound, decision in self.shares:
            if roll < bound and (not self._checked or decision.mapping.accepts_path(head.path)):
                return decision
        return None

    def claimed_percent(self, head: RequestHead) -> float:
        """The percent of rolls that the group takes for a request: `total`, or less where members differ in case."""
        if not self._checked:
            return self.total
        return max((bound for bound, decision in self.shares if decision.mapping.accepts_path(head.path)), default=0.0)

    def relative_weights(self, head: RequestHead) -> list[Share]:
        """The percent of rolls of each decision that the request can get from the group."""
        weights, low = [], 0.0
        for bound, decision in self.shares:
            if bound > low and (not self._checked or decision.mapping.accepts_path(head.path)):
                weights.append(Share(bound - low, decision))
                low = bound
        return weights

    def seal(
        self,
        *,
        narrows: bool,
        local: Collection[str],
        middleware: bool,
        release: CompiledRelease | None = None,
        held_back: Collection[str] = (),
    ) -> None:
        """Compute checks, shares and variants; called once, after the last `add`.

        Args:
            narrows: the group takes some requests of a wider group to another service, so all its Mappings are gray.
            local: names of the local service.
            middleware: the wrapped app takes what the weights leave, so the weight of a single Mapping counts.
            release: governs the group.
            held_back: names of Mappings that get nothing.
        """
        held = [each for each in self.members if each.name in held_back]
        if self.redirect:
            bounds = [(self.redirect, 100.0)]
        elif held:
            bounds = thresholds_without(self.members, held, middleware=middleware)
        else:
            bounds = thresholds(self.members, ignore_single_weight=not middleware)
        stable = _stable([mapping for mapping, _ in bounds], narrows=narrows, remainder_is_stable=middleware)
        shares = []
        for mapping, bound in bounds:
            is_local = _is_local(mapping, local)
            variant = mapping.variant or ("stable" if is_local or mapping in stable else "gray")
            shares.append(Share(bound, Decision(mapping, self.name, variant, is_local, self.shadow, middleware)))
        if release is None and not self.redirect:
            decisions = with_splits([(share.bound, share.decision) for share in shares])
            shares = [Share(share.bound, each) for share, each in zip(shares, decisions, strict=True)]
        self.shares = tuple(shares)
        self.total = max((share.bound for share in shares), default=0.0)
        self.sent_shares = tuple(self._sent_shares(local, middleware=middleware))
        self.host = self.first.host
        self.literals = _literals(self.first, self.mappings)
        self.checks = tuple(test.matches for test in self.tests if not test.checked_by_index)
        self._checked = len({m.case_sensitive for m in self.members}) > 1
        if release is not None and not self.redirect:
            self._govern(release, [share.decision for share in shares], held_back)
        elif len(shares) == 1 and shares[0].bound >= 100 and not self._checked:
            self.only_decision = self.shares[0].decision
            self.draws = not self.only_decision.local and bool(self.sent_shares)

    def _govern(self, release: CompiledRelease, decisions: list[Decision], held_back: Collection[str]) -> None:
        app = Decision(APP, self.name, "stable", True, middleware=True)
        self.governed = GovernedGroup(release, decisions, app, held_back)
        self.shares = self.sent_shares = ()
        self.total = 100.0

    def _sent_shares(self, local: Collection[str], *, middleware: bool) -> Iterable[Share]:
        weightless = [m for m in self.members if m.weight is None]
        low = 0.0
        for bound, decision in self.shares:
            if decision.local and bound > low:
                yield Share(bound, replace(decision, sent=True, split=None))
            elif decision.local and _is_gray(decision.mapping, weightless):
                yield Share(100.0, replace(decision, sent=True, split=None))
            low = max(low, bound)
        if self.shadow is not None and _is_local(self.shadow, local):
            yield Share(100.0, Decision(self.shadow, self.name, "gray", True, middleware=middleware, sent=True))

    def sent_to(self, head: RequestHead, above: float) -> Iterable[Decision]:
        """The decisions for a request that was sent to the local service, of those with rolls above a percent."""
        for bound, decision in self.sent_shares:
            if bound > above and (not self._checked or decision.mapping.accepts_path(head.path)):
                yield decision


def _is_gray(mapping: Mapping, weightless: list[Mapping]) -> bool:
    """Whether a Mapping without a share is gray. A stable one is for nobody, not even by a false `via`."""
    if mapping.variant is not None:
        return mapping.variant == "gray"
    return bool(weightless) and mapping not in weightless


def _is_local(mapping: Mapping, local: Collection[str]) -> bool:
    return any(name in local for name in mapping.service.names)


def _stable(members: list[Mapping], *, narrows: bool, remainder_is_stable: bool) -> list[Mapping]:
    """The stable Mappings: the weightless ones, else the one of the largest weight; none if the whole group is gray."""
    if narrows or not members:
        return []
    weightless = [m for m in members if m.weight is None]
    if weightless or remainder_is_stable:
        return weightless
    return [max(members, key=lambda m: m.percent or 0)]


def _literals(first: Mapping, mappings: list[Mapping]) -> tuple[tuple[bool, bytes], ...]:
    if first.pattern is not None:
        return ((False, literal_prefix(first.pattern)),)
    texts = {(not m.case_sensitive, m.prefix_bytes) for m in mappings}
    return tuple({(fold, text.lower() if fold else text) for fold, text in texts})
