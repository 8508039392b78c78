"""What reloads have changed of a release: from the records that the workers keep of them."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from canary_mw.admin.releases.views import ReleaseView
from canary_mw.inspection.changes import place_of
from canary_mw.observability.figures.values import Figures, ReloadRecord

# A share in the words of `inspection.changes`.
_SHARE = re.compile(r"(?:^|, )([^,]*?) ([0-9.e+-]+) % to ([0-9.e+-]+) %")


class ReleaseChange(NamedTuple):
    """A change of a release.

    Attributes:
        time: seconds since 1970, when the first worker had it.
        shares: old and new percent, by variant or service.
    """

    time: float
    generation: int
    text: str
    shares: dict[str, tuple[float, float]]


def changes_of(figures: Figures, view: ReleaseView) -> list[ReleaseChange]:
    """The changes of a release, the newest first. Workers read the same rules, each by itself."""
    found: dict[tuple[str, str], ReleaseChange] = {}
    for record in sorted(figures.reloads, key=lambda each: each.time):
        for text in lines_about(record, view):
            shares = {name: (float(old), float(new)) for name, old, new in _SHARE.findall(text)}
            found.setdefault((record.content, text), ReleaseChange(record.time, record.generation, text, shares))
    return sorted(found.values(), key=lambda each: -each.time)


def lines_about(record: ReloadRecord, view: ReleaseView) -> Iterator[str]:
    """What a reload says of a release."""
    heads = [f"GrayRelease {view.name}"] if view.compiled else [place_of(group.first) for group in view.groups]
    names = {each.name for mappings in view.targets.values() for each in mappings}
    for line in record.lines:
        for head in heads:
            if line.startswith((f"{head}: ", f"{head} is ")):
                yield line.removeprefix(f"{head}: ").removeprefix(f"{head} ")
        if any(line.startswith(f"Mapping {name} is ") for name in names):
            yield line


def weight_text(view: ReleaseView, change: ReleaseChange) -> str | None:
    """A change of weights as an upright of a chart has it; None for another change."""
    moved = {name: change.shares[key] for name in view.gray for key in _keys(view, name) if key in change.shares}
    one = len(view.gray) == 1
    texts = [f"{'weight' if one else name} {old:g} → {new:g}" for name, (old, new) in moved.items()]
    return ", ".join(texts) or None


def began_at(view: ReleaseView, variant: str, percent: float, changes: list[ReleaseChange]) -> float | None:
    """When a variant got a percent for the last time, in seconds since 1970; None where that is not known."""
    for change in changes:
        for key in _keys(view, variant):
            old, new = change.shares.get(key, (0.0, 0.0))
            if old != new and abs(new - percent) < 0.01:
                return change.time
    return None


def _keys(view: ReleaseView, variant: str) -> list[str]:
    """What the words of a reload call a variant: without a release its service."""
    return [variant] if view.compiled else view.services(variant)
