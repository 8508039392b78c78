"""Decide which Mapping takes a request. A pure function: the random number is an argument."""

from canary_mw.http.messages import RequestHead
from canary_mw.routing.group import Decision, MappingGroup
from canary_mw.routing.table import RouteTable


def decide(table: RouteTable, head: RequestHead, roll: float) -> Decision | None:
    """Choose the Mapping for a request.

    Groups are tried in routing order with the same roll, as Envoy does. A roll that the weights of one group leave
    falls through to the next. When a request gets no Mapping only because of weights, the first matching group
    with a share takes it, by relative weight. In a middleware the wrapped app takes it instead.

    Args:
        roll: a percent in [0, 100), random or derived from a sticky key.

    Returns:
        None when no Mapping takes the request: the standalone proxy answers 404, a middleware calls the wrapped app.
    """
    leftover: MappingGroup | None = None
    highest = 0.0
    for group in table.candidates(head):
        for matches in group.checks:
            if not matches(head):
                break
        else:
            decision = group.only_decision or group.pick(head, roll)
            if decision is not None:
                return decision if decision.local or not table.has_local else _already_decided(table, head) or decision
            claimed = group.claimed_percent(head)
            highest = max(highest, claimed)
            if leftover is None and claimed > 0:
                leftover = group
    if leftover is None or table.middleware:
        return None
    decision = next((decision for bound, decision in remainder_bounds(leftover, head, highest) if roll < bound), None)
    return _already_decided(table, head) or decision if table.has_local else decision


def _already_decided(table: RouteTable, head: RequestHead) -> Decision | None:
    """The decision of the previous canary-mw, when it sent the request to the local service (by the `via` header).

    Gray pods usually run the same code and rules as stable pods. If they decided again, they would send most of the
    requests that they receive back to the stable pods.
    """
    via = head.header(b"via")
    if via is None:
        return None
    for group in table.candidates(head):
        for decision in group.local_decisions:
            if decision.mapping.via_comment in via and all(matches(head) for matches in group.checks):
                return decision
    return None


def remainder_bounds(group: MappingGroup, head: RequestHead, start: float) -> list[tuple[float, Decision]]:
    """The upper bounds by which a group divides the rolls in [start, 100) that no group took, by relative weight."""
    weights = group.relative_weights(head)
    total = sum(weight for weight, _ in weights)
    bounds, bound = [], start
    for weight, decision in weights:
        bound += (100.0 - start) * weight / total
        bounds.append((bound, decision))
    # Rounding must not leave a gap below 100.
    return [*bounds[:-1], (100.0, bounds[-1][1])] if bounds else []
