"""Recorded evidence: what 50-digit arithmetic gives for the tests of a release, and what streams of requests add up to.

`tests/conformance/evidence/*.json` say in `about` what they hold, and how exact a figure has to be.
"""

import json
from math import isclose
from pathlib import Path
from typing import Any

import pytest

from canary_mw.rollout.statistics import (
    Arm,
    Epoch,
    SeenKeys,
    attribution,
    excess_upper,
    hazard_bounds,
    ln_needed,
    log_mean_exp,
    nearest_rank,
    sample_ratio,
)

FOLDER = Path(__file__).parent / "evidence"


def cases(name: str) -> list[Any]:
    loaded = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["cases"]
    assert isinstance(loaded, list)
    return loaded


def close(got: float | None, expected: float | None, tolerance: float = 1e-9) -> bool:
    if got is None or expected is None:
        return got is expected
    return isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)


@pytest.mark.parametrize("case", cases("attribution"))
def test_attribution(case: Any) -> None:
    epochs = [Epoch(each["weight"], each["gray"], each["stable"]) for each in case["epochs"]]
    assert close(attribution(epochs, case["tolerated"], case["direction"]), case["ln_e"])


@pytest.mark.parametrize("case", cases("combined"))
def test_combined(case: Any) -> None:
    combined = log_mean_exp(case["ln_e"], case["shares"])
    needed = ln_needed(case["alpha"], case["gray_variants"], case["alone_of"])
    assert close(combined, case["ln_combined"])
    assert close(needed, case["ln_needed"])
    assert (combined >= needed) is (case["verdict"] == "roll_back")


@pytest.mark.parametrize("case", cases("poisson_bounds"))
def test_bounds_of_a_hazard(case: Any) -> None:
    bounds = hazard_bounds(case["events"], case["beta"])
    assert close(bounds.upper, case["upper"])
    assert close(bounds.lower, case["lower"])


@pytest.mark.parametrize("case", cases("promotion"))
def test_excess(case: Any) -> None:
    gray = Arm(case["gray_first_failures"], case["gray_exposures"])
    stable = Arm(case["stable_first_failures"], case["stable_exposures"])
    assert close(excess_upper(gray, stable, case["beta"]), case["excess_upper"])


@pytest.mark.parametrize("case", cases("sample_ratio"))
def test_sample_ratio(case: Any) -> None:
    seen = [SeenKeys(each["weight"], each["gray_keys"], each["stable_keys"]) for each in case["epochs"]]
    assert close(sample_ratio(seen, case["strength"]), case["ln_e"], 1e-8)


@pytest.mark.parametrize("case", cases("threshold"))
def test_threshold(case: Any) -> None:
    assert nearest_rank(case["first_latencies"], case["quantile"]) == case["threshold"]
