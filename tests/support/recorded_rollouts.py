"""How far a release is, in each phase: invented, of the checkout release of `recorded_answers`."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from canary_mw.admin.models.rollout import (
    CommandName,
    EvidenceOverTime,
    Phase,
    Rollout,
    RolloutArm,
    RolloutChange,
    RolloutMetric,
    RolloutStep,
)

NOW = datetime(2026, 11, 27, 14, 7, 0, tzinfo=UTC)
LN_NEEDED = 4.605170
# What the state does not refuse, by phase.
COMMANDS: dict[Phase, list[CommandName]] = {
    "Manual": ["abort"],
    "Pending": ["promote", "abort", "undo", "pause", "set-weight"],
    "Progressing": ["promote", "abort", "undo", "pause", "set-weight"],
    "Paused": ["promote", "abort", "undo", "pause", "resume", "set-weight"],
    "Held": ["promote", "abort", "undo", "pause", "resume", "set-weight"],
    "Baking": ["promote", "abort", "undo", "pause", "set-weight"],
    "Completed": ["promote", "abort", "undo"],
    "RolledBack": ["abort", "retry"],
    "Aborted": ["abort", "retry"],
}
_WEIGHTS = (1.0, 5.0, 25.0, 50.0, 95.0)
_ITEMS = (1, 3, 5, 7, 9)


def at(minute: float, second: float = 0) -> str:
    """A time so many minutes before now."""
    return (NOW - timedelta(minutes=minute, seconds=second)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def step(place: int, current: int) -> RolloutStep:
    """The step at a place, where the release is at another one."""
    return {
        "item": _ITEMS[place],
        "weight": _WEIGHTS[place],
        "weights": {"gray": _WEIGHTS[place]},
        "pause_seconds": 600.0 if place < 4 else 0.0,
        "until_promoted": place == 2,
        "analysed": True,
        "state": "current" if place == current else "done" if place < current else "ahead",
    }


def arm(failed: int, exposures: int) -> RolloutArm:
    return {"failed": failed, "exposures": exposures, "bad": failed + failed // 3, "requests": exposures + failed * 2}


def metric(name: str, gray: tuple[int, int], stable: tuple[int, int], **more: Any) -> RolloutMetric:
    return {
        "variant": "gray",
        "name": name,
        "title": name,
        "threshold_ms": None,
        "gray": arm(*gray),
        "stable": arm(*stable),
        "ratio": (gray[0] / gray[1]) / (stable[0] / stable[1]),
        "ln_e": 0.0,
        "ln_needed": LN_NEEDED,
        "excess_upper": 0.01,
        "excess_allowed": 0.02,
        "keeps": True,
        "needed": None,
        "on_failure": "rollback",
        **more,  # type: ignore[typeddict-item]
    }


GOOD = [
    metric("error_rate", (3, 520), (29, 9_900), ln_e=-0.36, excess_upper=0.022, keeps=False, needed=50),
    metric("latency", (31, 480), (402, 9_500), threshold_ms=180.0, ln_e=0.69, excess_upper=0.077, excess_allowed=0.08),
]
BAD = [
    metric("error_rate", (14, 501), (30, 9_890), ln_e=5.02, excess_upper=0.047, keeps=False),
    metric("latency", (30, 480), (402, 9_500), threshold_ms=180.0, ln_e=0.41, excess_upper=0.077, excess_allowed=0.08),
]


def change(
    minute: float, before: str, after: str, item: int, weight: float, reason: str, who: str = ""
) -> RolloutChange:
    return {
        "at": at(minute),
        "before": before,
        "after": after,
        "item": item,
        "weights": {"gray": weight},
        "reason": reason,
        "who": who,
        "address": "10.2.0.17" if who else "",
    }


_BEGUN = [
    change(17.2, "Progressing", "Progressing", 3, 5.0, "the bound keeps to the margin at 5 %"),
    change(28.5, "Pending", "Progressing", 1, 1.0, "the release begins"),
    change(28.6, "", "Pending", 0, 0.0, "a new release"),
]


def rollout(phase: Phase, **more: Any) -> Rollout:
    """A release in a phase, at its second of five steps."""
    latched = phase in ("RolledBack", "Aborted", "Pending", "Manual")
    weight = 0.0 if latched else 5.0
    whole: Rollout = {
        "phase": phase,
        "status": "Progressing",
        "version": 12,
        "attempt": 1,
        "revision": "1.4.2",
        "item": 0 if latched else 3,
        "items": 9,
        "weight": weight,
        "weights": {"gray": weight},
        "elapsed_seconds": 432.0,
        "pause_seconds": 600.0,
        "baked_seconds": 0.0,
        "bake_seconds": 1_800.0,
        "holdback": 5.0,
        "promote": "auto",
        "mode": "act",
        "reason": "",
        "held_by": "",
        "since": at(28.5),
        "controller": {"name": "worker 4711 of gateway-7c9f-x2k4q", "here": True},
        "steps": [step(place, -1 if latched else 1) for place in range(5)],
        "metrics": GOOD,
        "next": {"verdict": "wait", "text": "about 50 more requests in gray", "weight": 25.0, "needed": 50},
        "commands": COMMANDS[phase],
        "history": _BEGUN,
    }
    return {**whole, **more}  # type: ignore[typeddict-item]


_NONE = {"verdict": None, "text": "", "weight": None, "needed": None}
_ABORTED = {"verdict": "aborted", "text": "", "weight": None, "needed": None}
ROLLED_BACK = rollout(
    "RolledBack",
    status="Degraded",
    reason="gray fails more often: 14 of 501 keys against 30 of 9,890",
    since=at(6.2),
    metrics=BAD,
    next=_ABORTED,
    history=[
        change(6.2, "Progressing", "RolledBack", 0, 0.0, "gray fails more often: 14 of 501 keys against 30 of 9,890"),
        *_BEGUN,
    ],
)
ROLLOUTS: dict[Phase, Rollout] = {
    "Manual": rollout("Manual", steps=[], items=0, mode=None, metrics=[], history=[], next=_NONE, bake_seconds=0.0),
    "Pending": rollout("Pending", reason="confirm-rollout has not agreed yet", metrics=[], history=_BEGUN[2:]),
    "Progressing": rollout("Progressing"),
    "Paused": rollout(
        "Paused",
        status="Paused",
        reason="paused by ci",
        history=[
            change(2, "Progressing", "Paused", 3, 5.0, "pause", "ci"),
            *_BEGUN,
        ],
    ),
    "Held": rollout(
        "Held",
        status="Paused",
        held_by="sample_ratio",
        reason="assignment is not as drawn: 912 keys in gray where 521 were expected",
        next={"verdict": "hold", "text": "assignment is not as drawn", "weight": 25.0, "needed": None},
        history=[change(1, "Progressing", "Held", 3, 5.0, "assignment is not as drawn"), *_BEGUN],
    ),
    "Baking": rollout(
        "Baking",
        item=9,
        weight=95.0,
        weights={"gray": 95.0},
        baked_seconds=240.0,
        steps=[step(place, 5) for place in range(5)],
        next={"verdict": "wait", "text": "26 min more of bake", "weight": None, "needed": None},
    ),
    "Completed": rollout(
        "Completed",
        status="Healthy",
        item=9,
        weight=95.0,
        weights={"gray": 95.0},
        baked_seconds=1_800.0,
        steps=[step(place, 5) for place in range(5)],
        next=_NONE,
    ),
    "RolledBack": ROLLED_BACK,
    "Aborted": rollout(
        "Aborted",
        status="Degraded",
        reason="abort by ci",
        since=at(3),
        next=_ABORTED,
        history=[change(3, "Progressing", "Aborted", 0, 0.0, "abort", "ci"), *_BEGUN],
    ),
}
assert set(ROLLOUTS) == set(get_args(Phase))


def over_time(metrics: list[RolloutMetric], minutes: float = 28.0, looks: int = 57) -> list[EvidenceOverTime]:
    """How the evidence of the metrics grew, a look each half a minute: flat at first, then up to what it is now."""
    shares = [max((place - looks * 0.6) / (looks * 0.4), 0.0) ** 1.5 for place in range(looks)]
    return [
        {
            "variant": each["variant"],
            "name": each["name"],
            "threshold_ms": each["threshold_ms"],
            "ln_needed": LN_NEEDED,
            "at": [at(minutes * (1 - place / (looks - 1))) for place in range(looks)],
            "ln_e": [
                (each["ln_e"] or 0.0) * share / shares[-1] - 0.2 * (1 - share / shares[-1]) * (1 + place % 3)
                for place, share in enumerate(shares)
            ],
        }
        for each in metrics
    ]
