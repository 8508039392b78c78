"""What would happen to a request, by the code that serves requests: `decide` and `exchange`.

Shares are exact. All rolls between two adjacent bounds lead to the same decision, so one roll of each interval is
decided, and the lengths of the intervals are summed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from canary_mw.exceptions import ClientError
from canary_mw.forwarding.exchange import exchange
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.filters import asked_about
from canary_mw.routing.assignment import Assigned, CompiledRelease
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide, decision_behind, remainder_bounds
from canary_mw.routing.governed import APP, GovernedGroup
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.person import NOBODY, Person
from canary_mw.routing.table import RouteTable

_HOP = HopContext(b"canary-mw", trusted=False, new_id=lambda: b"")


@dataclass(frozen=True, slots=True)
class GroupTrace:
    """A group whose prefix and host may match, with the tests that it passed, or the first test that failed."""

    group: str
    matched: bool
    why: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One possible decision for a request, and its outcome.

    Attributes:
        decision: None when no Mapping takes the request.
        percent: exact share in (0, 100].
        outcome: the request to the upstream, or the proxy's own reply; None when the wrapped app answers.
        asks: what is asked before it goes on, in words.
    """

    decision: Decision | None
    percent: float
    outcome: UpstreamRequest | Reply | None
    asks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """All possible decisions for a request; the shares of the candidates add up to 100.

    Attributes:
        head: the request as received, before the Module's settings changed it.
        considered: the groups that may match, in routing order.
        release: the release that decides, None without one.
        assigned: what it decides before any draw.
        person: what was known of the sender.
    """

    head: RequestHead
    candidates: list[Candidate] = field(default_factory=list)
    considered: list[GroupTrace] = field(default_factory=list)
    release: CompiledRelease | None = None
    assigned: Assigned | None = None
    person: Person = NOBODY


def explain(table: RouteTable, head: RequestHead, person: Person = NOBODY) -> Explanation:
    """Explain what happens to a request, without sending anything."""
    try:
        admitted = table.admit(head)
    except ClientError as exc:
        return Explanation(head, [Candidate(None, 100.0, Reply(exc.status_hint))])
    shares: dict[Decision | None, float] = {}
    governed: GovernedGroup | None = None
    for low, high in pairwise(_bounds(table, admitted)):
        group, possible = _possible(table, admitted, (low + high) / 2, person)
        governed = governed or group
        for part, decision in possible:
            shares[decision] = shares.get(decision, 0.0) + part * (high - low)
    candidates = [_candidate(table, d, round(each, 10), admitted) for d, each in shares.items() if each]
    considered = [_trace(group, admitted) for group in table.candidates(admitted)]
    if governed is None:
        return Explanation(head, candidates, considered)
    assigned, _ = governed.outcomes(admitted, person)
    return Explanation(head, candidates, considered, governed.release, assigned, person)


def _candidate(table: RouteTable, decision: Decision | None, percent: float, head: RequestHead) -> Candidate:
    asks = asked_about(table, decision, head) if table.filters is not None else ()
    return Candidate(decision, percent, _outcome(table, decision, head), tuple(asks))


def _possible(
    table: RouteTable, head: RequestHead, roll: float, person: Person
) -> tuple[GovernedGroup | None, list[tuple[float, Decision | None]]]:
    """The decisions of a roll, each with its part, and the governed group that divides it into parts."""
    for group in table.candidates(head):
        if group.mismatch(head) is None:
            if (governed := group.governed) is not None:
                return governed, [*_parts(table, group, governed, head, roll, person)]
            if group.pick(head, roll) is not None:
                break
    return None, [(1.0, decide(table, head, roll, person))]


def _parts(
    table: RouteTable, group: MappingGroup, governed: GovernedGroup, head: RequestHead, roll: float, person: Person
) -> Iterator[tuple[float, Decision | None]]:
    for part, decision in governed.outcomes(head, person)[1]:
        if decision.mapping is not APP or governed.answers_locally:
            yield part, decision
        else:
            yield part, decision_behind(table, group, head, roll, person, decision)


def _bounds(table: RouteTable, head: RequestHead) -> list[float]:
    """All rolls at which the decision may change, with 0 and 100."""
    matching = [group for group in table.candidates(head) if group.mismatch(head) is None]
    bounds = {0.0, 100.0}
    for group in matching:
        bounds.update(share.bound for share in group.shares if 0 < share.bound < 100)
    highest = max((group.claimed_percent(head) for group in matching), default=100.0)
    leftover = next((group for group in matching if group.claimed_percent(head) > 0), None)
    if leftover is not None and highest < 100:
        bounds.update(bound for bound, _ in remainder_bounds(leftover, head, highest))
    return sorted(bounds)


def _trace(group: MappingGroup, head: RequestHead) -> GroupTrace:
    failed = group.mismatch(head)
    if failed is not None:
        return GroupTrace(group.name, False, f"not: {failed.text}")
    return GroupTrace(group.name, True, ", ".join(test.text for test in group.tests))


def _outcome(table: RouteTable, decision: Decision | None, head: RequestHead) -> UpstreamRequest | Reply | None:
    if decision is None:
        return None if table.middleware else Reply(404)
    if decision.local and table.middleware:
        return None
    try:
        return next(exchange(decision, head, _HOP))
    except StopIteration as stop:
        reply: Reply = stop.value
        return reply
    except ClientError as exc:
        return Reply(exc.status_hint)
