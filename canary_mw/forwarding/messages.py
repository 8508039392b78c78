"""What an exchange yields and returns: a request to send, a response to relay, a reply of the proxy."""

from dataclasses import dataclass
from typing import Protocol

from canary_mw.exceptions import UpstreamError
from canary_mw.http.messages import BodyFraming, ResponseHead
from canary_mw.rules.upstream import DEFAULT_OPTIONS, Origin, UpstreamOptions

# Marks a request of httpx that is forwarded: its headers are settled.
FORWARDED = "canary_mw.forwarded"


class Tries(Protocol):
    """The attempts at one upstream, each one a client span."""

    def begin(self, request: "UpstreamRequest", origin: Origin) -> None:
        """An attempt begins: its headers get the context of its span. One that is under way has failed."""

    def answered(self, status: int, verdict: str | None = None) -> None:
        """The head of a response has arrived; `verdict` is what a service has said."""

    def failed(self, error: UpstreamError) -> None:
        """There is no response."""


@dataclass(slots=True)
class UpstreamRequest:
    """One request to an upstream.

    Attributes:
        service: normalised service text of the Mapping; it selects the transport.
        mapping: name of the Mapping, for the log.
        target: request target in origin form, sent unchanged.
        headers: all headers, `host` first, without `content-length` and `transfer-encoding`, which follow from `body`.
        body: framing of the body, None when the request has no body.
        timeout: seconds for the whole exchange with all attempts, None for no limit.
        timeout_ends_at_head: the time counts from the last byte of the request body, and ends with the response head.
        connect_timeout: seconds for one connection attempt, infinite for no limit.
        replayable: it may be sent again when no part of a response was received (idempotent and without a body).
        options: limits, timeouts, TLS and endpoint options of the upstream.
        hash_key: chooses the endpoint where the load balancer hashes (`hash_policy.hash_key`), else None.
        delay: seconds to wait before sending; not 0 for retries only.
        shadow: a copy for another service, sent once this request is sent; its response is discarded.
        head_timeout: seconds for all attempts up to the response head, None for no limit besides `timeout`.
        attempts: how often it was sent.
        origin: where it was sent last, None before.
        trace: is told of its attempts, None where it is not traced.
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
    timeout_ends_at_head: bool = False
    hash_key: int | None = None
    delay: float = 0.0
    shadow: "UpstreamRequest | None" = None
    mapping: str = ""
    head_timeout: float | None = None
    attempts: int = 0
    origin: Origin | None = None
    trace: Tries | None = None

    def sent_to(self, origin: Origin) -> None:
        """An attempt begins."""
        self.attempts += 1
        self.origin = origin
        if self.trace is not None:
            self.trace.begin(self, origin)

    def timeout_after(self, body: object) -> float | None:
        """Seconds from the last byte of a body that comes in chunks to the response head; None for other bodies."""
        return self.timeout if self.timeout_ends_at_head and not isinstance(body, bytes | None) else None


@dataclass(slots=True)
class Relay:
    """Relay the upstream's response: this head, then the body as it arrives."""

    head: ResponseHead


@dataclass(slots=True)
class Reply:
    """A response made by the proxy itself."""

    status: int
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] | None = None
