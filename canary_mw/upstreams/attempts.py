"""What is decided between the attempts of a request: when a retry is sent, its deadline, and what an error means."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.observability.upstream_errors import UpstreamErrors
from canary_mw.rules.upstream import Origin

if TYPE_CHECKING:
    from canary_mw.upstreams.circuit_breakers import InFlight
    from canary_mw.upstreams.endpoints import EndpointSet
    from canary_mw.upstreams.lease import Lease


class AnyResponse(Protocol):
    """A response whose head has arrived; see `UpstreamResponse`."""

    @property
    def head(self) -> ResponseHead: ...

    def close(self) -> None: ...

    def move_deadline(self, when: float) -> None: ...


R = TypeVar("R", bound=AnyResponse)
T = TypeVar("T")


class Attempts(Generic[R]):
    """Drives an exchange to its outcome: while that is None, send `request` and report the response or the error.

    A request that the exchange yields again is a retry: its deadline is that of the first attempt.

    Args:
        exchange: see `forwarding.exchange`.
        now: the clock of the deadlines.
        slack: seconds by which timers of that clock may fire early.
        on_shadow: is called with the shadow of a request once the first attempt has a response, or has failed.

    Attributes:
        request: the request to send, or the one sent last.
        is_retry: whether `request` is a retry.
        deadline: of all attempts of the request.
        outcome: what the client gets, None until it is known.
        response: the response whose body is relayed, with a `Relay`.
    """

    __slots__ = (
        "_attempt_deadline",
        "_exchange",
        "_head_deadline",
        "_now",
        "_on_shadow",
        "_sent_request",
        "_slack",
        "deadline",
        "is_retry",
        "outcome",
        "request",
        "response",
    )

    request: UpstreamRequest

    def __init__(
        self,
        exchange: Exchange,
        now: Callable[[], float],
        slack: float,
        on_shadow: Callable[[UpstreamRequest], None] | None,
    ) -> None:
        self._exchange = exchange
        self._now = now
        self._slack = slack
        self._on_shadow = on_shadow
        self._sent_request: UpstreamRequest | None = None
        self.deadline = self._attempt_deadline = self._head_deadline = math.inf
        self.is_retry = False
        self.outcome: Relay | Reply | None = None
        self.response: R | None = None
        try:
            self.request = next(exchange)
        except StopIteration as stop:
            self.outcome = stop.value

    def backoff(self) -> float:
        """Seconds to wait before a retry."""
        return min(self.request.delay, max(self._last_deadline() - self._now(), 0.0))

    def check_deadline(self) -> None:
        """Raise UpstreamTimeout if it is too late for a retry."""
        last = self._last_deadline()
        if self._now() >= last - self._slack:
            self._attempt_deadline = last
            text = f"{self.request.service}: no response to any attempt before the deadline"
            error = UpstreamTimeout(text, sent=True)
            error.attempted = False
            raise error

    def acquire_retry(self, in_flight: "InFlight") -> AbstractContextManager[object]:
        """A context manager that counts a retry while it is in flight."""
        circuit_breakers = self.request.options.circuit_breakers
        if circuit_breakers is None:
            return nullcontext()
        return in_flight.acquire_retry(self.request.service, circuit_breakers)

    def start_attempt(self, body: object = None) -> float:
        """Start an attempt; returns its deadline. As in Envoy, `per_try_timeout` ends with the response head.

        Args:
            body: of the request. With `timeout_ends_at_head`, the client sets the limit of one that comes in chunks:
                it alone knows when the last one is sent.
        """
        request = self.request
        if not self.is_retry:
            self._sent_request = request
            self.deadline = self._head_deadline = math.inf
            if request.head_timeout is not None:
                self._head_deadline = self._now() + request.head_timeout
        if self.deadline == math.inf and request.timeout is not None and request.timeout_after(body) is None:
            self.deadline = self._now() + request.timeout
        limit = request.options.per_try_timeout
        last = self._last_deadline()
        self._attempt_deadline = last if limit is None else min(last, self._now() + limit)
        return self._attempt_deadline

    def finish_with_response(self, response: R) -> None:
        """Report the response to an attempt; it is closed unless its body is relayed."""
        self.response = response
        request = self.request
        if request.timeout_ends_at_head:
            response.move_deadline(math.inf)
        elif request.options.per_try_timeout is not None or request.head_timeout is not None:
            response.move_deadline(self.deadline)
        if request.shadow is not None:
            _pass_on_shadow(request, self._on_shadow)
        try:
            self._continue_with(self._exchange.send(response.head))
        except StopIteration as stop:
            self.outcome = stop.value
        if not isinstance(self.outcome, Relay):
            self.close()

    def finish_with_error(self, error: UpstreamError) -> None:
        """Report that an attempt has no response."""
        request = self.request
        if isinstance(error, UpstreamTimeout) and request.options.per_try_timeout is not None:
            # Set unless it was the limit of this attempt: also for an idle timeout, which comes before that limit.
            limit = self._attempt_deadline
            error.deadline_exceeded = limit == self._last_deadline() or self._now() < limit - self._slack
        if request.shadow is not None:
            _pass_on_shadow(request, self._on_shadow)
        try:
            self._continue_with(self._exchange.throw(error))
        except StopIteration as stop:
            self.outcome = stop.value

    def close(self) -> None:
        """Close the response, if there is one."""
        if self.response is not None:
            self.response.close()
            self.response = None

    def _last_deadline(self) -> float:
        """That of the response head, for all attempts."""
        return min(self.deadline, self._head_deadline)

    def _continue_with(self, request: UpstreamRequest) -> None:
        self.request = request
        self.is_retry = request is self._sent_request


async def try_endpoints(
    endpoints: "EndpointSet",
    request: UpstreamRequest,
    deadline: float,
    attempt: "Callable[[Lease], Awaitable[T]]",
    errors: UpstreamErrors,
) -> T:
    """Make an attempt at the endpoint that load balancing picks, and after a failed connection at another.

    Another gets it only where that is safe; see `next_endpoint`. So a rolling restart of the endpoints loses no
    request. No attempt starts after the connect timeout. The caller reports the error that it gets to `errors`.
    """
    loop = asyncio.get_running_loop()
    connect_deadline = loop.time() + request.connect_timeout
    lease = await endpoints.lease(request.hash_key, deadline, request.connect_timeout)
    tried: list[Origin] = []
    sent = False
    while True:
        tried.append(lease.origin)
        request.sent_to(lease.origin)
        try:
            with lease:
                return await attempt(lease)
        except UpstreamError as exc:
            sent = exc.tried_before = sent or exc.sent or exc.tried_before
            other = next_endpoint(exc, request, endpoints, tried) if loop.time() < connect_deadline else None
            if other is None:
                raise
            errors.failed(request.service, request.mapping, exc, retried=True)
            lease = other


def next_endpoint(
    exc: UpstreamError, request: UpstreamRequest, endpoints: "EndpointSet", tried: list[Origin]
) -> "Lease | None":
    """Another endpoint for a request after a failed connection, None if no other may get it, or for another error.

    Another may if nothing of the request was sent. If some was, another may once, and only if it is replayable.
    """
    if not isinstance(exc, UpstreamConnectError) or isinstance(exc, UpstreamOverloaded):
        return None
    if exc.sent and not (request.replayable and len(tried) == 1):
        return None
    return endpoints.next_untried(tried)


def _pass_on_shadow(request: UpstreamRequest, on_shadow: Callable[[UpstreamRequest], None] | None) -> None:
    """Pass on the shadow of a request, once."""
    shadow, request.shadow = request.shadow, None
    if shadow is not None and on_shadow is not None:
        on_shadow(shadow)
