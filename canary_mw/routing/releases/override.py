"""What is in force in place of the weights that a release is written with: the state of a progressive delivery."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, replace

from canary_mw.rules.id_list import NO_IDS
from canary_mw.rules.release import SLOTS_PER_PERCENT, GrayRelease, ReleaseVariant


class LatchCell:
    """A number that all workers of a server see at once: the newest attempt of a release that was taken back.

    Two of them are never equal: each is a place in memory.

    Attributes:
        cells: one number of 64 bits.
    """

    __slots__ = ("cells",)

    def __init__(self, cells: "memoryview[int]") -> None:
        self.cells = cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What counts in place of the document.

    Attributes:
        weights: the percent of each gray variant; one without a percent gets nothing.
        attempt: that of the state which this follows from; 0 for none.
        step: number of the stay at these weights.
        stage: index of the stage of the plan.
        off: the attempt was rolled back or aborted: only a choice by name reaches gray.
        stopped: everybody gets stable, who chooses gray by name too.
        subject: what was released when this was decided; for a document with another subject, gray gets nothing. ""
            fits every document.
        latch: the attempt is off as soon as this holds its number, or a later one.
    """

    weights: Dict[str, float]
    attempt: int = 0
    step: int = 0
    stage: int = 0
    off: bool = False
    stopped: bool = False
    subject: str = ""
    latch: LatchCell | None = None


# By the name of the release.
Overrides = Dict[str, Override]
NO_OVERRIDES: Overrides = {}


def overridden(document: GrayRelease, override: Override | None) -> GrayRelease:
    """The release as it is in force: with the weights of its override."""
    if override is None:
        return document
    if override.stopped:
        return replace(document, enabled=False)
    weights = {} if override.off else override.weights
    variants = tuple(_weighted(each, weights.get(each.name, 0.0), off=override.off) for each in document.variants)
    return replace(document, variants=variants, drain=document.drain and not override.off)


def _weighted(variant: ReleaseVariant, percent: float, *, off: bool) -> ReleaseVariant:
    slots = round(percent * SLOTS_PER_PERCENT)
    return replace(variant, slots=slots, always=NO_IDS if off else variant.always)


def progress_of(override: Override | None) -> tuple[int, int, int]:
    """Attempt, step and stage; 0 without an override."""
    return (0, 0, 0) if override is None else (override.attempt, override.step, override.stage)
