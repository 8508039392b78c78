"""When a line about a failing upstream is due, and what it says."""

import pytest
import rules

from canary_mw.exceptions import (
    LoopDetected,
    UpstreamConnectError,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from canary_mw.forwarding.outages import (
    INTERVAL,
    REASONS,
    Failure,
    Outage,
    Report,
    after_failure,
    after_response,
    failure_line,
    loop_line,
    reason_of,
    recovery_line,
)

NOTHING = None


def follow(*steps: tuple[str, float]) -> list[str]:
    """The lines of failures and responses at their times: "failed N" and "back N"."""
    outage: Outage | None = None
    lines = []
    for what, now in steps:
        if what == "fails":
            outage, report = after_failure(outage, now)
            if report is not NOTHING:
                lines.append(f"failed {report.failures}")
        elif outage is not None and outage.failing:
            outage = after_response(outage, now)
            if not outage.failing:
                lines.append(f"back {outage.total}")
    return lines


def test_the_first_failure_is_told_at_once_and_later_ones_are_counted() -> None:
    failures = [("fails", t / 10) for t in range(250)]
    assert follow(*failures) == ["failed 1", "failed 100", "failed 100"]


def test_the_first_response_ends_an_outage() -> None:
    assert follow(("fails", 0), ("fails", 1), ("answers", 2), ("answers", 3)) == ["failed 1", "back 2"]


def test_responses_of_a_service_that_never_failed_are_no_news() -> None:
    assert follow(("answers", 0)) == []


def test_a_service_that_fails_and_answers_in_turn_writes_a_line_an_interval() -> None:
    flapping = [(("fails", "answers")[t % 2], t / 10) for t in range(300)]
    lines = follow(*flapping)
    assert lines[:2] == ["failed 1", "back 1"]
    assert len(lines) <= 2 + 30 / INTERVAL
    assert "back" not in " ".join(lines[2:])


def test_it_is_back_when_it_has_not_failed_for_an_interval() -> None:
    steps = [("fails", 0.0), ("answers", 1.0), ("fails", 2.0), ("answers", 3.0), ("answers", 2.0 + INTERVAL)]
    assert follow(*steps) == ["failed 1", "back 1", "back 2"]


def test_a_later_outage_is_a_new_one() -> None:
    steps = [("fails", 0.0), ("answers", 1.0), ("fails", 100.0), ("answers", 101.0)]
    assert follow(*steps) == ["failed 1", "back 1", "failed 1", "back 1"]


def early_end() -> UpstreamError:
    error = UpstreamProtocolError("ended early", sent=True)
    error.reason = "reset"
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UpstreamConnectError("refused"), "connect"),
        (UpstreamConnectError("lost", sent=True), "reset"),
        (UpstreamTimeout("late", sent=True), "timeout"),
        (UpstreamOverloaded("busy"), "overload"),
        (UpstreamProtocolError("not HTTP", sent=True), "protocol"),
        (early_end(), "reset"),
    ],
)
def test_every_error_has_one_of_few_reasons(error: UpstreamError, reason: str) -> None:
    assert reason_of(error) == reason
    assert reason in REASONS


def test_a_line_names_service_reason_text_address_and_mapping() -> None:
    error = UpstreamConnectError("shop-gray:80: cannot connect: refused")
    line = failure_line(Failure("shop-gray", "gray", error, "10.0.0.5:80"), Report(1, 0.0))
    assert line == (
        "upstream shop-gray failed: connect: shop-gray:80: cannot connect: refused (address 10.0.0.5:80, Mapping gray)"
    )


def test_a_later_line_says_how_often_and_in_which_time() -> None:
    failure = Failure("shop", "a", UpstreamTimeout("late"), retried=True)
    line = failure_line(failure, Report(57, 12.4))
    assert line == (
        "upstream shop failed, 57 times in the last 12 s: timeout: late (Mapping a); the request was tried again"
    )


def test_a_line_stays_one_line_of_bounded_length() -> None:
    line = failure_line(Failure("shop", "a\nb", UpstreamProtocolError("x\n" * 9999, sent=True)), Report(1, 0.0))
    assert line.isprintable()
    assert len(line) < 1000


def test_the_end_says_how_many_requests_failed() -> None:
    assert recovery_line("shop", Outage(0.0, 0.0, 20.0, total=58), 23.0) == (
        "upstream shop answers again, after 58 failures in 23 s"
    )


def test_a_loop_names_what_to_set() -> None:
    mapping = rules.mapping("gray", "/shop/", "shop-gray.ns:8080")
    line = loop_line(mapping, LoopDetected("the request was forwarded by this deployment before"))
    assert "508" in line
    assert "CANARY_MW_LOCAL=shop-gray.ns" in line
    assert "local=" in line
