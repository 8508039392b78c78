"""What is known of a text, piece by piece, and where it stands: a document that moved is not read again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from canary_mw.config.resource import Context, Resource
from canary_mw.config.yaml_loader import Finding


@dataclass(slots=True)
class Found:
    """What one text gave; lines count from its start."""

    resources: list[Resource] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, inner: "Found | Piece", place: Callable[[int], int] | int) -> None:
        """Take what a part of this text gave; `place` turns its lines into lines of this text, a number shifts them."""
        if isinstance(place, int):
            self.resources += [resource.moved(place) for resource in inner.resources]
            self.findings += [_placed(finding, place.__add__) for finding in inner.findings]
        else:
            self.resources += [resource.placed(place) for resource in inner.resources]
            self.findings += [_placed(finding, place) for finding in inner.findings]


def _placed(finding: Finding, place: Callable[[int], int]) -> Finding:
    other = None if finding.other is None else place(finding.other)
    return finding._replace(line=place(finding.line), other=other)


class Piece(NamedTuple):
    """What one document gave, where it stood last: behind the first `start` lines of its text."""

    start: int
    resources: tuple[Resource, ...]
    findings: tuple[Finding, ...]

    def at(self, start: int) -> "Piece":
        """The same behind so many lines; all the same where they are as many as before."""
        if start == self.start:
            return self
        found = Found()
        found.add(self, start - self.start)
        return Piece(start, tuple(found.resources), tuple(found.findings))


Cache = dict[tuple[str, Context], Piece]
