"""The sample depends on the set of keys alone."""

import json
from pathlib import Path
from random import Random

import pytest

from canary_mw.rollout.key_sample import Entry, KeySample, union

CASES = json.loads((Path(__file__).parents[2] / "conformance/evidence/thinning.json").read_text("utf-8"))["cases"]
ENTRY = Entry(0, 0)


def sample_of(keys: list[int], cap: int) -> KeySample:
    sample = KeySample(cap)
    for key in keys:
        sample.add(key, ENTRY)
    return sample


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("workers", [1, 3])
def test_any_order_and_any_union_give_the_recorded_sample(case: int, workers: int) -> None:
    vector = CASES[case]
    keys = [int(key, 16) for key in vector["keys"]]
    expected = None
    for seed in range(3):
        Random(seed).shuffle(keys)
        sample = union((sample_of(keys[worker::workers], vector["cap"]) for worker in range(workers)), vector["cap"])
        assert (sample.level, len(sample), sample.estimate) == (vector["level"], vector["kept"], vector["estimate"])
        kept = dict(sample.items())
        assert expected in (None, kept)
        expected = kept


def test_a_key_is_new_once_and_not_at_all_where_it_is_thinned_out() -> None:
    sample = KeySample(2)
    assert sample.add(0b100, ENTRY)
    assert not sample.add(0b100, ENTRY)
    assert sample.add(0b1000, ENTRY)
    assert not sample.add(0b1, ENTRY)
    assert not sample.add(0b11, ENTRY)
    assert [key for key, _ in sample.items()] == [0b100, 0b1000]
    assert sample.estimate == 4


def test_the_first_failure_of_a_key_counts_wherever_it_was_and_its_last_step() -> None:
    one, other = KeySample(), KeySample()
    one.add(7, Entry(epoch=2, arm=1, bits=1, step=2))
    other.add(7, Entry(epoch=1, arm=0, bits=2, step=1))
    for samples in ((one, other), (other, one)):
        assert dict(union(samples).items()) == {7: Entry(epoch=1, arm=0, bits=3, step=2)}


def test_a_union_forgets_what_one_of_its_samples_has_forgotten() -> None:
    small, large = sample_of([0b10, 0b100, 0b110], 1), sample_of([0b1, 0b1000], 10)
    both = union([large, small], cap=10)
    assert both.level == small.level
    assert {key for key, _ in both.items()} == {0b100, 0b1000} - {key for key in (0b100, 0b1000) if key % 2**both.level}
