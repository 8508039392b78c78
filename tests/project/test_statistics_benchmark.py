"""benchmarks/statistics: the simulation is what it says, its page is that of its figures, and they keep the promise."""

import json
from math import fsum, sqrt
from random import Random
from typing import Any

import pytest
from installation import ROOT

from benchmarks.statistics.attribution import found, may_be_worse
from benchmarks.statistics.pages import page
from benchmarks.statistics.population import Clock, Weight, exposures, first_failures, population
from benchmarks.statistics.rivals import Minute, judged, minutes
from benchmarks.statistics.tables import WORSE, simulated
from benchmarks.statistics.whole import Case, Release
from canary_mw.rollout.statistics import Epoch

FOLDER = ROOT / "benchmarks" / "statistics"
FIGURES: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


def test_the_page_is_that_of_the_figures() -> None:
    assert (FOLDER / "RESULTS.md").read_text(encoding="utf-8") == page(FIGURES)


def test_the_figures_keep_the_promise() -> None:
    equal = FIGURES["false alarms"]
    assert all(row["runs"] == 1000 and row["rivals"] == 300 for row in equal)
    assert all(_is_within_chance(row["ours"], row["runs"]) for row in equal)
    # alpha is 1 %.
    assert fsum(row["ours"] * row["runs"] for row in equal) <= fsum(row["runs"] for row in equal)
    assert all(row["flagger"] == row["argo"] == 100 for row in equal)
    slow = [row for row in FIGURES["slow answers"] if row["stream"].startswith("equal")]
    assert all(_is_within_chance(row["found"], row["runs"]) for row in slow)
    whole = FIGURES["whole releases"]
    assert whole[0]["runs"] == 1000
    assert all(_is_within_chance(row["rolled back"], row["runs"]) for row in whole if row["gray"].startswith("equal"))
    assert all(row["beyond margin"] == 0 for row in whole)
    assert all(row["completed"] == 0 for row in whole if row["gray"].startswith(("×3", "×6")))


def _is_within_chance(percent: float, runs: int) -> bool:
    """Whether so many may be taken back at 1 percent: three deviations more than the mean."""
    mean = runs / 100
    return bool(percent * runs / 100 <= mean + 3 * sqrt(mean))


@pytest.mark.parametrize("few", [False, True])
def test_the_population_makes_the_requests_and_the_failures_that_are_meant(few: bool) -> None:
    people = population(Random(1), 4000, 2000.0, 0.005, few=few)
    assert fsum(user.rate for user in people) == pytest.approx(2000)
    assert fsum(user.failures for user in people) == pytest.approx(10, rel=1e-6 if not few else 0.05)
    assert all(user.failures <= user.rate for user in people)
    worst = sorted(user.failures for user in people)[-80:]
    assert (fsum(worst) > 6) is few


def test_first_failures_come_as_often_as_their_rates_say() -> None:
    people = population(Random(2), 4000, 2000.0, 0.005)
    weights = [Weight(0.1, 30), Weight(0.5, 30)]
    clock = Clock(60)
    failures = first_failures(Random(3), people, weights, clock, 4.0)
    assert failures == sorted(failures)
    seen = exposures(people, failures, weights, 60.0)
    for epoch, (weight, arms) in enumerate(zip(weights, seen, strict=True)):
        for gray, requests, rate in ((True, arms[0], 0.02), (False, arms[1], 0.005)):
            mine = [each for each in failures if each.epoch == epoch and each.gray is gray]
            assert len(mine) == pytest.approx(requests * rate, abs=5 * (requests * rate) ** 0.5)
            assert all((each.user.slot < weight.share) is gray for each in mine)


def test_an_incident_lets_time_run_faster() -> None:
    clock = Clock(180, incident=40.0)
    assert clock.at(60) == 60
    assert clock.at(62) == 140
    assert clock.at(61.5) == pytest.approx(120)
    for minute in (0.0, 5.5, 60.25, 61.0, 75.0, 121.9):
        assert clock.minute(clock.at(minute)) == pytest.approx(minute)
    assert clock.minute(1e9) == 180


def test_what_may_be_enough_evidence_is_never_less_than_what_is() -> None:
    random = Random(4)
    weights = [Weight(0.05, 1), Weight(0.3, 1)]
    worse = 0
    for _ in range(300):
        gray = [random.randrange(12), random.randrange(30)]
        stable = [random.randrange(60), random.randrange(30)]
        epochs = [Epoch(w.share, x, y, 1000, 10_000) for w, x, y in zip(weights, gray, stable, strict=True)]
        is_worse = found(epochs).worse
        worse += is_worse
        assert may_be_worse(weights, gray, stable) or not is_worse
    assert 50 < worse < 250


def test_the_other_rules_count_bad_minutes() -> None:
    good, bad, none = Minute(100, 1, 900, 9), Minute(100, 2, 900, 9), Minute(0, 0, 900, 9)
    assert judged(iter([bad, good, none, bad, bad, bad, bad]))[:2] == (7, 6)
    assert judged(iter([good, none] * 100)) == (None, None, None)
    assert judged(iter([Minute(100, 20, 900, 9)])).z_test == 1


def test_minutes_hold_the_first_failures_and_those_that_come_again() -> None:
    people = population(Random(5), 2000, 1000.0, 0.01, few=True)
    weights, clock = [Weight(0.2, 60)], Clock(60)
    failures = first_failures(Random(6), people, weights, clock, 1.0)
    counted = list(minutes(Random(7), people, failures, weights, clock, 1.0))
    assert len(counted) == 60
    bad = sum(each.gray_bad + each.stable_bad for each in counted)
    assert bad > len(failures)
    assert bad == pytest.approx(600, rel=0.2)


def test_a_seed_gives_the_same_release() -> None:
    assert simulated(WORSE[0], 3) == simulated(WORSE[0], 3)
    case = Case(ratio=30.0, users=1000, hours=1)
    ended = Release(case, 1).ended()
    assert ended == Release(case, 1).ended()
    assert (ended.end, ended.raised <= 0.005) == ("rolled back", True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_200_equal_releases_at_most_6_are_taken_back() -> None:
    """At alpha 1 %, 7 or more would be with a probability of 0.4 %."""
    ends = [Release(Case(few=seed % 2 == 1), 5000 + seed).ended() for seed in range(200)]
    assert sum(each.end == "rolled back" for each in ends) <= 6
    assert sum(each.end == "completed" for each in ends) >= 190
    assert all(each.raised == 0 for each in ends)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_six_times_as_many_errors_are_found_within_minutes() -> None:
    """3 % against 0.5 % at a weight of 10 % and 2,000 requests a minute."""
    times = [simulated(WORSE[0], 9000 + seed, rivals=False).ours for seed in range(200)]
    found_in = [sum(time is not None and time <= limit for time in times) / len(times) for limit in (3, 5)]
    assert found_in[0] >= 0.9
    assert found_in[1] >= 0.99
