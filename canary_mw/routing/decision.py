"""Decide which Mapping takes a request. A pure function: the random number is an argument."""

from collections.abc import Callable

from canary_mw.http.messages import RequestHead
from canary_mw.routing.group import Decision, MappingGroup
from canary_mw.routing.table import RouteTable

# Whether `via` says that a canary-mw sent the request to the service of a comment (`Service.via_comment`).
IsSent = Callable[[RequestHead, bytes], bool]


def has_comment(head: RequestHead, comment: bytes) -> bool:
    """Whether `via` holds the comment; where nothing is signed, that is believed of any peer."""
    return head.any_value_matches(b"via", lambda value: comment in value)


def decide(table: RouteTable, head: RequestHead, roll: float, is_sent: IsSent = has_comment) -> Decision | None:
    """Choose the Mapping for a request.

    Groups are tried in routing order with the same roll, as Envoy does. A roll that the weights of one group leave
    falls through to the next. When a request gets no Mapping only because of weights, the first matching group
    with a share takes it, by relative weight. In a middleware the wrapped app takes it instead.

    What another canary-mw has sent to the local service is not drawn again, see `_sent_decision`.

    Args:
        roll: a percent in [0, 100), random or derived from a sticky key.
        is_sent: how `via` is read.

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
            # Only before the first draw: the search for a sent request covers all groups.
            if group.draws and leftover is None and table.has_local:
                sent = _sent_decision(table, head, roll, is_sent)
                if sent is not None:
                    return sent
            decision = group.only_decision or group.pick(head, roll)
            if decision is not None:
                return decision
            claimed = group.claimed_percent(head)
            highest = max(highest, claimed)
            if leftover is None and claimed > 0:
                leftover = group
    if leftover is None or table.middleware:
        return None
    return next((decision for bound, decision in remainder_bounds(leftover, head, highest) if roll < bound), None)


def _sent_decision(table: RouteTable, head: RequestHead, roll: float, is_sent: IsSent) -> Decision | None:
    """The decision of another canary-mw that sent the request to the local service, by the comment in `via`.

    Gray pods usually run the same code and rules as stable pods. If they decided again, they would send most of the
    requests that they receive back to the stable pods.

    Anybody can write a comment. It counts only for what some roll of this request leads to: it leads nobody past a more
    specific Mapping.
    """
    if not head.has(b"via"):
        return None
    highest = 0.0
    for group in table.candidates(head):
        if all(matches(head) for matches in group.checks):
            found = [each for each in group.sent_to(head, highest) if is_sent(head, each.mapping.via_comment)]
            if found:
                drawn = group.pick(head, roll)
                # The comment does not tell Mappings of one service apart.
                return next((each for each in found if drawn is not None and each.mapping is drawn.mapping), found[0])
            highest = max(highest, group.claimed_percent(head))
            if highest >= 100:
                return None
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
