"""Attempts of a request by a clock that is set by hand."""

import pytest

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import CircuitBreakers, UpstreamOptions
from canary_mw.upstreams.attempts import Attempts, next_endpoint
from canary_mw.upstreams.circuit_breakers import InFlight

SLACK = 0.25


class Answer:
    """An answer, and what was done to it."""

    def __init__(self, status: int = 200) -> None:
        self.head = ResponseHead(status, [])
        self.closed = False
        self.until: float | None = None

    def close(self) -> None:
        self.closed = True

    def move_deadline(self, when: float) -> None:
        self.until = when


class Clock:
    """Says what it was set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def asked(*, timeout: float | None = 10.0, limit: float | None = None) -> UpstreamRequest:
    return UpstreamRequest("shop", "GET", b"/", [], timeout=timeout, options=UpstreamOptions(try_timeout=limit))


def insistent(request: UpstreamRequest, errors: list[UpstreamError]) -> Exchange:
    """Ask until there is a 200."""
    while True:
        try:
            head = yield request
        except UpstreamError as exc:
            errors.append(exc)
        else:
            if head.status == 200:
                return Relay(head)


def tries_of(conversation: Exchange, clock: Clock, shadows: list[UpstreamRequest] | None = None) -> Attempts[Answer]:
    return Attempts(conversation, clock, SLACK, None if shadows is None else shadows.append)


def test_an_answer_that_is_relayed_is_left_open() -> None:
    tries = tries_of(insistent(asked(), []), Clock())
    assert tries.begin() == 110.0
    answer = Answer()
    tries.finish_with_response(answer)
    assert tries.outcome == Relay(answer.head)
    assert tries.response is answer
    assert not answer.closed


def test_a_retry_closes_the_answer_before_it_and_keeps_the_first_deadline() -> None:
    clock = Clock()
    request = asked()
    tries = tries_of(insistent(request, []), clock)
    assert not tries.is_retry
    tries.begin()
    refused = Answer(503)
    tries.finish_with_response(refused)
    assert refused.closed
    assert (tries.outcome, tries.response, tries.is_retry) == (None, None, True)
    request.delay = 4.0
    assert tries.backoff() == 4.0
    clock.now += 7.0
    assert tries.backoff() == 3.0
    tries.check()
    assert tries.begin() == 110.0


def test_another_request_has_a_deadline_of_its_own() -> None:
    def curious() -> Exchange:
        yield asked(timeout=1.0)
        return Relay((yield asked(timeout=None)))

    tries = tries_of(curious(), Clock())
    assert tries.begin() == 101.0
    tries.finish_with_response(Answer())
    assert not tries.is_retry
    assert tries.begin() == float("inf")


def test_a_reply_without_a_request_ends_the_tries_at_once() -> None:
    def curt() -> Exchange:
        yield from ()
        return Reply(404)

    assert tries_of(curt(), Clock()).outcome == Reply(404)


def test_an_answer_in_whose_place_a_reply_goes_out_is_closed() -> None:
    def distrustful() -> Exchange:
        yield asked()
        return Reply(502)

    tries = tries_of(distrustful(), Clock())
    answer = Answer()
    tries.finish_with_response(answer)
    assert answer.closed
    assert (tries.outcome, tries.response) == (Reply(502), None)


def test_the_limit_of_a_try_ends_at_the_head() -> None:
    tries = tries_of(insistent(asked(limit=2.0), []), Clock())
    assert tries.begin() == 102.0
    answer = Answer()
    tries.finish_with_response(answer)
    assert answer.until == 110.0


@pytest.mark.parametrize(
    ("passed", "whole"),
    [(2.0, False), (2.0 - SLACK, False), (1.5, True)],
    ids=["the limit passed", "a timer was early", "nothing moved for too long"],
)
def test_a_timeout_is_that_of_one_try_where_its_limit_has_passed(passed: float, whole: bool) -> None:
    clock, errors = Clock(), list[UpstreamError]()
    tries = tries_of(insistent(asked(limit=2.0), errors), clock)
    tries.begin()
    clock.now += passed
    tries.finish_with_error(UpstreamTimeout("late"))
    (error,) = errors
    assert isinstance(error, UpstreamTimeout)
    assert error.whole is whole


def test_a_timeout_at_the_deadline_of_all_tries_is_that_of_all() -> None:
    clock, errors = Clock(), list[UpstreamError]()
    tries = tries_of(insistent(asked(timeout=3.0, limit=2.0), errors), clock)
    for _ in range(2):
        tries.begin()
        clock.now += 2.0
        tries.finish_with_error(UpstreamTimeout("late"))
    assert [getattr(error, "whole", None) for error in errors] == [False, True]


def test_a_retry_that_comes_too_late_is_not_sent() -> None:
    clock, errors = Clock(), list[UpstreamError]()
    tries = tries_of(insistent(asked(timeout=3.0, limit=1.0), errors), clock)
    tries.begin()
    tries.finish_with_error(UpstreamConnectError("refused"))
    clock.now += 3.0 - SLACK
    with pytest.raises(UpstreamTimeout, match="shop: no answer to any try before the deadline") as late:
        tries.check()
    tries.finish_with_error(late.value)
    assert late.value.whole


def test_a_shadow_is_handed_over_once_however_the_first_try_ends() -> None:
    shadow = asked()
    for fails in (False, True):
        request, shadows = asked(), list[UpstreamRequest]()
        request.shadow = shadow
        tries = tries_of(insistent(request, []), Clock(), shadows)
        if fails:
            tries.finish_with_error(UpstreamConnectError("refused"))
        tries.finish_with_response(Answer(503))
        tries.finish_with_response(Answer())
        assert shadows == [shadow]


def test_a_retry_counts_while_it_is_under_way() -> None:
    breakers = CircuitBreakers(max_retries=1)
    loads = InFlight()
    request = UpstreamRequest("shop", "GET", b"/", [], options=UpstreamOptions(circuit_breakers=breakers))
    with tries_of(insistent(request, []), Clock()).acquire(loads):
        assert not loads.may_retry("shop", breakers)
    assert loads.may_retry("shop", breakers)
    with tries_of(insistent(asked(), []), Clock()).acquire(loads):
        assert loads.counts == {}


def test_an_overload_is_not_taken_elsewhere() -> None:
    assert next_endpoint(UpstreamOverloaded("full"), asked(), None, []) is None  # type: ignore[arg-type]
