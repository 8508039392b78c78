"""What a decision counts as: the labels of its row, and whether its variant was drawn."""

from typing import NamedTuple

from canary_mw.observability.figures.values import RowKey
from canary_mw.routing.assignment import DRAWS, Assigned
from canary_mw.routing.decided import Decision
from canary_mw.routing.governed import APP
from canary_mw.rules.release import STABLE


class Labels(NamedTuple):
    """What a request counts as.

    Attributes:
        assigned: what its release has decided, or the draw of its group; None where figures of a release have nothing
            of it. What another canary-mw has sent here was counted there.
        reason: why, "" without `assigned`.
    """

    row: RowKey
    assigned: Assigned | None = None
    reason: str = ""


_NOBODY = Labels(RowKey())


DecisionLabels = tuple[str | None, str | None, str | None]


def decision_labels(decision: Decision | None) -> DecisionLabels:
    """Mapping, service and variant of a decision, as in `Decided` and `Finished`."""
    if decision is None:
        return None, None, None
    if decision.mapping is APP:
        return None, None, decision.variant
    return decision.mapping.name, decision.mapping.service.text, decision.variant


def labels_of(decision: Decision | None) -> Labels:
    """What a decision counts as."""
    if decision is None:
        return _NOBODY
    mapping, service = "", ""
    if decision.mapping is not APP:
        mapping, service = decision.mapping.name, decision.mapping.service.text
    assigned = assigned_of(decision)
    if assigned is None:
        return Labels(RowKey("", mapping, service, decision.variant))
    drawn = assigned.reason in DRAWS or decision.release is None
    row = RowKey(assigned.name, mapping, service, assigned.variant or STABLE, drawn)
    return Labels(row, assigned, assigned.reason)


def assigned_of(decision: Decision) -> Assigned | None:
    """What the release of a decision, or the draw of its group, has decided; None for what was decided elsewhere."""
    return None if decision.sent else decision.release or decision.split


def is_drawn(decision: Decision | None) -> bool:
    """Whether the variant was drawn for the request."""
    assigned = None if decision is None else assigned_of(decision)
    return assigned is not None and (assigned.reason in DRAWS or assigned.reason == "weight")
