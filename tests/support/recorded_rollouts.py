"""How far a release is, in each phase: invented, of the checkout release of `recorded_answers`."""

from typing import Any, get_args

from recorded_answers import RELEASE, at, between, difference, lines, series, variant, verdict

from canary_mw.admin.models.release import ReleaseAnswer
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


_SLOW: Any = {"title": "latency p95", "threshold_ms": 180.0}
GOOD = [
    metric("error_rate", (3, 520), (29, 9_900), ln_e=-0.36, excess_upper=0.022, keeps=False, needed=50),
    metric(
        "latency",
        (31, 480),
        (402, 9_500),
        title="latency p95",
        threshold_ms=180.0,
        ln_e=0.69,
        excess_upper=0.077,
        excess_allowed=0.08,
    ),
]
BAD = [
    metric("error_rate", (14, 501), (30, 9_890), ln_e=5.02, excess_upper=0.047, keeps=False),
    metric(
        "latency",
        (30, 480),
        (402, 9_500),
        title="latency p95",
        threshold_ms=180.0,
        ln_e=0.41,
        excess_upper=0.077,
        excess_allowed=0.08,
    ),
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
        "controller": {"name": "worker 4711 of gateway-7c9f-x2k4q", "here": True, "pods": None},
        "steps": [step(place, -1 if latched else 1) for place in range(5)],
        "metrics": GOOD,
        "queries": [],
        "next": {"verdict": "wait", "text": "about 50 more requests in gray", "weight": 25.0, "needed": 50},
        "stopped": False,
        "findings": [],
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
        reason="the command pause",
        findings=["the store of states cannot be written: No space left on device"],
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
        weight=100.0,
        weights={"gray": 100.0},
        baked_seconds=1_800.0,
        steps=[step(place, 5) for place in range(5)],
        next=_NONE,
    ),
    "RolledBack": ROLLED_BACK,
    "Aborted": rollout(
        "Aborted",
        status="Degraded",
        reason="the command abort",
        since=at(3),
        next=_ABORTED,
        history=[change(3, "Progressing", "Aborted", 0, 0.0, "abort", "ci"), *_BEGUN],
    ),
}
assert set(ROLLOUTS) == set(get_args(Phase))


def over_time(metrics: list[RolloutMetric], minutes: float = 28.0, until: float = 0.0) -> list[EvidenceOverTime]:
    """How the evidence of the metrics grew between some minutes before now: flat at first, then up to what it is."""
    looks = 57
    shares = [max((place - looks * 0.6) / (looks * 0.4), 0.0) ** 1.5 for place in range(looks)]
    return [
        {
            "variant": each["variant"],
            "title": each["title"],
            "ln_needed": LN_NEEDED,
            "at": [at(until + (minutes - until) * (1 - place / (looks - 1))) for place in range(looks)],
            "ln_e": [
                (each["ln_e"] or 0.0) * share / shares[-1] - 0.2 * (1 - share / shares[-1]) * (1 + place % 3)
                for place, share in enumerate(shares)
            ],
        }
        for each in metrics
    ]


_STEPS = (
    "kind: GrayRelease",
    "name: checkout-2026-11",
    'revision: "1.4.2"',
    "gray: [shop-gray]",
    "sticky: {header: x-user-id, cookie: uid}",
    "steps:",
    "- setWeight: 1",
    "- pause: {duration: 10m}",
    "- setWeight: 5",
    "- pause: {duration: 10m}",
    "- setWeight: 25",
    "- pause: {}",
    "- setWeight: 50",
    "- pause: {duration: 10m}",
    "- setWeight: 100",
    "bake: {duration: 30m, holdback: 5}",
    "analysis: {}",
)
_STEPPED: Any = {
    "events": [{"at": at(17, 12), "kind": "weight", "text": "weight 1 → 5"}],
    "weights": {"stable": 95.0, "gray": 5.0},
    "seen": {"stable": 94.96, "gray": 5.04},
    "seen_percent": 5.04,
    "requests": 62_350,
    "failures": [{"variant": "gray", "kind": "503", "text": "503 sent by shop-gray", "count": 14}],
    "clients_saw": {
        "failures": 14,
        "stepped_in": 9,
        "clients": 5,
        "text": "Clients saw 5 of these 14. Stable answered the other 9.",
    },
    "rules": [{**RELEASE["rules"][0], "excerpt": lines(9, *_STEPS)}],
    "changes": [
        {"at": at(17, 12), "generation": 43, "text": "gray 1 % to 5 %"},
        {"at": at(28, 30), "generation": 42, "text": "gray 0 % to 1 %"},
    ],
    "choice": {
        **RELEASE["choice"],
        "ring": {**(RELEASE["choice"]["ring"] or {}), "ranges": {"gray": [[0, 50_000]]}, "before": [10_000]},
    },
    "reasons": [
        {**RELEASE["reasons"][0], "requests": {"stable": 55_870, "gray": 2_962}},
        {**RELEASE["reasons"][1], "requests": {"stable": 3_338, "gray": 180}},
    ],
    "answers": [
        {"status": "2xx", "note": "", "requests": {"stable": 58_604, "gray": 3_059}},
        {"status": "3xx", "note": "", "requests": {"stable": 388, "gray": 48}},
        {"status": "4xx", "note": "not counted as errors", "requests": {"stable": 176, "gray": 19}},
        {"status": "503", "note": "sent by shop-gray", "requests": {"stable": 3, "gray": 14}},
    ],
}
_FIGURES = variant("shop-stable", 59_208, 243, (31, 118, 290)), variant("shop-gray", 3_142, 14, (32, 121, 301))


def _seen(*rates: list[float]) -> Any:
    return {
        "start": at(60),
        "step_seconds": 60,
        "stable": series(1, 11_840, [0.0041] * 60, 118),
        "gray": series(2, 600, [each for part in rates for each in part], 121),
    }


def _calm(state: Rollout) -> ReleaseAnswer:
    """The checkout release while gray does what stable does."""
    said = verdict("same", "No difference seen.", "In errors it lies between −0.2 and +0.4 points.")
    apart = difference(between(-0.0016, 0.0036), between(-6, 11))
    whole: Any = {
        **RELEASE,
        **_STEPPED,
        "verdict": said,
        "verdicts": {"gray": said},
        "needs_you": False,
        "variants": {"stable": _FIGURES[0], "gray": _FIGURES[1]},
        "difference": apart,
        "differences": {"gray": apart},
        "series": _seen([0.0044] * 60),
        "rollout": state,
        "evidence": over_time(state["metrics"]),
    }
    return whole  # type: ignore[no-any-return]


def _taken_back() -> ReleaseAnswer:
    """The checkout release some minutes after it was rolled back."""
    todo = (
        "mend gray; then `canary-mw release retry checkout-2026-11`, or another revision in rules/checkout.yaml:11,"
        " begins the next attempt."
    )
    since = "No gray request since 14:00. Rolled back at 14:00: gray fails more often."
    said = verdict("off", "Off: gray's weight is 0.", since, todo, 11)
    quiet = _seen([0.0044] * 45, [0.012, 0.021, 0.028, 0.029, 0.031, 0.03, 0.029, 0.031])
    for name in ("requests", "errors", "error_rate", "error_low", "error_high", "p95_ms", "p95_low", "p95_high"):
        quiet["gray"][name] = [*quiet["gray"][name], *[0 if name in ("requests", "errors") else None] * 7]
    whole: Any = {
        **_calm(ROLLED_BACK),
        "verdict": said,
        "verdicts": {"gray": said},
        "needs_you": True,
        "weights": {"stable": 100.0, "gray": 0.0},
        "seen": {"stable": 100.0, "gray": 0.0},
        "seen_percent": 0.0,
        "events": [*_STEPPED["events"], {"at": at(6, 12), "kind": "weight", "text": "weight 5 → 0"}],
        "variants": {"stable": variant("shop-stable", 62_350, 256, (31, 118, 290))},
        "difference": None,
        "differences": {"gray": None},
        "series": quiet,
        "failures": [],
        "clients_saw": {"failures": 0, "stepped_in": 0, "clients": 0, "text": ""},
        "evidence": over_time(BAD, 28, 6.2),
        "changes": [{"at": at(6, 12), "generation": 44, "text": "gray 5 % to 0 %"}, *_STEPPED["changes"]],
        "choice": {
            **_STEPPED["choice"],
            "ring": {**_STEPPED["choice"]["ring"], "ranges": {"gray": [[0, 0]]}, "before": [50_000]},
        },
        "reasons": [{**RELEASE["reasons"][0], "requests": {"stable": 62_350, "gray": 0}}],
        "answers": [{"status": "2xx", "note": "", "requests": {"stable": 62_094, "gray": 0}}],
    }
    return whole  # type: ignore[no-any-return]


# The whole page of it, in these phases.
RELEASES: dict[Phase, ReleaseAnswer] = {
    **{phase: _calm(state) for phase, state in ROLLOUTS.items()},
    "RolledBack": _taken_back(),
}
