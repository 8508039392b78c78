"""Words and signs of releases on a terminal."""

from typing import Any

from canary_mw.cli.top.view import PHASES as PHASES
from canary_mw.cli.top.view import Role
from canary_mw.rollout.formatting import share

_SECONDS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def time_of(seconds: float) -> str:
    """A time that is counted: `10m`, `7m12s`, `1h30m`, `0s`; two units at most."""
    left = int(seconds)
    parts: list[str] = []
    for size, unit in _SECONDS:
        if left >= size or parts:
            parts.append(f"{left // size}{unit}" if left >= size else "")
            left %= size
    return "".join(parts[:2]) or "0s"


def phase_of(rollout: Any) -> tuple[str, Role]:
    """The phase with its sign."""
    sign, role = PHASES.get(rollout["phase"], ("?", ""))
    return f"{sign} {rollout['phase']}", role


def step_of(rollout: Any) -> str:
    """Where a release is among its written steps; empty without steps."""
    return f"{rollout['item']}/{rollout['items']}" if rollout["items"] else ""


def progress_of(rollout: Any) -> str:
    """What belongs to the phase: the step, the weight and how long it takes."""
    parts = [f"step {step_of(rollout)}"] if rollout["items"] else []
    if rollout["phase"] != "Manual":
        parts.append(f"weight {share(rollout['weight'])}")
    parts.append(_clock(rollout))
    return ", ".join(filter(None, parts))


def _clock(rollout: Any) -> str:
    elapsed, pause = rollout["elapsed_seconds"], rollout["pause_seconds"]
    if rollout["phase"] == "Baking":
        return f"{time_of(rollout['baked_seconds'])} of {time_of(rollout['bake_seconds'])}"
    if rollout["phase"] not in ("Progressing", "Paused", "Held"):
        return ""
    return f"{time_of(elapsed)} of at least {time_of(pause)}" if pause else time_of(elapsed)
