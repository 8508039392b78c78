"""Epochs: times of equal weights. A drawn request counts in the epoch of the very weights by which it was drawn."""

import json
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from hashlib import sha256
from typing import NamedTuple

from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import SLOTS_PER_PERCENT, STABLE, GrayRelease


class Epoch(NamedTuple):
    """What evidence is kept apart by.

    Attributes:
        subject: changes with what is released; evidence of another subject says nothing.
        weights: the percent of each variant and of stable, as JSON.
    """

    subject: str
    weights: str


def epoch_of_release(document: GrayRelease, slots: Dict[str, int]) -> Epoch:
    """The epoch of a release, given the slots of its variants."""
    variants = [[each.name, each.mappings] for each in document.variants]
    subject = [variants, document.stable, document.stable_local, document.hash, document.revision]
    return _epoch(subject, {name: count / SLOTS_PER_PERCENT for name, count in slots.items()})


def epoch_of_group(stable: Iterable[Mapping], gray: Iterable[tuple[str, Mapping, float]]) -> Epoch:
    """The epoch of a group without a release, given its gray variants with their names and percents."""
    gray = list(gray)
    subject = [[each.name, each.service.text] for each in (*stable, *(mapping for _, mapping, _ in gray))]
    return _epoch(subject, {name: percent for name, _, percent in gray})


def _epoch(subject: object, percents: dict[str, float]) -> Epoch:
    weights = {STABLE: 100.0 - sum(percents.values()), **percents}
    text = json.dumps(subject, default=str)
    shown = {name: round(percent, 6) for name, percent in weights.items()}
    return Epoch(sha256(text.encode(), usedforsecurity=False).hexdigest()[:16], json.dumps(shown))
