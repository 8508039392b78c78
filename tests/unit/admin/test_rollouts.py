"""What the API says of a release that raises its own weight: who is needed, what to do, and evidence over time."""

import gc
import json
from itertools import count
from typing import Any

import pytest
from admin_client import GOOD, admin, fetch_app, loaded, validated
from recorded_figures import NOW, evidence, figures, release_figures, steady
from recorded_rollouts import BAD, ROLLED_BACK, ROLLOUTS, rollout
from servers import run

from canary_mw.admin.models.rollout import Rollout
from canary_mw.admin.releases.trail import MOST, Metric, Trail, Trails
from canary_mw.observability.figures.values import Figures

WEIGHTS = '{"stable": 80, "gray": 20}'
FAILING = release_figures(
    steady(800, 3), steady(200, 6, 4), evidence(WEIGHTS, stable=(8000, 7900, 20), gray=(2000, 1900, 60))
)
QUIET = release_figures(steady(8000, 80), steady(2000, 20))


def overview(found: Figures, **rollouts: Rollout) -> Any:
    """The overview of two releases, "shop" and "a", where some of them have a state."""

    async def main() -> Any:
        app = admin(GOOD, read_figures=lambda: found, clock=lambda: NOW, rollout=rollouts.get)
        return validated(await fetch_app(app, "/api/v1/overview"), "/api/v1/overview")

    return run(main())


@pytest.mark.parametrize(
    ("phase", "found", "needed", "finding"),
    [
        ("Progressing", FAILING, True, "shop needs you: gray is failing."),
        ("Progressing", QUIET, False, "No release needs you."),
        ("Paused", QUIET, False, "No release needs you."),
        ("Held", QUIET, True, "shop needs you: it is held."),
        ("RolledBack", FAILING, True, "shop needs you: it was rolled back."),
        ("RolledBack", QUIET, True, "shop needs you: it was rolled back."),
        ("Aborted", FAILING, False, "No release needs you."),
        ("Completed", QUIET, False, "No release needs you."),
    ],
)
def test_who_is_needed_follows_from_the_figures_and_from_the_phase(
    phase: Any, found: Figures, needed: bool, finding: str
) -> None:
    answer = overview(found, shop=ROLLOUTS[phase])
    shop = next(each for each in answer["releases"] if each["name"] == "shop")
    assert (shop["rollout"]["phase"], shop["needs_you"], answer["finding"]) == (phase, needed, finding)
    if needed:
        assert answer["releases"][0] is shop


def test_a_release_that_harms_somebody_now_comes_before_one_that_waits() -> None:
    answer = overview(FAILING, shop=ROLLOUTS["Progressing"], a=ROLLED_BACK)
    assert [each["name"] for each in answer["releases"]] == ["shop", "a"]
    answer = overview(FAILING, shop=ROLLED_BACK, a=ROLLOUTS["Held"])
    assert [each["name"] for each in answer["releases"]] == ["shop", "a"]
    assert answer["finding"] == "2 of 2 releases need a look."


@pytest.mark.parametrize(
    ("phase", "held_by", "found", "command", "said"),
    [
        (
            "Progressing",
            "",
            FAILING,
            "canary-mw release abort shop",
            "take gray back: run canary-mw release abort shop",
        ),
        ("RolledBack", "", FAILING, None, "`canary-mw release retry shop`, or another revision in rules:"),
        ("Aborted", "", FAILING, None, ""),
        ("Held", "sample_ratio", QUIET, None, "another balancer"),
        ("Held", "metric", QUIET, None, "`canary-mw release promote shop` takes the next step"),
        ("Held", "unheard of", QUIET, None, "`canary-mw release promote shop` takes the next step"),
        ("Progressing", "", QUIET, None, ""),
    ],
)
def test_what_to_do_is_a_command_where_there_are_steps(
    phase: Any, held_by: str, found: Figures, command: str | None, said: str
) -> None:
    (shop,) = [
        each
        for each in overview(found, shop={**ROLLOUTS[phase], "held_by": held_by})["releases"]
        if each["name"] == "shop"
    ]
    verdict = shop["verdict"]
    assert verdict["command"] == command
    assert said in verdict["what_to_do"]
    assert bool(verdict["what_to_do"]) == bool(said)


def test_a_release_that_was_rolled_back_says_when_and_why() -> None:
    weightless = GOOD.replace("gray: {gray: 20}", "gray: {gray: 0}")

    async def main() -> Any:
        app = admin(weightless, read_figures=figures, clock=lambda: NOW, rollout={"shop": ROLLED_BACK}.get)
        return validated(await fetch_app(app, "/api/v1/releases/shop"), "/api/v1/releases/{name}")

    verdict = run(main())["verdict"]
    assert verdict["state"] == "off"
    assert "Rolled back at 14:00: gray fails more often: 14 of 501 keys" in verdict["details"]


def test_evidence_over_time_is_that_of_the_looks_at_one_attempt() -> None:
    async def main() -> Any:
        app = admin(GOOD, read_figures=figures, clock=lambda: NOW, rollout={"shop": ROLLOUTS["Progressing"]}.get)
        return validated(await fetch_app(app, "/api/v1/releases/shop"), "/api/v1/releases/{name}")

    errors, latency = run(main())["evidence"]
    assert (errors["title"], errors["ln_needed"], errors["ln_e"]) == ("error_rate", 4.60517, [-0.36])
    assert errors["at"] == ["2026-11-27T14:06:00.000Z"]
    assert (latency["title"], latency["ln_e"]) == ("latency p95", [0.69])


def test_a_trail_keeps_a_whole_attempt_in_so_many_looks() -> None:
    trail = Trail(1)
    for second in range(10_000):
        trail.note(BAD, float(second))
    (errors, _) = trail.shown().values()
    assert MOST / 2 <= len(errors) <= MOST
    assert errors[0].time == 0
    assert errors[-1].time > 9_900
    trail.note([], 20_000.0)
    trail.note(BAD, 20_000.1)
    assert trail.shown()[Metric("gray", "error_rate")][-1].time == 20_000.1


def test_another_attempt_begins_another_trail_and_a_release_that_is_gone_has_none() -> None:
    trails, state, errors = Trails(), rollout("Progressing"), Metric("gray", "error_rate")
    assert [len(trails.look("shop", state, now)[errors]) for now in (1.0, 1.5, 2.5)] == [1, 1, 2]
    assert len(trails.look("shop", rollout("Progressing", attempt=2), 3.0)[errors]) == 1
    trails.keep({"other"})
    assert len(trails.look("shop", state, 4.0)[errors]) == 1


def test_a_trail_ends_with_the_attempt() -> None:
    trails, errors = Trails(), Metric("gray", "error_rate")
    trails.look("shop", rollout("Progressing"), 1.0)
    assert [each.ln_e for each in trails.look("shop", ROLLED_BACK, 1.1)[errors]] == [-0.36, 5.02]
    assert len(trails.look("shop", ROLLED_BACK, 9_000.0)[errors]) == 2
    # Of an attempt that had ended before the process began nothing is known.
    assert Trails().look("shop", ROLLED_BACK, 1.0) == {}


def test_the_evidence_is_looked_at_while_nobody_has_a_page_open() -> None:
    steps = "gray: [gray]\nsteps: [{setWeight: 20}, {setWeight: 100}]"
    store = loaded(GOOD.replace("gray: {gray: 20}", steps))
    asked: list[str] = []

    def state(name: str) -> Rollout:
        asked.append(name)
        return rollout("Progressing")

    times = count(NOW - 60, 20)
    app: list[Any] = [admin(store=store, read_figures=figures, clock=lambda: next(times), rollout=state)]
    (tick,) = store.ticks
    assert tick() == tick() == 5.0
    assert asked == ["shop", "shop"], "a group has no attempt"

    async def main() -> Any:
        return json.loads((await fetch_app(app.pop(), "/api/v1/releases/shop")).body)

    assert len(run(main())["evidence"][0]["at"]) == 3
    gc.collect()
    assert tick() > 60, "nobody shows it"
