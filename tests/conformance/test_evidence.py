"""Recorded evidence: what 50-digit arithmetic gives for the tests of a release, and what streams of requests add up to.

`tests/conformance/evidence/*.json` say in `about` what they hold. Each case is asked as a line of
`canary-mw evidence --batch`.
"""

import json
from collections.abc import Iterator
from math import isclose
from pathlib import Path
from typing import Any

import pytest

from canary_mw.rollout.batch.answers import answer

FOLDER = Path(__file__).parent / "evidence"
# The outputs of a case, and how exact they are: the tests of failures to 1e-12, that of the sample ratio to 1e-10.
OUTPUTS = {
    "attribution": ("ln_e", "roll_back_at_0.01"),
    "combined": ("ln_combined", "ln_needed", "verdict"),
    "poisson_bounds": ("upper", "lower"),
    "promotion": ("excess_upper", "verdict"),
    "sample_ratio": ("ln_e", "hold_at_0.001"),
    "streams": ("counts", "path", "ln_e", "first_roll_back", "distinct_failed_keys"),
    "thinning": ("level", "kept", "estimate"),
    "threshold": ("threshold",),
}
TOLERANCES = {"sample_ratio": 1e-10}


def cases() -> Iterator[Any]:
    for name in OUTPUTS:
        loaded = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["cases"]
        yield from (pytest.param(name, case, id=f"{name}-{index}") for index, case in enumerate(loaded))


def same(got: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, float) and isinstance(got, float):
        return isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(expected, dict):
        return got.keys() == expected.keys() and all(same(got[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(same, got, expected, [tolerance] * len(got)))
    return bool(got == expected and isinstance(got, bool) is isinstance(expected, bool))


@pytest.mark.parametrize(("kind", "case"), list(cases()))
def test_evidence_is_as_recorded(kind: str, case: Any) -> None:
    outputs = OUTPUTS[kind]
    question = {key: value for key, value in case.items() if key not in outputs}
    if kind == "streams":
        question["after"] = [point["after"] for point in case["path"]]
    got = answer({"kind": kind, **question})
    for key in outputs:
        assert same(got[key], case[key], TOLERANCES.get(kind, 1e-12)), (key, got[key], case[key])
