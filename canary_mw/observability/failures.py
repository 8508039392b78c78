"""What counts as a failure of a request, and by which name."""

from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.observability.figures.values import FAILURE_KINDS

# The client has left, or the server ended the request for it.
_ABORTS = frozenset(("client left", "CancelledError", "ClientDisconnect", "ClientDisconnected", "GeneratorExit"))
# Our own answers for an upstream that did not answer.
_KINDS_OF_REPLIES = {502: "reset", 503: "connect", 504: "timeout"}
# The request has got no attempt: it counts in no arm of a release.
REFUSED = ""
_LOOP = 508


def failure_of(status: int | None, reason: str | None, net: SafetyNet | None) -> str | None:
    """How a request failed after all attempts, None where it did not.

    A failure of gray that stable stepped in for is one. What the client ends is none, nor is a 4xx.

    Args:
        status, reason: as in `Finished`.

    Returns:
        connect, timeout, reset, overload or a status; `REFUSED` for a request that got no attempt.
    """
    if net is not None and net.kind is not None:
        return net.kind
    if reason is None:
        return None if status is None or status < 500 else str(status)
    if reason in _ABORTS:
        return None
    if status is None:
        # An app has failed before it answered.
        return "500"
    if reason[:1].isupper():
        # An error ended the answer early.
        return "reset"
    if status < 500 or status == _LOOP:
        return REFUSED
    return _KINDS_OF_REPLIES.get(status, str(status))


def kind_index(failure: str) -> int:
    """The place of a failure in `FAILURE_KINDS`."""
    return FAILURE_KINDS.index(failure) if failure in FAILURE_KINDS else len(FAILURE_KINDS) - 1
