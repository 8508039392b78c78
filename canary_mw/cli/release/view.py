"""What `canary-mw release get` shows: lines of an answer of the API."""

from collections.abc import Iterator, Sequence
from math import exp
from typing import Any

from canary_mw.cli.release.words import phase_of, progress_of, time_of
from canary_mw.cli.terminal import fitted, visible, width
from canary_mw.cli.top.view import Line, Piece, Role
from canary_mw.rollout.formatting import count, percents, share, waiting_time

_LABEL = 14
_SIGNS: dict[str, tuple[str, Role]] = {"done": ("✔", "good"), "current": ("●", "bold"), "ahead": ("○", "dim")}
_HEAD = ("METRIC", "GRAY", "STABLE", "RATIO", "EVIDENCE", "STEP UP")
# Evidence is shown as a number up to here; its logarithm grows on.
_MOST_LN = 13.8


def view(answer: Any, columns: int = 120) -> list[Line]:
    """All lines about one release."""
    rollout = answer["rollout"]
    if rollout is None:
        weights = ", ".join(f"{visible(name)} {share(percent)}" for name, percent in answer["weights"].items())
        return [
            _labelled("Name", visible(answer["name"])),
            _labelled("Status", "– nothing raises it by itself"),
            _labelled("Weights", weights),
        ]
    return [
        *_head(answer, rollout),
        *_metrics(rollout),
        *_queries(rollout),
        *_below(answer, rollout),
        *_steps(rollout, columns),
    ]


def _head(answer: Any, rollout: Any) -> Iterator[Line]:
    revision = f"revision {visible(rollout['revision'])}, " if rollout["revision"] else ""
    yield _labelled("Name", f"{visible(answer['name'])}   ({revision}attempt {rollout['attempt']})")
    phase, role = phase_of(rollout)
    yield [Piece("Status:".ljust(_LABEL)), Piece(phase, role), Piece(f"   {progress_of(rollout)}".rstrip())]
    if rollout["reason"]:
        yield _labelled("Reason", visible(rollout["reason"]))
    for text in rollout["findings"]:
        yield [Piece("Problem:".ljust(_LABEL)), Piece(visible(text), "bad")]
    name = visible(rollout["controller"]["name"]) or "not known"
    yield _labelled("Controller", f"{name}, {_reporting(answer['scope'], rollout['controller'].get('pods'))}")


def _reporting(scope: Any, pods: Any) -> str:
    """How many report; only the pod that raises knows it of the others."""
    if pods is None:
        return f"{scope['reporting']} of {scope['workers']} workers reporting"
    newest = pods["newest_seconds"]
    when = f" (newest {round(newest)} s ago)" if newest is not None else ""
    return f"{pods['reporting']} of {pods['known']} pods reporting{when}"


def _below(answer: Any, rollout: Any) -> Iterator[Line]:
    text = _next(answer, rollout)
    if text:
        yield _labelled("Next", text)
    if rollout["commands"]:
        yield _labelled("Commands", ", ".join(rollout["commands"]))


def _next(answer: Any, rollout: Any) -> str:
    following = rollout["next"]
    if rollout["phase"] in ("RolledBack", "Aborted"):
        return "retry begins anew, and so does another revision"
    if rollout["phase"] in ("Completed", "Manual"):
        return ""
    if following["needed"]:
        rps = sum(each["rps"] for name, each in answer["variants"].items() if name != "stable")
        after = f" ({waiting_time(following['needed'] / rps)} at the present rate)" if rps else ""
        return f"about {count(following['needed'])} more requests in gray{after}"
    if following["verdict"] == "step_up":
        return f"{share(following['weight'])} at the next look" if following["weight"] is not None else ""
    return str(visible(following["text"]))


def _metrics(rollout: Any) -> Iterator[Line]:
    rows = [_row(rollout, each) for each in rollout["metrics"]]
    if not rows:
        return
    several = len({each["variant"] for each in rollout["metrics"]}) > 1
    cells = [_HEAD, *rows]
    sizes = [max(width(row[column]) for row in cells) for column in range(len(_HEAD) - 1)]
    yield _table_line(_HEAD, sizes, "dim")
    before = ""
    for metric, row in zip(rollout["metrics"], rows, strict=True):
        if several and metric["variant"] != before:
            before = metric["variant"]
            yield [Piece(f"{visible(before)}:", "gray")]
        yield _table_line(row, sizes, "bad" if _is_over(metric) else "")


def _queries(rollout: Any) -> Iterator[Line]:
    for each in rollout["queries"]:
        yield _labelled("Query", visible(f"{each['name']}: {each['condition']}: {each['text']}"))


def _table_line(cells: Sequence[str], sizes: Sequence[int], role: Role) -> Line:
    text = "  ".join(fitted(cell, size) for cell, size in zip(cells, sizes, strict=False))
    return [Piece(f"{text}  {cells[-1]}".rstrip(), role)]


def _row(rollout: Any, metric: Any) -> tuple[str, ...]:
    ratio = "–" if metric["ratio"] is None else f"×{metric['ratio']:.1f}"
    arms = (_arm(metric["gray"]), _arm(metric["stable"]))
    return visible(metric["title"]), *arms, ratio, _evidence(metric), _step_up(rollout, metric)


def _arm(arm: Any) -> str:
    return "–" if arm is None else f"{count(arm['failed'])} in {count(arm['exposures'])}"


def _is_over(metric: Any) -> bool:
    return metric["ln_e"] is not None and metric["ln_needed"] is not None and metric["ln_e"] >= metric["ln_needed"]


def _evidence(metric: Any) -> str:
    if metric["ln_e"] is None:
        return "–"
    needed = "" if metric["ln_needed"] is None else f" (needs {exp(metric['ln_needed']):.4g})"
    return f"{_e_value(metric['ln_e'])}{needed}"


def _e_value(ln_e: float) -> str:
    if ln_e >= _MOST_LN:
        return "> 1,000,000"
    return f"{exp(ln_e):.1f}" if ln_e < 4.6 else f"{exp(ln_e):,.0f}"


def _step_up(rollout: Any, metric: Any) -> str:
    upper, allowed = metric["excess_upper"], metric["excess_allowed"]
    if upper is None or allowed is None:
        return "–"
    weight = rollout["next"]["weight"]
    at = "" if weight is None else f" at {share(weight)}"
    shown, limit = percents(upper, allowed)
    return f"excess ≤ {shown}, needs ≤ {limit}{at}{': ok' if metric['keeps'] else ''}"


def _steps(rollout: Any, columns: int) -> Iterator[Line]:
    line: Line = [Piece("STEP", "dim")]
    used = len("STEP")
    for number, step in enumerate(rollout["steps"], 1):
        sign, role = _SIGNS[step["state"]]
        last = number == len(rollout["steps"])
        text = f"  {number} {sign} {_step(step, rollout, last=last)}"
        if used + width(text) > columns and len(line) > 1:
            yield line
            line, used = [Piece("    ")], len("STEP")
        line.append(Piece(text, role))
        used += width(text)
    if len(line) > 1:
        yield line


def _step(step: Any, rollout: Any, *, last: bool) -> str:
    text = share(step["weight"])
    if step["pause_seconds"]:
        text += f" {time_of(step['pause_seconds'])}"
    if step["until_promoted"]:
        text += " then pause"
    if last and rollout["bake_seconds"]:
        text += f", bake {time_of(rollout['bake_seconds'])}"
    return text


def _labelled(label: str, text: str) -> Line:
    return [Piece(f"{label}:".ljust(_LABEL)), Piece(text)]
