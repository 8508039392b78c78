"""What a decision counts as: the labels of its row, its cells, and whether its variant was drawn."""

from typing import NamedTuple

from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.observability.attempts.arms import ArmCounter, SentArmCounter
from canary_mw.observability.failures import kind_index
from canary_mw.observability.figures.layout import BYTES_IN, ERRORS, FAILURE_0, FALLBACK_0, RETRIES
from canary_mw.observability.figures.values import FALLBACK_RESULTS, RowKey
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
_DRAWN = DRAWS | {"weight"}


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


def is_drawn(assigned: Assigned | None) -> bool:
    """Whether the variant was drawn for the request, by what `assigned_of` gives."""
    return assigned is not None and assigned.reason in _DRAWN


def recorded_for(decision: Decision | None) -> Assigned | None:
    """The draw for which counts what the app records about a request; None where there was none.

    What another canary-mw has drawn and sent here is counted there, but for what the app records.
    """
    if decision is None or not decision.sent:
        assigned = None if decision is None else assigned_of(decision)
        return assigned if is_drawn(assigned) else None
    return decision.release if decision.release is not None and decision.release.digest is not None else None


class Target(NamedTuple):
    """Where the requests of a decision count.

    Attributes:
        row: its cells.
        reason: the cell of its reason, None where nothing was assigned.
        header: the cells of the header of the file.
        arm: counts drawn requests, None where nothing is compared.
        decision: is kept, so that no other one has its identity.
    """

    row: memoryview
    reason: memoryview | None
    header: memoryview
    arm: ArmCounter | SentArmCounter | None
    decision: Decision | None


def add_traffic(row: memoryview, forwarded: UpstreamRequest) -> None:
    """Add the attempts of a request, and its body."""
    if forwarded.attempts > 1:
        retries = forwarded.attempts - 1
        row[RETRIES] += retries
    length = forwarded.body.length if forwarded.body is not None else None
    if length:
        row[BYTES_IN] += length


def add_failure(row: memoryview, failure: str, net: SafetyNet | None) -> None:
    """Add a failure, and what became of it."""
    kind = FAILURE_0 + kind_index(failure)
    row[ERRORS] += 1
    row[kind] += 1
    if net is not None and net.result is not None:
        result = FALLBACK_0 + FALLBACK_RESULTS.index(net.result)
        row[result] += 1
