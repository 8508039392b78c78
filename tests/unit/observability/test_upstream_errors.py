"""The counts and the memory of failures, with a clock of their own."""

import logging
import threading

import pytest
import rules

from canary_mw.exceptions import ClientError, LoopDetected, UpstreamConnectError, UpstreamProtocolError, UpstreamTimeout
from canary_mw.observability import upstream_errors
from canary_mw.observability.upstream_errors import OTHER, UpstreamErrors

REFUSED = UpstreamConnectError("refused")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == level]


def test_every_attempt_counts_and_few_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    errors = UpstreamErrors(Clock())
    for _ in range(1000):
        errors.failed("shop", "a", REFUSED)
    errors.failed("shop", "a", REFUSED, retried=True)
    assert errors.counts() == {("shop", "connect"): 1001}
    assert len(lines(caplog, logging.WARNING)) == 2


def test_an_attempt_that_another_one_replaced_makes_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    errors = UpstreamErrors(Clock())
    errors.failed("shop", "a", REFUSED, retried=True)
    assert not errors.failing
    errors.failed("shop", "a", REFUSED)
    assert errors.failing == {"shop"}
    assert ["tried again" in line for line in lines(caplog, logging.WARNING)] == [True, False]


def test_the_end_of_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "canary_mw")
    errors = UpstreamErrors(Clock())
    errors.failed("shop", "a", REFUSED)
    errors.succeeded("other")
    assert errors.failing == {"shop"}
    for _ in range(3):
        errors.succeeded("shop")
    assert not errors.failing
    assert lines(caplog, logging.INFO) == ["upstream shop answers again, after 1 failure in 0 s"]


def test_what_is_refused_before_it_is_sent_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    errors = UpstreamErrors(Clock())
    errors.failed("shop", "a", UpstreamProtocolError("the request head holds a byte that must not be sent"))
    assert errors.counts() == {}
    assert not caplog.records


def test_a_deadline_between_two_attempts_is_no_attempt(caplog: pytest.LogCaptureFixture) -> None:
    errors = UpstreamErrors(Clock())
    errors.failed("shop", "a", REFUSED, retried=True)
    late = UpstreamTimeout("no response to any attempt")
    late.attempted = False
    errors.failed("shop", "a", late)
    assert errors.counts() == {("shop", "connect"): 1}
    assert "no response to any attempt" in lines(caplog, logging.WARNING)[-1]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_errors, "MAX_TRACKED", 10)
    errors = UpstreamErrors(Clock())
    for number in range(100):
        errors.failed(f"shop-{number}", "a", REFUSED)
        errors.refused(rules.mapping(f"m-{number}", "/a/"), LoopDetected("again"))
    assert len(errors._outages) == 10
    assert len(errors.failing) <= 10
    assert len(errors.counts()) == 11
    assert errors.counts()[OTHER, "connect"] == 90


def test_a_loop_is_told_every_interval_and_other_refusals_never(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    errors = UpstreamErrors(clock)
    mapping = rules.mapping("gray", "/shop/", "shop-gray")
    for _ in range(50):
        errors.refused(mapping, LoopDetected("again"))
        errors.refused(mapping, ClientError("bad"))
    clock.now = 20.0
    errors.refused(mapping, LoopDetected("again"))
    first, second = lines(caplog, logging.WARNING)
    assert "CANARY_MW_LOCAL=shop-gray" in first
    assert second.endswith("(50 requests in the last 20 s)")


def test_threads_lose_no_count() -> None:
    errors = UpstreamErrors()

    def fail() -> None:
        for _ in range(500):
            errors.failed("shop", "a", REFUSED)
            errors.succeeded("shop")

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors.counts() == {("shop", "connect"): 2000}
