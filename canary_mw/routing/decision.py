"""Decide which Mapping takes a request. A pure function: the random number is an argument."""

from canary_mw.http.lanes import names_lanes
from canary_mw.http.messages import RequestHead
from canary_mw.routing.decided import Decision
from canary_mw.routing.governed import APP, GovernedGroup
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.person import NOBODY, Person
from canary_mw.routing.table import RouteTable


def decide(table: RouteTable, head: RequestHead, roll: float, person: Person | None = None) -> Decision | None:
    """Choose the Mapping for a request.

    Groups are tried in routing order with the same roll, as Envoy does. A roll that the weights of one group leave
    falls through to the next. When a request gets no Mapping only because of weights, the first matching group
    with a share takes it, by relative weight. In a middleware the wrapped app takes it instead.

    What another canary-mw has sent to the local service is not drawn again, see `_sent_decision`. A group that a
    release governs decides as soon as it matches, see `_governed_decision`.

    Args:
        roll: a percent in [0, 100), random or derived from a sticky key.
        person: what is known of the sender besides the head.

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
            if group.draws and table.has_exceptions:
                if group.governed is not None:
                    return _governed_decision(table, group, group.governed, head, roll, person or NOBODY)
                # Only before the first draw: the search for a sent request covers all groups.
                sent = _sent_decision(table, head, roll, person or NOBODY) if leftover is None else None
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


def may_be_governed(table: RouteTable, head: RequestHead) -> bool:
    """Whether a release may decide a request, or the request brings a lane that a release may not believe."""
    if any(head.has(name) for name in table.lane_headers) or (table.releases and names_lanes(head.headers)):
        return True
    groups = (group for group in table.candidates(head) if group.governed is not None)
    return any(all(matches(head) for matches in group.checks) for group in groups)


def _governed_decision(
    table: RouteTable, group: MappingGroup, governed: GovernedGroup, head: RequestHead, roll: float, person: Person
) -> Decision | None:
    """The decision of a release. What it leaves to the app goes to the groups behind, and at last to the app."""
    decision = governed.decide(head, roll, person)
    if decision.mapping is not APP or governed.answers_locally:
        return decision
    return decision_behind(table, group, head, roll, person, decision)


def decision_behind(
    table: RouteTable, group: MappingGroup, head: RequestHead, roll: float, person: Person, app: Decision
) -> Decision | None:
    """The decision of the groups behind one whose release leaves a request to the wrapped app.

    Args:
        app: the decision for the app; what is decided keeps its release.
    """
    candidates = table.candidates(head)
    for other in candidates[candidates.index(group) + 1 :]:
        if not all(matches(head) for matches in other.checks):
            continue
        if other.governed is not None:
            return _governed_decision(table, other, other.governed, head, roll, person)
        decision = other.only_decision or other.pick(head, roll)
        if decision is not None:
            return decision if app.release is None else decision.with_release(app.release, app.lane)
    return app if table.middleware else None


def _sent_decision(table: RouteTable, head: RequestHead, roll: float, person: Person) -> Decision | None:
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
            found = [each for each in group.sent_to(head, highest) if person.is_sent(head, each.mapping.via_comment)]
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
