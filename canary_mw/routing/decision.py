"""From a table and a request to a decision: pure, with the randomness as an argument."""

from canary_mw.http.messages import RequestHead
from canary_mw.routing.group import Decision, MappingGroup
from canary_mw.routing.table import RouteTable


def decide(table: RouteTable, head: RequestHead, roll: float) -> Decision | None:
    """Choose the Mapping for a request.

    Groups are tried in the order of routing with one and the same roll, as Envoy does; what the weights of one leave
    falls through to the next. A request that would end nowhere only because of weights goes to the first such group
    by relative weight, unless a wrapped app stands behind the rules and takes it.

    Args:
        roll: percent in [0, 100), random or from a sticky key.

    Returns:
        None when no Mapping takes the request: 404 standalone, the wrapped app in a middleware.
    """
    leftover: MappingGroup | None = None
    reached = 0.0
    for group in table.candidates(head):
        for holds in group.checks:
            if not holds(head):
                break
        else:
            decision = group.only_decision or group.pick(head, roll)
            if decision is not None:
                return decision if decision.local or not table.has_local else _already_decided(table, head) or decision
            reach = group.claimed_percent(head)
            reached = max(reached, reach)
            if leftover is None and reach > 0:
                leftover = group
    if leftover is None or table.middleware:
        return None
    decision = next((decision for bound, decision in remainder_bounds(leftover, head, reached) if roll < bound), None)
    return _already_decided(table, head) or decision if table.has_local else decision


def _already_decided(table: RouteTable, head: RequestHead) -> Decision | None:
    """The decision that a canary-mw before us took, when it sent the request to the service that we are.

    Gray pods usually run the code and the rules of the stable ones. Were they to draw again, in this group or in one
    that comes before it, most of what is sent to them would go back.
    """
    via = head.header(b"via")
    if via is None:
        return None
    for group in table.candidates(head):
        for decision in group.local_decisions:
            if decision.mapping.via_mark in via and all(holds(head) for holds in group.checks):
                return decision
    return None


def remainder_bounds(group: MappingGroup, head: RequestHead, reached: float) -> list[tuple[float, Decision]]:
    """How a group divides the draws in [reached, 100) that no group took, by relative weight."""
    widths = group.relative_weights(head)
    total = sum(width for width, _ in widths)
    out, bound = [], reached
    for width, decision in widths:
        bound += (100.0 - reached) * width / total
        out.append((bound, decision))
    # Rounding must not open a hole at the end.
    return [*out[:-1], (100.0, out[-1][1])] if out else []
