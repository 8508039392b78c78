"""When stable is asked in place of gray: the budget and the table, without I/O."""

import random

import pytest

from canary_mw.client.limits import pool_timeout
from canary_mw.exceptions import (
    UpstreamConnectError,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from canary_mw.forwarding.fallback import (
    BudgetWindow,
    Failure,
    KeptBody,
    SafetyNet,
    StableSide,
    failure_of_error,
    failure_of_status,
    may_repeat,
)
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import BodyFraming
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import Fallback, FallbackBudget
from canary_mw.rules.service import parse_service
from canary_mw.rules.upstream import Origin

ALL = Fallback()


def decided(window: BudgetWindow, number: int, now: float = 0.0) -> None:
    """Count so many requests."""
    for _ in range(number):
        window.add_request(now)


def taken(window: BudgetWindow, budget: FallbackBudget, now: float = 0.0) -> int:
    """How many fallbacks are allowed until the first that is not."""
    number = 0
    while window.try_fallback(budget, now):
        number += 1
    return number


@pytest.mark.parametrize(
    ("requests", "percent", "minimum", "allowed"),
    [
        (0, 20, 10, 10),
        (1, 20, 0, 0),
        (4, 20, 0, 0),
        (5, 20, 0, 1),
        (99, 20, 10, 19),
        (100, 20, 10, 20),
        (100, 100, 0, 100),
        (49, 20, 10, 10),
        (7, 0, 0, 0),
    ],
)
def test_a_budget_is_a_share_of_all_requests_or_its_minimum(
    requests: int, percent: int, minimum: int, allowed: int
) -> None:
    window = BudgetWindow(10)
    decided(window, requests)

    assert taken(window, FallbackBudget(percent, minimum)) == allowed


def test_a_budget_counts_the_last_interval_only() -> None:
    window, budget = BudgetWindow(10), FallbackBudget(50, 0)
    decided(window, 10, now=100.0)
    assert taken(window, budget, now=100.5) == 5
    decided(window, 10, now=105.0)
    assert taken(window, budget, now=109.9) == 5
    # What was counted at 100 is over: ten requests are left, and the five fallbacks for them.
    assert taken(window, budget, now=110.1) == 0
    decided(window, 2, now=110.1)
    assert taken(window, budget, now=110.1) == 1
    assert taken(window, budget, now=1e6) == 0


def test_a_clock_that_threads_read_in_another_order_takes_nothing_back() -> None:
    window = BudgetWindow(10)
    decided(window, 10, now=50.0)
    decided(window, 10, now=48.0)

    assert taken(window, FallbackBudget(50, 0), now=50.0) == 10


def test_a_budget_is_as_exact_as_ten_parts_of_its_interval_allow() -> None:
    rng = random.Random(7)
    for _ in range(40):
        interval = rng.choice((1, 10, 60))
        window, times, asked, now = BudgetWindow(interval), [], [], 0.0
        for _ in range(300):
            now += rng.expovariate(40 / interval)
            window.add_request(now)
            times.append(now)
            if rng.random() < 0.6 and window.try_fallback(FallbackBudget(20, 3), now):
                asked.append(now)
                requests = sum(each >= now - interval for each in times)
                assert sum(each > now - interval * 0.9 for each in asked) <= max(3, 20 * requests // 100)


CONNECT = UpstreamConnectError("refused")
LOST = UpstreamConnectError("lost", sent=True)
RESET = UpstreamProtocolError("malformed", sent=True)
LATE = UpstreamTimeout("late", sent=True)
LATE_UNSENT = UpstreamTimeout("no connection in time")
FULL = UpstreamOverloaded("full")


@pytest.mark.parametrize(
    ("error", "kind", "sent"),
    [
        (CONNECT, "connect", False),
        (LATE_UNSENT, "connect", False),
        (FULL, "overload", False),
        (pool_timeout(Origin("http", "gray", 80)), "overload", False),
        (LOST, "reset", True),
        (RESET, "reset", True),
        (LATE, "timeout", True),
    ],
)
def test_an_error_is_a_kind_of_failure(error: UpstreamError, kind: str, sent: bool) -> None:
    assert failure_of_error(ALL, error, sent_before=False) == Failure(kind, True, sent)
    assert failure_of_error(ALL, error, sent_before=True) == Failure(kind, True, True)
    others = Fallback(kinds=ALL.kinds - {kind})
    assert not failure_of_error(others, error, sent_before=False).counts


def test_an_error_after_a_try_that_was_sent_counts_as_sent() -> None:
    error = UpstreamConnectError("refused")
    error.tried_before = True

    assert failure_of_error(ALL, error, sent_before=False).sent


def test_a_status_is_a_failure_where_it_is_named_or_a_5xx() -> None:
    assert failure_of_status(ALL, 503) == Failure("503", True, True)
    assert failure_of_status(ALL, 500) == Failure("500", False, True)
    assert failure_of_status(ALL, 404) is failure_of_status(ALL, 200) is None
    assert failure_of_status(Fallback(statuses=frozenset((429,))), 429) == Failure("429", True, True)


@pytest.mark.parametrize(
    ("sent", "method", "body", "allowed"),
    [
        (False, "POST", KeptBody(), True),
        (False, "POST", KeptBody(length=10**9), True),
        (False, "POST", KeptBody(length=None), True),
        (False, "GET", KeptBody(kept=False), False),
        (True, "GET", KeptBody(), True),
        (True, "GET", KeptBody(length=1), False),
        (True, "POST", KeptBody(), False),
        (True, "PUT", KeptBody(length=100), True),
        (True, "PUT", KeptBody(length=101), False),
        (True, "PUT", KeptBody(length=None), False),
        (True, "PUT", KeptBody(kept=False, length=1), False),
    ],
)
def test_what_gray_may_have_got_is_repeated_only_where_that_is_safe(
    sent: bool, method: str, body: KeptBody, allowed: bool
) -> None:
    settings = Fallback(methods=frozenset(("GET", "PUT")), body=100 if method == "PUT" else 0)

    assert may_repeat(settings, Failure("503", True, sent), method, body) is allowed


def net(settings: Fallback = ALL, *, by_name: bool = False, stable: bool = True, budget: bool = True) -> SafetyNet:
    """A net below a request."""
    side = StableSide(None, app=object(), wrapped=True) if stable else None
    return SafetyNet("r", "v2", settings, by_name, lambda: side, lambda: budget, None)


def begun(
    under: SafetyNet, method: str = "GET", body: BodyFraming | None = None, timeout_ms: int = 3000
) -> UpstreamRequest:
    """The request to gray, once the net has it."""
    mapping = Mapping(name="gray", prefix="/", service=parse_service("gray", "default")[0], timeout_ms=timeout_ms)
    request = UpstreamRequest("gray", method, b"/", [], body, connect_timeout=3.0)
    under.begin(request, mapping)
    return request


REFUSED, FAILED = Failure("connect", True, False), Failure("503", True, True)


@pytest.mark.parametrize(
    ("under", "failure", "result"),
    [
        (net(), FAILED, "failed"),
        (net(budget=False), FAILED, "denied"),
        (net(stable=False), FAILED, "refused"),
        (net(by_name=True), FAILED, None),
        (net(), Failure("500", False, True), None),
    ],
)
def test_a_net_says_what_became_of_a_failure(under: SafetyNet, failure: Failure, result: str | None) -> None:
    begun(under)

    assert under.ask_stable(failure) == (result == "failed")
    assert (under.kind, under.result) == (failure.kind, result)
    assert under.fallback == (failure.kind if result == "failed" else None)
    assert under.answered_by is None
    if result == "failed":
        under.answered()
        assert under.answered_by == "stable"


def test_a_refused_fallback_takes_nothing_from_the_budget() -> None:
    window = BudgetWindow(10)
    decided(window, 1)
    under = SafetyNet("r", "v2", ALL, False, lambda: None, lambda: taken(window, FallbackBudget(100, 0)) == 1, None)
    begun(under, "POST")

    assert not under.ask_stable(FAILED)
    assert under.result == "refused"
    assert taken(window, FallbackBudget(100, 0)) == 1


@pytest.mark.parametrize(
    ("settings", "timeout_ms", "seconds"),
    [
        (ALL, 3000, 1.5),
        (ALL, 1000, 0.5),
        (ALL, 0, 1.5),
        (ALL, 60000, 1.5),
        (Fallback(gray_timeout_ms=4000), 1000, 4.0),
        (Fallback(gray_timeout_ms=0), 1000, None),
    ],
)
def test_gray_has_a_time_of_its_own_up_to_its_head(settings: Fallback, timeout_ms: int, seconds: float | None) -> None:
    assert begun(net(settings), timeout_ms=timeout_ms).head_timeout == seconds


def test_a_request_that_is_not_repeated_has_that_time_for_the_connection_only() -> None:
    request = begun(net(), "POST")
    assert (request.head_timeout, request.connect_timeout) == (None, 1.5)
    request = begun(net(), "GET", BodyFraming(5))
    assert (request.head_timeout, request.connect_timeout) == (None, 1.5)
    request = begun(net(by_name=True))
    assert (request.head_timeout, request.connect_timeout) == (None, 3.0)
    request = begun(net(Fallback(kinds=frozenset(("reset",)))))
    assert (request.head_timeout, request.connect_timeout) == (None, 3.0)


def test_a_body_that_breaks_is_a_reset_unless_gray_had_failed_already() -> None:
    under = net()
    under.broke()
    assert (under.kind, under.result) == ("reset", "refused")
    under = net(by_name=True)
    under.broke()
    assert (under.kind, under.result) == ("reset", None)
    under = net()
    begun(under)
    under.ask_stable(FAILED)
    under.broke()
    assert (under.kind, under.result) == ("503", "failed")


def test_a_net_reports_a_failure_once() -> None:
    reports: list[SafetyNet] = []
    under = SafetyNet("r", "v2", ALL, False, lambda: None, lambda: True, reports.append)
    under.broke()
    under.close()
    under.close()
    quiet = SafetyNet("r", "v2", ALL, False, lambda: None, lambda: True, reports.append)
    quiet.close()

    assert reports == [under]
