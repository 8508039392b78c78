import pytest
from rules import mapping

from canary_mw.rules.mapping import Mapping
from canary_mw.rules.weights import thresholds


def weighted(*weights: int | None) -> list[Mapping]:
    return [mapping(f"m{number}", weight=weight) for number, weight in enumerate(weights)]


@pytest.mark.parametrize(
    ("weights", "bounds"),
    [
        ([None], [100]),
        ([20], [100]),
        ([0], [100]),
        ([None, 20], [20, 100]),
        ([20, 30], [20, 50]),
        ([60, 60], [60, 100]),
        ([50, 51], [50, 100]),
        ([0, None], [0, 100]),
        ([0, 0], [0, 0]),
        ([-10, None], [0, 100]),
        ([101, 20, None], [0, 20, 100]),
        ([20, 101, None], [20, 20, 100]),
        ([101], [100]),
        ([101, 0], [0, 100]),
        ([60, 50, None], [0, 60, 100]),
        ([None, None, None], [33, 66, 100]),
        ([98, None, None, None], [98, 99, 100, 100]),
        ([97, *[None] * 6], [97, 97, 97, 97, 97, 97, 100]),
        ([None] * 6, [17, 34, 51, 68, 85, 100]),
    ],
)
def test_weights_become_thresholds_as_in_emissary_but_for_wrong_ones(
    weights: list[int | None], bounds: list[int]
) -> None:
    assert sorted(bound for _, bound in thresholds(weighted(*weights))) == sorted(bounds)


def test_weighted_mappings_come_before_weightless_ones_in_a_group() -> None:
    assert [m.name for m, _ in thresholds(weighted(None, 20, None, 30))] == ["m1", "m3", "m0", "m2"]


def test_the_weight_of_a_single_mapping_counts_in_a_middleware() -> None:
    assert thresholds(weighted(20), ignore_single_weight=False) == [(mapping("m0", weight=20), 20.0)]
    assert thresholds(weighted(None), ignore_single_weight=False) == [(mapping("m0"), 100.0)]
    assert thresholds(weighted(101, 0), ignore_single_weight=False) == [
        (mapping("m0", weight=101), 0.0),
        (mapping("m1", weight=0), 0.0),
    ]
