"""Attempts of a request by a clock that is set by hand."""

from dataclasses import replace

import pytest

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import CircuitBreakers, UpstreamOptions
from canary_mw.upstreams.attempts import Attempts, next_endpoint
from canary_mw.upstreams.circuit_breakers import InFlight

SLACK = 0.25


class FakeResponse:
    """A response, and what was done to it."""

    def __init__(self, status: int = 200) -> None:
        self.head = ResponseHead(status, [])
        self.closed = False
        self.until: float | None = None

    def close(self) -> None:
        self.closed = True

    def move_deadline(self, when: float) -> None:
        self.until = when


class Clock:
    """Returns the time it was set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(*, timeout: float | None = 10.0, limit: float | None = None) -> UpstreamRequest:
    return UpstreamRequest("shop", "GET", b"/", [], timeout=timeout, options=UpstreamOptions(per_try_timeout=limit))


def insistent(request: UpstreamRequest, errors: list[UpstreamError]) -> Exchange:
    """Yields the request until there is a 200."""
    while True:
        try:
            head = yield request
        except UpstreamError as exc:
            errors.append(exc)
        else:
            if head.status == 200:
                return Relay(head)


def attempts_of(
    exchange: Exchange, clock: Clock, shadows: list[UpstreamRequest] | None = None
) -> Attempts[FakeResponse]:
    return Attempts(exchange, clock, SLACK, None if shadows is None else shadows.append)


def test_a_response_that_is_relayed_is_left_open() -> None:
    attempts = attempts_of(insistent(asked(), []), Clock())
    assert attempts.start_attempt() == 110.0
    response = FakeResponse()
    attempts.finish_with_response(response)
    assert attempts.outcome == Relay(response.head)
    assert attempts.response is response
    assert not response.closed


def test_a_retry_closes_the_response_before_it_and_keeps_the_first_deadline() -> None:
    clock = Clock()
    request = asked()
    attempts = attempts_of(insistent(request, []), clock)
    assert not attempts.is_retry
    attempts.start_attempt()
    refused = FakeResponse(503)
    attempts.finish_with_response(refused)
    assert refused.closed
    assert (attempts.outcome, attempts.response, attempts.is_retry) == (None, None, True)
    request.delay = 4.0
    assert attempts.backoff() == 4.0
    clock.now += 7.0
    assert attempts.backoff() == 3.0
    attempts.check_deadline()
    assert attempts.start_attempt() == 110.0


def test_another_request_has_a_deadline_of_its_own() -> None:
    def curious() -> Exchange:
        yield asked(timeout=1.0)
        return Relay((yield asked(timeout=None)))

    attempts = attempts_of(curious(), Clock())
    assert attempts.start_attempt() == 101.0
    attempts.finish_with_response(FakeResponse())
    assert not attempts.is_retry
    assert attempts.start_attempt() == float("inf")


def test_a_reply_without_a_request_ends_the_attempts_at_once() -> None:
    def curt() -> Exchange:
        yield from ()
        return Reply(404)

    assert attempts_of(curt(), Clock()).outcome == Reply(404)


def test_a_response_that_a_reply_replaces_is_closed() -> None:
    def distrustful() -> Exchange:
        yield asked()
        return Reply(502)

    attempts = attempts_of(distrustful(), Clock())
    response = FakeResponse()
    attempts.finish_with_response(response)
    assert response.closed
    assert (attempts.outcome, attempts.response) == (Reply(502), None)


def test_the_limit_of_an_attempt_ends_at_the_head() -> None:
    attempts = attempts_of(insistent(asked(limit=2.0), []), Clock())
    assert attempts.start_attempt() == 102.0
    response = FakeResponse()
    attempts.finish_with_response(response)
    assert response.until == 110.0


@pytest.mark.parametrize(
    ("passed", "deadline_exceeded"),
    [(2.0, False), (2.0 - SLACK, False), (1.5, True)],
    ids=["the limit passed", "a timer was early", "nothing moved for too long"],
)
def test_a_timeout_is_that_of_one_attempt_where_its_limit_has_passed(passed: float, deadline_exceeded: bool) -> None:
    clock, errors = Clock(), list[UpstreamError]()
    attempts = attempts_of(insistent(asked(limit=2.0), errors), clock)
    attempts.start_attempt()
    clock.now += passed
    attempts.finish_with_error(UpstreamTimeout("late"))
    (error,) = errors
    assert isinstance(error, UpstreamTimeout)
    assert error.deadline_exceeded is deadline_exceeded


def test_a_timeout_at_the_deadline_of_all_attempts_is_that_of_all() -> None:
    clock, errors = Clock(), list[UpstreamError]()
    attempts = attempts_of(insistent(asked(timeout=3.0, limit=2.0), errors), clock)
    for _ in range(2):
        attempts.start_attempt()
        clock.now += 2.0
        attempts.finish_with_error(UpstreamTimeout("late"))
    assert [getattr(error, "deadline_exceeded", None) for error in errors] == [False, True]


def test_a_retry_that_comes_too_late_is_not_sent() -> None:
    clock, errors = Clock(), list[UpstreamError]()
    attempts = attempts_of(insistent(asked(timeout=3.0, limit=1.0), errors), clock)
    attempts.start_attempt()
    attempts.finish_with_error(UpstreamConnectError("refused"))
    clock.now += 3.0 - SLACK
    with pytest.raises(UpstreamTimeout, match="shop: no response to any attempt before the deadline") as late:
        attempts.check_deadline()
    attempts.finish_with_error(late.value)
    assert late.value.deadline_exceeded


def test_a_shadow_is_passed_on_once_however_the_first_attempt_ends() -> None:
    shadow = asked()
    for fails in (False, True):
        request, shadows = asked(), list[UpstreamRequest]()
        request.shadow = shadow
        attempts = attempts_of(insistent(request, []), Clock(), shadows)
        if fails:
            attempts.finish_with_error(UpstreamConnectError("refused"))
        attempts.finish_with_response(FakeResponse(503))
        attempts.finish_with_response(FakeResponse())
        assert shadows == [shadow]


def test_a_retry_counts_while_it_is_in_flight() -> None:
    circuit_breakers = CircuitBreakers(max_retries=1)
    in_flight = InFlight()
    request = UpstreamRequest("shop", "GET", b"/", [], options=UpstreamOptions(circuit_breakers=circuit_breakers))
    with attempts_of(insistent(request, []), Clock()).acquire_retry(in_flight):
        assert not in_flight.may_retry("shop", circuit_breakers)
    assert in_flight.may_retry("shop", circuit_breakers)
    with attempts_of(insistent(asked(), []), Clock()).acquire_retry(in_flight):
        assert in_flight.counts == {}


def test_an_overload_is_not_retried_at_another_endpoint() -> None:
    assert next_endpoint(UpstreamOverloaded("full"), asked(), None, []) is None  # type: ignore[arg-type]


def test_a_limit_that_ends_at_the_head_does() -> None:
    request = replace(asked(), timeout_ends_at_head=True)
    attempts = attempts_of(insistent(request, []), Clock())
    assert attempts.start_attempt(b"whole") == 110.0
    response = FakeResponse()
    attempts.finish_with_response(response)
    assert response.until == float("inf")


def test_the_limit_after_a_body_in_chunks_is_for_the_client_to_set() -> None:
    clock = Clock()
    request = replace(asked(limit=2.0), timeout_ends_at_head=True)
    attempts = attempts_of(insistent(request, []), clock)
    assert attempts.start_attempt(iter([b"a", b"b"])) == 102.0
    assert attempts.deadline == float("inf")
    clock.now += 60.0
    attempts.finish_with_response(FakeResponse(503))
    # What was kept of the body is one piece now.
    attempts.check_deadline()
    attempts.start_attempt(b"ab")
    assert attempts.deadline == 170.0
