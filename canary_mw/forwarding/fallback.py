"""The safety net of a gray release: when stable answers in place of a gray variant that fails.

Envoy has no counterpart for weighted clusters. The budget has the shape and the defaults of Finagle's retry budget and
of Gateway API's `retryConstraint`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from canary_mw.exceptions import (
    ClientError,
    UpstreamConnectError,
    UpstreamError,
    UpstreamTimeout,
)
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.http.framing import body_framing
from canary_mw.http.messages import BodyFraming, RequestHead
from canary_mw.routing.decided import Decision
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import STABLE, Fallback, FallbackBudget

# The header that names the failure of gray in an answer of stable, for trusted callers.
FALLBACK_HEADER = b"x-canary-fallback"
# Stable answered, with whatever status; it did not; the budget was used up; the request cannot be repeated.
Result = Literal["ok", "failed", "denied", "refused"]
_SUB_INTERVALS = 10
_DEFAULT_GRAY_TIMEOUT = 1.5


class BudgetWindow:
    """The requests that a release decided, and the fallbacks among them, in the last `interval` seconds.

    It is counted in ten sub-intervals. Times are those of any clock that does not go back.
    """

    __slots__ = ("_fallbacks", "_position", "_requests", "_width")

    def __init__(self, interval: float) -> None:
        self._width = interval / _SUB_INTERVALS
        self._requests = [0] * _SUB_INTERVALS
        self._fallbacks = [0] * _SUB_INTERVALS
        self._position = 0

    def add_request(self, now: float) -> None:
        """Count a request that the release decided."""
        self._advance(now)
        self._requests[self._position % _SUB_INTERVALS] += 1

    def try_fallback(self, budget: FallbackBudget, now: float) -> bool:
        """Count one more fallback if the budget allows it; returns whether it does."""
        self._advance(now)
        allowed = max(budget.min, budget.percent * sum(self._requests) // 100)
        if sum(self._fallbacks) + 1 > allowed:
            return False
        self._fallbacks[self._position % _SUB_INTERVALS] += 1
        return True

    def _advance(self, now: float) -> None:
        position = int(now / self._width)
        for passed in range(max(self._position + 1, position - _SUB_INTERVALS + 1), position + 1):
            self._requests[passed % _SUB_INTERVALS] = self._fallbacks[passed % _SUB_INTERVALS] = 0
        # Threads may read the clock in another order than they count.
        self._position = max(self._position, position)


class Failure(NamedTuple):
    """How gray failed.

    Attributes:
        kind: as in `Fallback.kinds`, or the status.
        counts: whether the settings name it.
        sent: gray may have received the request, in this attempt or in an earlier one.
    """

    kind: str
    counts: bool
    sent: bool


def failure_of_error(settings: Fallback, exc: UpstreamError, *, sent_before: bool) -> Failure:
    """The failure that an error is; `sent_before` says whether an earlier attempt was sent."""
    sent = exc.sent or exc.tried_before or sent_before
    kind = _kind_of_error(exc)
    return Failure(kind, kind in settings.kinds, sent)


def failure_of_status(settings: Fallback, status: int) -> Failure | None:
    """The failure that a status is: one that the settings name, or any other 5xx."""
    counts = status in settings.statuses
    return Failure(str(status), counts, sent=True) if counts or status >= 500 else None


def _kind_of_error(exc: UpstreamError) -> Literal["connect", "timeout", "reset", "overload"]:
    if exc.reason == "overload" or (isinstance(exc, UpstreamTimeout) and exc.in_queue):
        return "overload"
    if isinstance(exc, UpstreamTimeout):
        return "timeout" if exc.sent else "connect"
    return "connect" if isinstance(exc, UpstreamConnectError) and not exc.sent else "reset"


class KeptBody(NamedTuple):
    """What is known of a request body when gray has failed.

    Attributes:
        kept: all that was read of it is kept.
        length: its length in bytes, None where that is not known yet.
    """

    kept: bool = True
    length: int | None = 0


def may_repeat(settings: Fallback, failure: Failure, method: str, body: KeptBody) -> bool:
    """Whether stable may get a request that gray has failed.

    What gray has not received is no repetition, so any method and any body may go to stable.
    """
    if not body.kept:
        return False
    if not failure.sent:
        return True
    return method in settings.methods and body.length is not None and body.length <= settings.body


class StableSide(NamedTuple):
    """Who answers in place of gray.

    Attributes:
        decision: None for the wrapped app without a Mapping.
        app: the app of this process that answers, None for an upstream.
        wrapped: that app is the wrapped one.
    """

    decision: Decision | None
    app: Any = None
    wrapped: bool = False


@dataclass(slots=True)
class SafetyNet:
    """The safety net below one request of a gray variant.

    Attributes:
        release, variant: names, as assigned.
        settings: of the release.
        by_name: the request asks for its variant by name, so that it sees gray in any case.
        find_stable: finds the stable side of the release; None when nobody is there.
        take_budget: takes one fallback from the budget, if there is one left.
        report: is called by `close` where gray has failed.
        body_state: says what of the request body is kept, of a body with this framing.
        request: what gray gets, None before that.
        kind: how gray failed, None when it did not.
        result: what became of it, None when the settings do not name the failure.
        stable: who is asked, None before that.
    """

    release: str
    variant: str
    settings: Fallback
    by_name: bool
    find_stable: Callable[[], StableSide | None]
    take_budget: Callable[[], bool]
    report: "Callable[[SafetyNet], None] | None"
    body_state: Callable[[BodyFraming], KeptBody] = lambda framing: KeptBody(kept=False)
    request: UpstreamRequest | None = None
    kind: str | None = None
    result: Result | None = None
    stable: StableSide | None = None

    @property
    def answered_by(self) -> str | None:
        """ "stable" where it has answered."""
        return STABLE if self.result == "ok" else None

    @property
    def fallback(self) -> str | None:
        """How gray failed, where stable was asked."""
        return None if self.stable is None else self.kind

    @property
    def app(self) -> Any:
        """The app of this process that was asked in place of gray, or None."""
        return None if self.stable is None else self.stable.app

    @property
    def stable_decision(self) -> Decision:
        """The decision of the stable side that was asked, without a shadow: that has its copy already.

        Raises:
            ValueError: the wrapped app answers without a Mapping.
        """
        decision = None if self.stable is None else self.stable.decision
        if decision is None:
            raise ValueError("the wrapped app answers")
        return replace(decision, shadow=None)

    def answering(self, gray: Decision) -> Decision:
        """The decision whose upstream answers, given that of gray."""
        return self.stable.decision or gray if self.stable is not None else gray

    def begin_in_process(self, head: RequestHead) -> None:
        """Begin a request to an app of this process, which gets no limit of time."""
        try:
            framing = body_framing(head.headers_by_name)
        except ClientError:
            # The server has accepted it, and the app reads what it gives.
            framing = BodyFraming(None)
        self.request = UpstreamRequest("", head.method, head.path, [], framing)

    def begin(self, request: UpstreamRequest, mapping: Mapping) -> None:
        """Give the request to gray the time that it has where stable can answer after it.

        A request that cannot be repeated has that time for the connection only: the rest is gray's alone.
        """
        self.request = request
        seconds = 0.0 if self.by_name else _gray_timeout(self.settings, mapping)
        if not seconds:
            return
        if "connect" in self.settings.kinds:
            request.connect_timeout = min(request.connect_timeout, seconds)
        length = request.body.length if request.body else 0
        body_fits = length is None or length <= self.settings.body
        if "timeout" in self.settings.kinds and request.method in self.settings.methods and body_fits:
            request.head_timeout = seconds

    def limit_before_head(self, method: str, mapping: Mapping) -> float | None:
        """Seconds up to the response head that gray has for a request without a body, None for no limit."""
        seconds = 0.0 if self.by_name else _gray_timeout(self.settings, mapping)
        if seconds and "timeout" in self.settings.kinds and method in self.settings.methods:
            return seconds if mapping.timeout is None else min(seconds, mapping.timeout)
        return mapping.timeout

    def ask_stable(self, failure: Failure) -> bool:
        """Report how gray failed; returns whether stable is asked. Its result is "failed" until it has answered."""
        self.kind = failure.kind
        request = self.request
        if self.by_name or not failure.counts or request is None:
            return False
        body = self.body_state(request.body) if request.body and request.body.length != 0 else KeptBody()
        stable = self.find_stable() if may_repeat(self.settings, failure, request.method, body) else None
        if stable is None:
            self.result = "refused"
        elif not self.take_budget():
            self.result = "denied"
        else:
            self.result, self.stable = "failed", stable
        return self.stable is not None

    def ask_about(self, status: int) -> bool:
        """Report the status of gray; returns whether stable is asked."""
        failure = failure_of_status(self.settings, status)
        return failure is not None and self.ask_stable(failure)

    def forget(self) -> None:
        """The client has left before stable was asked."""
        self.kind = self.result = self.stable = None

    def answered(self) -> None:
        """Stable has answered."""
        self.result = "ok"

    def finish_with(self, outcome: Relay | Reply) -> None:
        """Report the outcome of stable's exchange; our own replies of 5xx say that it did not answer."""
        if isinstance(outcome, Relay) or outcome.status < 500:
            self.answered()

    def broke(self) -> None:
        """Report that the body of an answer ended early, after its head was passed on."""
        if self.kind is None:
            self.kind = "reset"
            self.result = "refused" if "reset" in self.settings.kinds and not self.by_name else None

    def close(self) -> None:
        """The request has ended."""
        report, self.report = self.report, None
        if report is not None and self.kind is not None:
            report(self)


def _gray_timeout(settings: Fallback, mapping: Mapping) -> float:
    """Seconds for gray up to its response head, 0 for no limit."""
    if settings.gray_timeout_ms is not None:
        return settings.gray_timeout_ms / 1000
    return _DEFAULT_GRAY_TIMEOUT if mapping.timeout is None else min(_DEFAULT_GRAY_TIMEOUT, mapping.timeout / 2)


def with_fallback_header(outcome: Relay | Reply, kind: str) -> Relay | Reply:
    """An answer of stable that names the failure of gray."""
    target = outcome.head if isinstance(outcome, Relay) else outcome
    target.headers = [*(target.headers or ()), (FALLBACK_HEADER, kind.encode())]
    return outcome
