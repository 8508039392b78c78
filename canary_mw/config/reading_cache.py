"""Cached results of reading, by document: an unchanged document is not parsed again, even if it moves in its file."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from canary_mw.config.resource import Context, Resource
from canary_mw.config.variables import Variable
from canary_mw.config.yaml.loader import RawDiagnostic


@dataclass(slots=True)
class ReadResult:
    """What was read from one text; lines count from the start of the text.

    Attributes:
        variables: of the documents with rules or findings; only of a text in which they are replaced.
    """

    resources: list[Resource] = field(default_factory=list)
    diagnostics: list[RawDiagnostic] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)

    def add(self, inner: "ReadResult | CachedDocument", place: Callable[[int], int] | int) -> None:
        """Add the result of a part of this text.

        Args:
            place: maps a line of the part to a line of this text; a number is added to every line.
        """
        if isinstance(place, int):
            self.resources += [resource.moved(place) for resource in inner.resources]
            self.diagnostics += [_place(diagnostic, place.__add__) for diagnostic in inner.diagnostics]
        else:
            self.resources += [resource.placed(place) for resource in inner.resources]
            self.diagnostics += [_place(diagnostic, place) for diagnostic in inner.diagnostics]


def _place(diagnostic: RawDiagnostic, place: Callable[[int], int]) -> RawDiagnostic:
    other = None if diagnostic.other is None else place(diagnostic.other)
    return diagnostic._replace(line=place(diagnostic.line), other=other)


class CachedDocument(NamedTuple):
    """What was read from one document.

    Attributes:
        start: number of lines before the document in its text, at the last reading.
    """

    start: int
    resources: tuple[Resource, ...]
    diagnostics: tuple[RawDiagnostic, ...]

    def at(self, start: int) -> "CachedDocument":
        """The same document after `start` lines; the same object if it did not move."""
        if start == self.start:
            return self
        found = ReadResult()
        found.add(self, start - self.start)
        return CachedDocument(start, tuple(found.resources), tuple(found.diagnostics))


ReadingCache = dict[tuple[str, Context], CachedDocument]
