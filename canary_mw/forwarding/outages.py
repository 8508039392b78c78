"""What is logged of upstreams that fail: the first failure, a count while failures go on, and the first response after.

Pure functions with the time as an argument. A failing service writes a line when it begins, and one every `INTERVAL`
seconds at most. One that fails and answers in turn is back when it has not failed for that time.
"""

from typing import NamedTuple

from canary_mw.config.document import on_one_line
from canary_mw.exceptions import LoopDetected, UpstreamError
from canary_mw.rules.mapping import Mapping

# Seconds between two lines about the same service.
INTERVAL = 10.0
# All reasons; they are values of a label in metrics.
REASONS = ("connect", "timeout", "reset", "overload", "protocol")
_MAX_TEXT = 300


class Outage(NamedTuple):
    """The failures of one service; times are those of a monotonic clock.

    Attributes:
        began: time of the first failure.
        logged: time of the last line about a failure.
        last: time of the last failure.
        unlogged: failures since `logged`.
        total: failures since `began`.
        failing: no response has ended the outage yet.
        flapping: it was over before, less than `INTERVAL` after a line.
    """

    began: float
    logged: float
    last: float
    unlogged: int = 0
    total: int = 1
    failing: bool = True
    flapping: bool = False


class Report(NamedTuple):
    """What a line that is due reports: failures, and the seconds since the line before; 0 for the first line."""

    failures: int
    seconds: float


def after_failure(outage: Outage | None, now: float) -> tuple[Outage, Report | None]:
    """Count a failure; returns the outage, and the report where a line is due."""
    if outage is None or (not outage.failing and now - outage.logged >= INTERVAL):
        return Outage(now, now, now), Report(1, 0.0)
    unlogged, seconds = outage.unlogged + 1, now - outage.logged
    due = seconds >= INTERVAL
    outage = outage._replace(
        logged=now if due else outage.logged,
        last=now,
        unlogged=0 if due else unlogged,
        total=outage.total + 1,
        failing=True,
        flapping=outage.flapping or not outage.failing,
    )
    return outage, Report(unlogged, seconds) if due else None


def after_response(outage: Outage, now: float) -> Outage:
    """Note a response; the outage that is returned may be over: not `failing`."""
    over = not outage.flapping or now - outage.last >= INTERVAL
    return outage._replace(failing=False) if over else outage


def reason_of(error: UpstreamError) -> str:
    """Why a request failed, one of `REASONS`."""
    return "reset" if error.reason == "connect" and error.sent else error.reason


def is_our_own(error: UpstreamError) -> bool:
    """Whether an error says nothing about the upstream: a head that is not sent, for what it holds."""
    return error.reason == "protocol" and not error.sent


class Failure(NamedTuple):
    """One failed attempt at a service.

    Attributes:
        service: text of the service.
        mapping: name of the Mapping that led to it.
        address: host and port that were tried, "" where there is none.
        retried: another endpoint, or another attempt, has taken the request.
        in_response: the head of the response was relayed already.
    """

    service: str
    mapping: str
    error: UpstreamError
    address: str = ""
    retried: bool = False
    in_response: bool = False


def failure_line(failure: Failure, report: Report) -> str:
    """The line about a failure, which is the last one of the report."""
    what = "failed in the middle of a response" if failure.in_response else "failed"
    since = f", {counted(report, 'time')}" if report.seconds else ""
    place = f"address {failure.address}, " if failure.address and failure.address not in str(failure.error) else ""
    after = "; the request was tried again" if failure.retried else ""
    text = f"{failure.error!s:.{_MAX_TEXT}}"
    reason = reason_of(failure.error)
    return on_one_line(
        f"upstream {failure.service} {what}{since}: {reason}: {text} ({place}{_rule(failure.mapping)}){after}"
    )


def _rule(name: str) -> str:
    """A Mapping by its name, or another document by its kind and name."""
    return name if name.startswith(("AuthService ", "RateLimitService ")) else f"Mapping {name}"


def counted(report: Report, what: str) -> str:
    """How often something happened: "57 times in the last 10 s"."""
    return f"{report.failures} {what}{'s' * (report.failures != 1)} in the last {report.seconds:.0f} s"


def recovery_line(service: str, outage: Outage, now: float) -> str:
    """The line about the first response after an outage."""
    failures = "1 failure" if outage.total == 1 else f"{outage.total} failures"
    return on_one_line(f"upstream {service} answers again, after {failures} in {now - outage.began:.0f} s")


def loop_line(mapping: Mapping, error: LoopDetected) -> str:
    """Why a request is answered with 508, and what to do where the service is this process itself."""
    name = mapping.service.origin.host
    return on_one_line(
        f"508: {error} (Mapping {mapping.name} leads to {mapping.service.text}). Where this process is {name} itself, "
        f"say so: CANARY_MW_LOCAL={name}, local= or --local"
    )


def refused_upgrade_line(mapping: Mapping) -> str:
    """Why a WebSocket is answered with 403, and what to do."""
    name, service = mapping.name, mapping.service.text
    return on_one_line(
        f"403: a WebSocket to {service} is refused: Mapping {name} does not allow it; "
        "write `allow_upgrade: [websocket]` into the Mapping"
    )


def wsgi_upgrade_line(mapping: Mapping) -> str:
    """Why a WebSocket is refused under WSGI."""
    return on_one_line(
        f"403: a WebSocket to {mapping.service.text} is refused (Mapping {mapping.name}): WebSockets cannot pass a "
        "WSGI server; serve them by CanaryMiddleware or canary-mw serve"
    )
