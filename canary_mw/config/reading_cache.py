"""What is known of a text, piece by piece, and where it stands: a document that moved is not read again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from canary_mw.config.resource import Context, Resource
from canary_mw.config.yaml_loader import RawDiagnostic


@dataclass(slots=True)
class ReadResult:
    """What one text gave; lines count from its start."""

    resources: list[Resource] = field(default_factory=list)
    findings: list[RawDiagnostic] = field(default_factory=list)

    def add(self, inner: "ReadResult | CachedDocument", place: Callable[[int], int] | int) -> None:
        """Take what a part of this text gave; `place` turns its lines into lines of this text, a number shifts them."""
        if isinstance(place, int):
            self.resources += [resource.moved(place) for resource in inner.resources]
            self.findings += [_placed(finding, place.__add__) for finding in inner.findings]
        else:
            self.resources += [resource.placed(place) for resource in inner.resources]
            self.findings += [_placed(finding, place) for finding in inner.findings]


def _placed(finding: RawDiagnostic, place: Callable[[int], int]) -> RawDiagnostic:
    other = None if finding.other is None else place(finding.other)
    return finding._replace(line=place(finding.line), other=other)


class CachedDocument(NamedTuple):
    """What one document gave, where it stood last: behind the first `start` lines of its text."""

    start: int
    resources: tuple[Resource, ...]
    findings: tuple[RawDiagnostic, ...]

    def at(self, start: int) -> "CachedDocument":
        """The same behind so many lines; all the same where they are as many as before."""
        if start == self.start:
            return self
        found = ReadResult()
        found.add(self, start - self.start)
        return CachedDocument(start, tuple(found.resources), tuple(found.findings))


ReadingCache = dict[tuple[str, Context], CachedDocument]
