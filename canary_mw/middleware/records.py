"""Records of requests, for observers that want them."""

from functools import partial
from typing import NamedTuple

from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.forwarding.filters.calls import Asked
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.figures.targets import assigned_of, decision_labels, is_drawn
from canary_mw.routing.decided import Decision
from canary_mw.rules.upstream import Origin


class _Asked(NamedTuple):
    auth: str | None = None
    auth_seconds: float | None = None
    rate_limit: str | None = None
    rate_limit_seconds: float | None = None


_NOBODY = _Asked()
_finished = partial(tuple.__new__, Finished)


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
    bytes_out: int,
) -> Finished:
    """A request that has ended; the arguments are those of `Finished`."""
    assigned = None if decision is None else assigned_of(decision)
    forwarded: UpstreamRequest | None = getattr(head, "forwarded", None)
    about = head.method, _path_of(head), status, seconds, *decision_labels(decision), reason
    by_release = (
        decision is not None and decision.sent,
        None if net is None else net.answered_by,
        None if net is None else net.fallback,
        None if assigned is None else assigned.name,
        is_drawn(assigned),
        None if assigned is None else assigned.digest,
    )
    passage = (
        first_byte,
        head.client,
        None if forwarded is None or forwarded.origin is None else forwarded.origin.endpoint,
        _tries(forwarded, net),
        _request_id(head, forwarded),
        _bytes_in(head, forwarded),
        bytes_out,
    )
    # Without `__new__` of the class, which takes each field by its name.
    return _finished((*about, *by_release, *passage, *_asked(head)))


def relayed_record(
    decision: Decision,
    head: RequestHead,
    status: int,
    seconds: float,
    bytes_out: int,
    origin: Origin,
    request_id: bytes | None,
) -> Finished:
    """A request without a body, sent once, whose whole response has come at once; see `finished_record`."""
    assigned = assigned_of(decision)
    release, key = (None, None) if assigned is None else (assigned.name, assigned.digest)
    sent_id = None if request_id is None else request_id.decode("latin-1")
    about = (head.method, head.path.decode("latin-1"), status, seconds, *decision_labels(decision), None, decision.sent)
    by_release = None, None, release, is_drawn(assigned), key
    passage = seconds, head.client, origin.endpoint, 1, sent_id, 0, bytes_out
    return _finished((*about, *by_release, *passage, *_NOBODY))


def _asked(head: RequestHead) -> _Asked:
    """What services of filters have said, and how long it took."""
    asked: Asked | None = getattr(head, "asked", None)
    if asked is None:
        return _NOBODY
    return _Asked(
        asked.auth,
        None if asked.auth is None else asked.auth_seconds,
        asked.rate_limit,
        None if asked.rate_limit is None else asked.rate_limit_seconds,
    )


def _tries(forwarded: UpstreamRequest | None, net: SafetyNet | None) -> int:
    """The attempts of all requests to upstreams: where gray has failed, the last one is that to stable."""
    tries = 0 if forwarded is None else forwarded.attempts
    if net is not None and net.request is not None and net.request is not forwarded:
        tries += net.request.attempts
    return tries


def _request_id(head: RequestHead, forwarded: UpstreamRequest | None) -> str | None:
    if forwarded is None:
        found = head.header(b"x-request-id")
    else:
        found = next((value for name, value in forwarded.headers if name == b"x-request-id"), None)
    return None if found is None else found.decode("latin-1")


def _bytes_in(head: RequestHead, forwarded: UpstreamRequest | None) -> int | None:
    if forwarded is not None:
        return 0 if forwarded.body is None else forwarded.body.length
    if head.has(b"transfer-encoding"):
        return None
    length = head.header(b"content-length")
    if not length:
        return 0
    return int(length) if length.isdigit() else None


def _path_of(head: RequestHead) -> str:
    sent = head.mount.sent
    return (sent + head.path if sent else head.path).decode("latin-1")
