"""What would happen to a request, by the code that serves requests: `decide` and `exchange`.

Shares are exact. All rolls between two adjacent bounds lead to the same decision, so one roll of each interval is
decided, and the lengths of the intervals are summed.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from canary_mw.exceptions import ClientError
from canary_mw.forwarding.exchange import exchange
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.routing.decision import decide, remainder_bounds
from canary_mw.routing.group import Decision, MappingGroup
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
    """

    decision: Decision | None
    percent: float
    outcome: UpstreamRequest | Reply | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All possible decisions for a request; the shares of the candidates add up to 100.

    Attributes:
        head: the request as received, before the Module's settings changed it.
        considered: the groups that may match, in routing order.
    """

    head: RequestHead
    candidates: list[Candidate] = field(default_factory=list)
    considered: list[GroupTrace] = field(default_factory=list)


def explain(table: RouteTable, head: RequestHead) -> Explanation:
    """Explain what happens to a request, without sending anything."""
    try:
        admitted = table.admit(head)
    except ClientError as exc:
        return Explanation(head, [Candidate(None, 100.0, Reply(exc.status_hint))])
    shares: dict[Decision | None, float] = {}
    for low, high in pairwise(_bounds(table, admitted)):
        decision = decide(table, admitted, (low + high) / 2)
        shares[decision] = shares.get(decision, 0.0) + high - low
    candidates = [Candidate(d, percent, _outcome(table, d, admitted)) for d, percent in shares.items()]
    return Explanation(head, candidates, [_trace(group, admitted) for group in table.candidates(admitted)])


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
