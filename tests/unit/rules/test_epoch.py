"""Epochs of releases: what evidence is kept apart by."""

from canary_mw.rules.epoch import Epoch, epoch_of_release, subject_of
from canary_mw.rules.release import GrayRelease, HashFunction, ReleaseVariant

RELEASE = GrayRelease(
    name="r",
    variants=(ReleaseVariant(name="gray", mappings=("svc-gray",)),),
    hash=HashFunction("sha256", "r"),
    lane="r",
)


def test_an_epoch_has_the_attempt_and_the_step_of_the_state() -> None:
    weights = '{"stable": 95.0, "gray": 5.0}'
    assert epoch_of_release(RELEASE, {"gray": 50_000}) == Epoch(subject_of(RELEASE), weights, 0, 0)
    assert epoch_of_release(RELEASE, {"gray": 50_000}, 3, 2) == Epoch(subject_of(RELEASE), weights, 3, 2)
