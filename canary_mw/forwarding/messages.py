"""What a conversation yields and returns: a request to send, an answer to relay, one of ours."""

from dataclasses import dataclass

from canary_mw.http.messages import BodyFraming, ResponseHead
from canary_mw.rules.upstream import DEFAULT_OPTIONS, UpstreamOptions


@dataclass(slots=True)
class UpstreamRequest:
    """One request to send, freshly framed.

    Attributes:
        service: normalised service text of the Mapping; the transport is chosen by it.
        target: origin-form bytes, sent as they are.
        headers: all to send, `host` first, without `content-length` and `transfer-encoding`: those follow from `body`.
        body: None when the request has none.
        timeout: seconds for the whole exchange, all tries together, None for no limit.
        connect_timeout: seconds for one connection attempt, infinite for no limit.
        replayable: may be sent again when nothing of an answer was seen (idempotent and without a body).
        options: limits of the way.
        key: what chooses the endpoint, where a hash of the request does (`balancers.hash_key`).
        delay: seconds to wait before it is sent, for a try that is not the first.
        shadow: a copy for another service, to go out when this one was handed over; its answer is nobody's.
    """

    service: str
    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: BodyFraming | None = None
    timeout: float | None = 3.0
    connect_timeout: float = 3.0
    replayable: bool = False
    options: UpstreamOptions = DEFAULT_OPTIONS
    key: int | None = None
    delay: float = 0.0
    shadow: "UpstreamRequest | None" = None


@dataclass(slots=True)
class Relay:
    """The upstream's answer goes to the client under this head, its body as it comes."""

    head: ResponseHead


@dataclass(slots=True)
class Reply:
    """An answer of our own."""

    status: int
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] | None = None
