"""Answers about releases that raise their own weight, as of one moment: invented figures."""

from typing import Any

from admin_release_examples import RELEASE
from recorded_answers import FRAME

from canary_mw.admin.models.release import ReleaseAnswer
from canary_mw.admin.models.releases import ListedRelease
from canary_mw.admin.models.rollout import Rollout, RolloutChange, RolloutMetric, RolloutStep

NAME = "svc-2026-11"


def step(item: int, weight: float, state: Any, pause: float = 600.0, *, until_promoted: bool = False) -> RolloutStep:
    return {
        "item": item,
        "weight": weight,
        "weights": {"gray": weight},
        "pause_seconds": pause,
        "until_promoted": until_promoted,
        "analysed": True,
        "state": state,
    }


def metric(title: str, in_gray: tuple[int, int], in_stable: tuple[int, int], **more: Any) -> RolloutMetric:
    arms = [{"failed": f, "exposures": n, "bad": f, "requests": n} for f, n in (in_gray, in_stable)]
    found: Any = {
        "variant": "gray",
        "name": title.partition(" ")[0],
        "title": title,
        "threshold_ms": None,
        "gray": arms[0],
        "stable": arms[1],
        "ratio": in_gray[0] / in_gray[1] / (in_stable[0] / in_stable[1]),
        "ln_e": -0.36,
        "ln_needed": 4.605,
        "excess_upper": 0.022,
        "excess_allowed": 0.02,
        "keeps": False,
        "needed": 50,
        "on_failure": "rollback",
    }
    whole: RolloutMetric = found | more
    return whole


def change(at: str, before: str, after: str, item: int, weight: float, reason: str, who: str = "") -> RolloutChange:
    return {
        "at": at,
        "before": before,
        "after": after,
        "item": item,
        "weights": {"gray": weight},
        "reason": reason,
        "who": who,
        "address": "10.0.0.9" if who else "",
    }


PROGRESSING: Rollout = {
    "phase": "Progressing",
    "status": "Progressing",
    "version": 7,
    "attempt": 1,
    "revision": "1.4.2",
    "item": 3,
    "items": 9,
    "weight": 5.0,
    "weights": {"gray": 5.0},
    "elapsed_seconds": 432.0,
    "pause_seconds": 600.0,
    "baked_seconds": 0.0,
    "bake_seconds": 1800.0,
    "holdback": 0.0,
    "promote": "auto",
    "mode": "act",
    "reason": "",
    "held_by": "",
    "since": "2026-11-27T13:59:48.000Z",
    "controller": {"name": "pod svc-7d9f-x2", "here": True, "pods": None},
    "steps": [
        step(1, 1.0, "done"),
        step(3, 5.0, "current"),
        step(5, 25.0, "ahead", 0.0, until_promoted=True),
        step(7, 50.0, "ahead", 0.0),
        step(9, 100.0, "ahead", 0.0),
    ],
    "queries": [],
    "metrics": [
        metric("error_rate", (3, 520), (29, 9900)),
        metric("latency p95", (31, 480), (402, 9500), ln_e=0.69, excess_upper=0.077, excess_allowed=0.08, keeps=True),
    ],
    "next": {"verdict": "wait", "text": "the next step could hit more than the margin", "weight": 25.0, "needed": 50},
    "stopped": False,
    "findings": [],
    "commands": ["promote", "abort", "undo", "pause", "set-weight"],
    "history": [
        change("2026-11-27T13:59:48.000Z", "Progressing", "Progressing", 3, 5.0, "it keeps the margin"),
        change("2026-11-27T13:49:48.000Z", "Pending", "Progressing", 1, 1.0, "promoted", "operate, line 1"),
        change("2026-11-27T13:49:40.000Z", "", "Pending", 0, 0.0, "the release is new"),
    ],
}


def phase(name: Any, **changes: Any) -> Rollout:
    """The same release in another phase."""
    found: Any = {**PROGRESSING, "phase": name, "next": {**PROGRESSING["next"], "needed": None}}
    changed: Rollout = found | changes
    return changed


ROLLED_BACK = phase(
    "RolledBack",
    status="Degraded",
    weight=0.0,
    weights={"gray": 0.0},
    reason="gray fails more often (error_rate)",
    commands=["abort", "retry"],
)


def answer(rollout: Rollout | None, **changes: Any) -> ReleaseAnswer:
    """The answer about a release."""
    found: Any = {**RELEASE, "name": NAME, "scope": FRAME["scope"], "rollout": rollout}
    changed: ReleaseAnswer = found | changes
    return changed


def listed(name: str, rollout: Rollout | None) -> ListedRelease:
    """A release in the list of all."""
    return {
        "name": name,
        "document": True,
        "match": {"host": None, "prefix": "/"},
        "services": ["svc", "svc-gray"],
        "weights": {"stable": 80.0, "gray": 20.0},
        "rollout": rollout,
    }
