"""`canary-mw release status`: the state of a release as a line and an exit code, for pipelines."""

import sys
import time
from typing import Any

import click

from canary_mw.cli.admin_port import Refusal, Unreachable, admin_option, ask_json
from canary_mw.cli.release.asking import as_json, output_option, path_of
from canary_mw.cli.release.words import phase_of, progress_of
from canary_mw.cli.terminal import visible
from canary_mw.config.ambassador.traffic_policies import seconds
from canary_mw.exceptions import ConfigError

COMPLETED, TAKEN_BACK, HELD, TIMED_OUT, UNKNOWN = 0, 1, 2, 3, 4
_CODES = {"Completed": COMPLETED, "RolledBack": TAKEN_BACK, "Aborted": TAKEN_BACK, "Held": HELD}
# What holds a release until a person decides; all else may go on by itself.
_HUMAN = frozenset(("sample_ratio", "plan", "metric"))
# Seconds between two looks, and for which a release must be Held by what may go on by itself.
_PAUSE, _SETTLED = 0.2, 2.0


def _duration(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A time as 90, 90s or 30m, in seconds."""
    if value is None:
        return None
    try:
        return float(value) if value.replace(".", "", 1).isdecimal() else seconds(value)
    except ConfigError as exc:
        raise click.BadParameter(str(exc), context, parameter) from None


@click.command()
@click.argument("name")
@admin_option
@click.option("--wait", is_flag=True, help="Until it has ended, or somebody is needed.")
@click.option("--timeout", callback=_duration, metavar="DURATION", help="That --wait takes at most, as 90s or 2h.")
@output_option
def status(name: str, admin: str, wait: bool, timeout: float | None, output: str) -> None:
    """Say in one line how far a release is.

    The exit code is 0 when it is Completed, 1 when it is RolledBack or Aborted, 2 when it is Held, and 3 when --wait
    has waited in vain; without --wait it is 0 as long as it is under way. It is 4 when nothing is known of it.
    """
    answer, error = _waited(admin, name, timeout) if wait else _look(admin, name)
    if answer is None:
        click.echo(f"Error: {visible(str(error))}", err=True)
        sys.exit(TIMED_OUT if wait and not isinstance(error, Refusal) else UNKNOWN)
    click.echo(as_json(answer) if output == "json" else f"{visible(name)}: {line_of(answer)}")
    sys.exit(_code(answer, TIMED_OUT if wait else COMPLETED))


def line_of(answer: Any) -> str:
    """The state of a release in a line."""
    rollout = answer["rollout"]
    if rollout is None or rollout["phase"] == "Manual":
        return "it has no steps, and ends by no evidence"
    line = ": ".join(filter(None, (f"{phase_of(rollout)[0]} {progress_of(rollout)}", visible(rollout["reason"]))))
    return "; ".join((line, *map(visible, rollout["findings"])))


def _code(answer: Any, under_way: int) -> int:
    rollout = answer["rollout"]
    if rollout is None or rollout["phase"] == "Manual":
        return UNKNOWN
    return _CODES.get(rollout["phase"], under_way)


def _look(admin: str, name: str) -> tuple[Any, Exception | None]:
    """The answer, or why there is none: a name that is not known, or a server that is away for now."""
    try:
        return ask_json(admin, path_of(name)), None
    except Refusal as exc:
        return None, exc if exc.status == 404 else Unreachable(str(exc))
    except Unreachable as exc:
        return None, exc


def _waited(admin: str, name: str, timeout: float | None) -> tuple[Any, Exception | None]:
    """The answer when it is over, or the last one at the end of the time."""
    end = None if timeout is None else time.monotonic() + timeout
    held_since: float | None = None
    while True:
        answer, error = _look(admin, name)
        now = time.monotonic()
        held = answer is not None and _code(answer, TIMED_OUT) == HELD
        held_since = (now if held_since is None else held_since) if held else None
        known = not isinstance(error, Refusal)
        if not known or _is_over(answer, now, held_since) or (end is not None and now >= end):
            return answer, error
        time.sleep(_PAUSE if end is None else min(_PAUSE, max(end - now, 0.0)))


def _is_over(answer: Any, now: float, held_since: float | None) -> bool:
    if answer is None:
        return False
    if held_since is None:
        return _code(answer, TIMED_OUT) != TIMED_OUT
    return answer["rollout"]["held_by"] in _HUMAN or now - held_since >= _SETTLED
