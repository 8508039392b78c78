"""Releases with steps under `canary-mw serve` with four workers: real requests, real evidence, steps of a second."""

from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from servers import run
from stepping import Release, stepping

from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import SLOTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECONDS = 80
# Seconds within which workers follow a change of weights, on a busy machine.
LAG = 0.7
# So wide that some thousand requests are enough.
WIDE: dict[str, Any] = {"margin": "2%", "metrics": [{"name": "error_rate"}]}


def steps(*percents: int, seconds: float = 1) -> list[dict[str, Any]]:
    """Steps with a pause after each but the last one."""
    written: list[dict[str, Any]] = []
    for percent in percents:
        written += [{"setWeight": percent}, {"pause": {"duration": f"{int(seconds * 1000)}ms"}}]
    return written[:-1]


def is_at(percent: float) -> Any:
    return lambda state: state.weight == percent


def is_in(phase: str) -> Any:
    return lambda state: state.phase == phase


def test_equal_versions_go_through_all_steps_and_each_user_gets_what_the_weight_says(tmp_path: Path) -> None:
    async def main() -> None:
        fields: dict[str, Any] = {
            "steps": steps(5, 25, 50, 100),
            "bake": {"duration": "1s", "holdback": 0},
            "analysis": WIDE,
        }
        async with stepping(tmp_path, **fields) as release:
            weights = [(0.0, 0.0)]
            while release.state.phase != "Completed":
                since = monotonic() - LAG
                got = await release.users.send(200)
                weights.append((monotonic(), release.state.weight))
                # While weights change, the workers follow one by one.
                first = max(number for number, (at, _) in enumerate(weights) if at <= since)
                assert misplaced(got, {weight for _, weight in weights[first:]}) == []
            assert misplaced(await release.users.send(400), {100.0}) == []
            assert release.users.failed == 0
            assert sorted({weight for _, weight in weights}) == [0, 5, 25, 50, 100]
            assert "RolledBack" not in {each.after for each in release.state.history}

    run(main(), SECONDS)


def misplaced(got: list[tuple[int, bytes]], percents: set[float]) -> list[tuple[int, bytes]]:
    """The requests that got what none of these weights says."""
    bounds = [percent / 100 * SLOTS for percent in percents]
    return [(slot, who) for slot, who in got if who not in {b"gray" if slot < bound else b"stable" for bound in bounds}]


def test_an_incident_of_both_sides_changes_nothing_and_a_gray_that_fails_is_rolled_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with stepping(tmp_path, steps=steps(25, 50, 100), analysis=WIDE) as release:
            await release.until(is_at(25))
            release.gray.error = release.stable.error = 0.2
            await release.users.send(600)
            state = await release.next_look()
            assert (state.phase, state.weight) == ("Progressing", 25)
            release.gray.error = release.stable.error = 0.0
            await release.until(is_at(50), load=200)

            release.gray.error = 0.3
            state = await release.until(is_in("RolledBack"), load=100)
            assert "gray fails more often (gray, error_rate)" in state.reason
            assert state.weights == {"gray": 0}
            assert {who for _, who in await release.users.send(10_000)} == {b"stable"}
            user = release.users.key_below(5)
            assert set(await release.users.send_as(user, 10, chosen=True)) == {b"gray"}

    run(main(), SECONDS)


def test_a_slower_gray_is_rolled_back(tmp_path: Path) -> None:
    # Far from what a busy machine adds to both sides.
    analysis = {"metrics": [{"name": "latency", "threshold": "500ms"}]}

    async def main() -> None:
        async with stepping(tmp_path, steps=steps(25, 50, 100), analysis=analysis) as release:
            release.gray.delay = 1.0
            await release.until(is_at(25))
            state = await release.until(is_in("RolledBack"), load=100)
            assert "gray is slower (gray, latency)" in state.reason

    run(main(), SECONDS)


def test_testers_prove_nothing_and_edits_do_as_they_say(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"steps": steps(25, 50, 100), "analysis": WIDE}

    async def main() -> None:
        async with stepping(tmp_path, **fields) as release:
            await release.until(is_at(25))
            release.gray.failing = {b"tester"}
            assert set(await release.users.send_as(b"tester", 500, chosen=True)) == {b"gray"}
            await release.until(is_at(50), load=200)
            await edit_at_the_second_step(release, fields)

    run(main(), SECONDS)


async def edit_at_the_second_step(release: Release, fields: dict[str, Any]) -> None:
    """A later step, an earlier one, and another revision."""
    before = release.state
    release.write(**{**fields, "steps": steps(25, 50, 70, 100)})
    assert same(before, await release.next_look())

    release.write(**{**fields, "steps": steps(24, 50, 70, 100)})
    state = await release.until(is_in("Held"))
    assert (state.held_by, state.weight) == ("plan", 50)
    assert "promote goes on with the next step" in state.reason

    release.write(**fields, revision="2")
    state = await release.until(lambda state: state.attempt == 2)
    assert state.weight in (0, 25)
    state = await release.until(is_at(25))
    assert (state.attempt, state.revision) == (2, "2")


def same(before: ReleaseState, after: ReleaseState) -> bool:
    return (before.attempt, before.phase, before.weight) == (after.attempt, after.phase, after.weight)


def test_without_traffic_a_step_is_held_and_one_user_who_fails_is_one_key(tmp_path: Path) -> None:
    analysis = {**WIDE, "timeout": "2s"}

    async def main() -> None:
        async with stepping(tmp_path, steps=steps(25, 50, 100), analysis=analysis) as release:
            state = await release.until(is_in("Held"))
            assert (state.held_by, state.weight) == ("timeout", 25)
            assert "0 of 20 keys were seen in gray" in state.reason
            await release.until(is_at(50), load=200)

            user = release.users.key_below(25)
            release.gray.failing = {user}
            assert set(await release.users.send_as(user, 2000)) == {b"gray"}
            state = await release.next_look()
            assert state.weight == 50
            assert state.phase in ("Progressing", "Held")

    run(main(), SECONDS)
