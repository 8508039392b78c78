"""Where the requests of a decision count, and what is added there beside each request."""

from typing import NamedTuple

from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.observability.attempts.arms import ArmCounter
from canary_mw.observability.failures import kind_index
from canary_mw.observability.figures.layout import BYTES_IN, ERRORS, FAILURE_0, FALLBACK_0, RETRIES
from canary_mw.observability.figures.values import FALLBACK_RESULTS
from canary_mw.routing.decided import Decision


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
    arm: ArmCounter | None
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
