"""Releases whose weights are not those of their documents: compiled with their overrides, and taken back by latches."""

from collections.abc import Mapping as Dict

from canary_mw.http.messages import RequestHead
from canary_mw.routing.assignment import Assigned, CompiledRelease
from canary_mw.routing.person import Person
from canary_mw.routing.releases.override import LatchCell, Override, Overrides
from canary_mw.rules.epoch import subject_of
from canary_mw.rules.release import STABLE, GrayRelease, Releases

# The reason of a decision where a release was rolled back or aborted.
ROLLED_BACK = "rolled_back"
# The latch of what is off already.
_SET = LatchCell(memoryview(b"\xff" * 8).cast("Q"))


class LatchedRelease(CompiledRelease):
    """A release that is taken back at once, without a new table, as soon as its latch says so.

    Args:
        attempt: the attempt in force.
    """

    __slots__ = ("_attempt", "_cells")

    def __init__(self, document: GrayRelease, override: Override, latch: LatchCell) -> None:
        super().__init__(document, override)
        self._attempt = override.attempt
        self._cells = latch.cells

    def assign(self, head: RequestHead, person: Person, roll: float) -> Assigned:
        """See `CompiledRelease.assign`."""
        assigned = CompiledRelease.assign(self, head, person, roll)
        return assigned if self._cells[0] < self._attempt else _taken_back(assigned)

    def settle(self, head: RequestHead, person: Person) -> Assigned:
        """See `CompiledRelease.settle`."""
        assigned = CompiledRelease.settle(self, head, person)
        return assigned if self._cells[0] < self._attempt else _taken_back(assigned)

    def in_lane(self, variant: str) -> Assigned:
        """See `CompiledRelease.in_lane`."""
        assigned = CompiledRelease.in_lane(self, variant)
        return assigned if self._cells[0] < self._attempt else _taken_back(assigned)

    def assignment_of(self, key: str | bytes) -> Assigned:
        """See `CompiledRelease.assignment_of`; with it `variant_of`."""
        assigned = CompiledRelease.assignment_of(self, key)
        return assigned if self._cells[0] < self._attempt else _taken_back(assigned)

    def by_audience(self, head: RequestHead, person: Person, text: str | None) -> Assigned | None:
        """See `CompiledRelease.by_audience`; what is taken back asks nobody."""
        asked = person if self._cells[0] < self._attempt else person._replace(questions=None)
        return CompiledRelease.by_audience(self, head, asked, text)


def _taken_back(assigned: Assigned) -> Assigned:
    """Stable, but for a choice by name."""
    if assigned.reason.startswith("choice:"):
        return assigned
    return Assigned(assigned.name, STABLE, ROLLED_BACK)


def compiled(
    releases: Releases, overrides: Overrides, previous: Dict[str, CompiledRelease]
) -> dict[str, CompiledRelease]:
    """The releases by name; one that has not changed stays the same object."""
    found = {}
    for document in releases.in_force:
        override, before = _fitting(document, overrides.get(document.name)), previous.get(document.name)
        same = before is not None and before.written == document and before.override == override
        found[document.name] = before if before is not None and same else _compile(document, override)
    return found


def _fitting(document: GrayRelease, override: Override | None) -> Override | None:
    """The override that counts; one of another subject gives gray nothing."""
    if override is None or override.subject in ("", subject_of(document)):
        return override
    return Override(weights={})


def _compile(document: GrayRelease, override: Override | None) -> CompiledRelease:
    latch = _SET if override is not None and override.off else override.latch if override is not None else None
    if override is None or latch is None or override.stopped or not document.enabled:
        return CompiledRelease(document, override)
    return LatchedRelease(document, override, latch)
