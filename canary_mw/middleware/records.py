"""Records of requests, for observers that want them."""

from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.figures.targets import assigned_of, decision_labels, is_drawn
from canary_mw.routing.decided import Decision


def decided_record(decision: Decision | None, head: RequestHead) -> Decided:
    """A request whose decision is made."""
    sent = decision is not None and decision.sent
    return Decided(head.method, _path_of(head), *decision_labels(decision), sent)


def finished_record(
    decision: Decision | None,
    head: RequestHead,
    status: int | None,
    seconds: float,
    reason: str | None,
    net: SafetyNet | None,
    first_byte: float | None,
) -> Finished:
    """A request that has ended; the arguments are those of `Finished`."""
    assigned = None if decision is None else assigned_of(decision)
    return Finished(
        head.method,
        _path_of(head),
        status,
        seconds,
        *decision_labels(decision),
        reason,
        decision is not None and decision.sent,
        None if net is None else net.answered_by,
        None if net is None else net.fallback,
        None if assigned is None else assigned.name,
        is_drawn(decision),
        None if assigned is None else assigned.digest,
        first_byte,
    )


def _path_of(head: RequestHead) -> str:
    return (head.mount.sent + head.path).decode("latin-1")
