"""The evidence of a release: by metric, and over time."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from math import ceil, exp, log
from typing import NamedTuple

from canary_mw.admin.models.rollout import EvidenceOverTime, Rollout, RolloutArm, RolloutMetric
from canary_mw.admin.pages.charts import Line, chart
from canary_mw.admin.pages.timeline import Figure
from canary_mw.admin.pages.wording import NOTHING, milliseconds, moment, share, weight

# Columns of the longest chart.
_MOST = 120


class Row(NamedTuple):
    """The evidence of a metric.

    Attributes:
        evidence: that gray is worse, and `limit` where that is enough, and for what.
        bound: what a step up could hit at most, and `allowed` what it may.
        tone: "bad" where it is enough, "good" where the metric allows the step, "none" else.
    """

    name: str
    under: str
    gray: str
    stable: str
    ratio: str
    evidence: str
    limit: str
    bound: str
    allowed: str
    tone: str


def rows(rollout: Rollout) -> list[Row]:
    """The evidence of each metric."""
    several = len({each["variant"] for each in rollout["metrics"]}) > 1
    return [_row(each, rollout, several) for each in rollout["metrics"]]


def _row(metric: RolloutMetric, rollout: Rollout, several: bool) -> Row:
    parts = [metric["variant"]] if several else []
    if metric["threshold_ms"] is not None:
        parts.append(f"slower than {milliseconds(metric['threshold_ms'])}")
    ratio = NOTHING if metric["ratio"] is None else f"×{metric['ratio']:.1f}"
    evidence, limit = _evidence(metric, rollout)
    bound, allowed = _bound(metric, rollout)
    enough = metric["ln_e"] is not None and metric["ln_needed"] is not None and metric["ln_e"] >= metric["ln_needed"]
    tone = "bad" if enough else "good" if metric["keeps"] and allowed else "none"
    return Row(
        metric["title"],
        ", ".join(parts),
        _arm(metric["gray"]),
        _arm(metric["stable"]),
        ratio,
        evidence,
        limit,
        bound,
        allowed,
        tone,
    )


def _arm(arm: RolloutArm | None) -> str:
    return NOTHING if arm is None else f"{arm['failed']:,} in {arm['exposures']:,}"


def _evidence(metric: RolloutMetric, rollout: Rollout) -> tuple[str, str]:
    if metric["ln_e"] is None or metric["ln_needed"] is None:
        return NOTHING, ""
    what = {"rollback": "rolled back", "hold": "held"}[metric["on_failure"]]
    if rollout["mode"] == "advise":
        what = "told"
    return e_value(metric["ln_e"]), f"{what} at {e_value(metric['ln_needed'])}"


def e_value(ln_e: float) -> str:
    """Evidence as a number: "0.7", "151"; beyond a million as a power of ten."""
    if ln_e > log(2e6):
        return f"10^{ln_e / log(10):.0f}"
    value = exp(ln_e)
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.095 else "below 0.1"


def _bound(metric: RolloutMetric, rollout: Rollout) -> tuple[str, str]:
    upper, allowed = metric["excess_upper"], metric["excess_allowed"]
    bound = NOTHING if upper is None else f"{share(max(upper, 0.0), 1)} % at most"
    if allowed is None:
        return bound, ""
    following = rollout["next"]["weight"]
    to = "" if following is None else f" for {weight(following)}"
    more = "" if metric["needed"] is None or metric["keeps"] else f"; about {metric['needed']:,} more requests"
    return bound, f"may be {share(allowed, 1)} %{to}{more}"


def names(known: Sequence[EvidenceOverTime]) -> list[str]:
    """What each line of the chart is about."""
    several = len({each["variant"] for each in known}) > 1
    return [f"{each['title']} of {each['variant']}" if several else each["title"] for each in known]


def over_time(known: Sequence[EvidenceOverTime], rollout: Rollout) -> Figure | None:
    """Evidence over time, on a scale of logarithms from 1 up; what is below 1 lies on the ground.

    None before the second look.
    """
    times = sorted({moment(at).timestamp() for each in known for at in each["at"]})
    if len(times) < 2:
        return None
    columns = min(len(times), _MOST)
    grid = [times[0] + (times[-1] - times[0]) * place / (columns - 1) for place in range(columns)]
    values = [_at(each, grid) for each in known]
    needed = max(each["ln_needed"] for each in known)
    top = _top(max(needed, *(max(each["ln_e"]) for each in known)))
    last = "; ".join(
        f"{name} is {e_value(each['ln_e'][-1])} now" for name, each in zip(names(known), known, strict=True)
    )
    limit = f"gray is {_consequence(rollout)} at {e_value(needed)}"
    lines = [Line([None if value is None else max(value, 0.0) for value in line]) for line in values]
    return Figure(
        "Evidence that gray is worse",
        f"{limit}, the line; 1 is none",
        f"Evidence over time: {last}; {limit}",
        chart([Line(()), *lines], top, (), [_title(*each) for each in zip(grid, *values, strict=True)], needed),
        [e_value(top), e_value(top / 2), "1"],
        [_clock(times[0] + (times[-1] - times[0]) * part / 4) for part in range(5)],
    )


def _top(highest: float) -> float:
    """A power of ten whose root is one, too, some way above a logarithm."""
    return 2 * ceil(highest * 1.1 / log(10) / 2) * log(10)


def _at(each: EvidenceOverTime, grid: Sequence[float]) -> list[float | None]:
    """The evidence at each of these times: that of the last look before it."""
    times = [moment(at).timestamp() for at in each["at"]]
    places = [bisect_right(times, time) for time in grid]
    return [each["ln_e"][place - 1] if place else None for place in places]


def _title(time: float, *values: float | None) -> str:
    return f"{_clock(time)}: {', '.join('none' if each is None else e_value(each) for each in values)}"


def _clock(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%H:%M:%S}"


def _consequence(rollout: Rollout) -> str:
    if rollout["mode"] == "advise":
        return "called worse"
    held = all(each["on_failure"] == "hold" for each in rollout["metrics"])
    return "held" if held else "rolled back"
