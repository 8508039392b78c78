"""What is decided between the tries of a request, for whoever sends them: when, how long, and what an error means."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import Origin

if TYPE_CHECKING:
    from canary_mw.upstreams.circuit_breakers import InFlight
    from canary_mw.upstreams.endpoints import EndpointSet, Lease


class AnyResponse(Protocol):
    """An answer whose head is there; see `UpstreamResponse`."""

    @property
    def head(self) -> ResponseHead: ...

    def close(self) -> None: ...

    def move_deadline(self, when: float) -> None: ...


R = TypeVar("R", bound=AnyResponse)


class Attempts(Generic[R]):
    """A conversation on its way to its outcome: until it is there, send `request`, and tell what came of it.

    A request that is yielded again is a retry: its deadline is that of the first try.

    Args:
        conversation: see `exchange`.
        now: the sender's clock.
        slack: seconds by which its timers may be early.
        handed_over: is given the shadow of a request once its first try has an answer, or has failed.

    Attributes:
        request: what is to be sent, or was sent last.
        is_retry: it is a retry.
        deadline: of all tries of the request.
        outcome: what the client gets, None until it is there.
        response: the answer whose body is to be relayed, with a `Relay`.
    """

    __slots__ = (
        "_asked",
        "_exchange",
        "_now",
        "_on_shadow",
        "_slack",
        "_until",
        "deadline",
        "is_retry",
        "outcome",
        "request",
        "response",
    )

    request: UpstreamRequest

    def __init__(
        self,
        conversation: Exchange,
        now: Callable[[], float],
        slack: float,
        handed_over: Callable[[UpstreamRequest], None] | None,
    ) -> None:
        self._exchange = conversation
        self._now = now
        self._slack = slack
        self._on_shadow = handed_over
        self._asked: UpstreamRequest | None = None
        self.deadline = self._until = math.inf
        self.is_retry = False
        self.outcome: Relay | Reply | None = None
        self.response: R | None = None
        try:
            self.request = next(conversation)
        except StopIteration as stop:
            self.outcome = stop.value

    def backoff(self) -> float:
        """Seconds to wait before a retry."""
        return min(self.request.delay, max(self.deadline - self._now(), 0.0))

    def check(self) -> None:
        """Raise UpstreamTimeout when it is too late for a retry."""
        if self._now() >= self.deadline - self._slack:
            self._until = self.deadline
            raise UpstreamTimeout(f"{self.request.service}: no answer to any try before the deadline", sent=True)

    def acquire(self, loads: "InFlight") -> AbstractContextManager[object]:
        """What a retry holds while it is under way."""
        breakers = self.request.options.circuit_breakers
        return nullcontext() if breakers is None else loads.acquire_retry(self.request.service, breakers)

    def begin(self) -> float:
        """A try goes out; when it ends: the limit of a try ends at the head, as Envoy's `per_try_timeout` does."""
        request = self.request
        if not self.is_retry:
            self._asked = request
            self.deadline = math.inf if request.timeout is None else self._now() + request.timeout
        limit = request.options.try_timeout
        self._until = self.deadline if limit is None else min(self.deadline, self._now() + limit)
        return self._until

    def finish_with_response(self, response: R) -> None:
        """The head of an answer is there; what is not relayed of it is closed."""
        self.response = response
        request = self.request
        if request.options.try_timeout is not None:
            response.move_deadline(self.deadline)
        if request.shadow is not None:
            hand_on_shadow(request, self._on_shadow)
        try:
            self._go_on(self._exchange.send(response.head))
        except StopIteration as stop:
            self.outcome = stop.value
        if not isinstance(self.outcome, Relay):
            self.close()

    def finish_with_error(self, error: UpstreamError) -> None:
        """There is no answer."""
        if isinstance(error, UpstreamTimeout) and self.request.options.try_timeout is not None:
            # Neither where the deadline of all tries passed, nor where nothing moved for too long.
            error.whole = self._until == self.deadline or self._now() < self._until - self._slack
        if self.request.shadow is not None:
            hand_on_shadow(self.request, self._on_shadow)
        try:
            self._go_on(self._exchange.throw(error))
        except StopIteration as stop:
            self.outcome = stop.value

    def close(self) -> None:
        """Done with the answer, if there is one."""
        if self.response is not None:
            self.response.close()
            self.response = None

    def _go_on(self, request: UpstreamRequest) -> None:
        self.request = request
        self.is_retry = request is self._asked


def next_endpoint(
    exc: UpstreamConnectError, request: UpstreamRequest, endpoints: "EndpointSet", tried: list[Origin]
) -> "Lease | None":
    """Another endpoint for a request that one could not be sent to, None where no other is to get it.

    One may where nothing of the request was sent, or where it may be sent twice, and is that once.
    """
    if isinstance(exc, UpstreamOverloaded) or (exc.sent and not (request.replayable and len(tried) == 1)):
        return None
    return endpoints.next_untried(tried)


def hand_on_shadow(request: UpstreamRequest, handed_over: Callable[[UpstreamRequest], None] | None) -> None:
    """Give the shadow of a request to who sends it, once."""
    shadow, request.shadow = request.shadow, None
    if shadow is not None and handed_over is not None:
        handed_over(shadow)
