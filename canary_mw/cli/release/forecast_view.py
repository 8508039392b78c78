"""What `canary-mw release plan` shows of the steps of a release."""

from collections.abc import Iterator, Sequence
from typing import Any

from canary_mw.cli.release.history import table
from canary_mw.cli.release.words import time_of
from canary_mw.cli.top.view import Line, Piece
from canary_mw.rollout.forecast import StepForecast, Traffic
from canary_mw.rollout.formatting import count, percents, share
from canary_mw.rules.plan import Analysis, Plan

_HEAD = ("STEP", "WEIGHT", "PAUSE", "REQUESTS OF GRAY", "AT LEAST", "FINDS BY ITS END")


def forecast_lines(plan: Plan, traffic: Traffic, steps: Sequence[StepForecast]) -> list[Line]:
    """The table of the steps, and what holds for all of them."""
    lines = table(_HEAD, [_row(each, traffic) for each in steps])
    return [*lines, *([Piece(text)] for text in _below(plan, traffic, steps))]


def _row(step: StepForecast, traffic: Traffic) -> tuple[str, ...]:
    found = step.found
    ratio = f" (×{found / traffic.error_rate:.3g})" if found and traffic.error_rate else ""
    return (
        str(step.item),
        share(step.weight),
        _pause(step),
        _needed(step),
        _time(step),
        f"{percents(found)[0]} of its requests fail{ratio}" if found else "–",
    )


def _pause(step: StepForecast) -> str:
    human = ("until promote",) if step.until_promoted else ()
    return ", ".join([*((time_of(step.pause),) if step.pause else ()), *human]) or "–"


def _needed(step: StepForecast) -> str:
    if step.exposures is None:
        return f"never enough ({step.metric})"
    return f"{count(step.exposures)} ({step.metric})" if step.metric else "–"


def _time(step: StepForecast) -> str:
    if step.seconds is None:
        return "timeout"
    return (time_of(step.seconds) if step.seconds else "–") + (" (timeout)" if step.late else "")


def _below(plan: Plan, traffic: Traffic, steps: Sequence[StepForecast]) -> Iterator[str]:
    yield ""
    yield f"{_in_all(plan, steps)}, at {_known(traffic)}."
    analysis = next((each.analysis for each in plan.stages if each.analysis is not None), None)
    if analysis is None:
        yield "Without analysis the steps go by time alone, and nothing is found."
        return
    yield from _of_analysis(analysis, traffic)
    if any(each.late for each in steps):
        yield f"After {time_of(analysis.timeout)} in a step the release does as on_timeout says: {analysis.on_timeout}."


def _of_analysis(analysis: Analysis, traffic: Traffic) -> Iterator[str]:
    yield (
        "The times hold where gray is as good as stable and failures come at their mean. Found is what 90 of 100"
        f" simulated releases find (alpha {share(100 * analysis.alpha)})."
    )
    recorded = ("event", "value")
    names = [each.name for each in analysis.metrics if each.kind in recorded or each.threshold is not None]
    if unknown := [name for name in names if name not in traffic.rates]:
        yield f"Not counted, since no rate is known: {', '.join(unknown)} (--rate NAME=PERCENT)."
    if analysis.queries:
        yield f"Asked besides, and not counted: {', '.join(each.name for each in analysis.queries)}."


def _known(traffic: Traffic) -> str:
    each = "request" if traffic.rate == 1 else "requests"
    users = f" of {count(traffic.users)} users" if traffic.users else ""
    return f"{traffic.rate:g} {each} a second{users}, of which {percents(traffic.error_rate)[0]} fail in stable"


def _in_all(plan: Plan, steps: Sequence[StepForecast]) -> str:
    if any(each.seconds is None for each in steps):
        return "Some steps do not end by evidence"
    return f"In all {time_of(sum(each.seconds or 0.0 for each in steps) + plan.bake)} at least"


def forecast_json(name: str, traffic: Traffic, steps: Sequence[StepForecast]) -> dict[str, Any]:
    """The same for programs; rates are shares in [0, 1]."""
    return {
        "name": name or None,
        "requests_per_second": traffic.rate,
        "error_rate": traffic.error_rate,
        "users": traffic.users,
        "steps": [_step_json(each) for each in steps],
    }


def _step_json(step: StepForecast) -> dict[str, Any]:
    return {
        "step": step.item,
        "weight": step.weight,
        "pause_seconds": step.pause,
        "until_promoted": step.until_promoted,
        "gray_requests_needed": step.exposures,
        "most_by": step.metric or None,
        "at_least_seconds": step.seconds,
        "exceeds_timeout": step.late,
        "finds_error_rate": step.found,
    }
