"""A text of a source, and what there is to say about it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "notice"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a source, as a file holds it.

    Attributes:
        name: what diagnostics call it: the path of the file.
    """

    text: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One finding about the rules.

    Attributes:
        code: stable, lower-case, words joined by "-".
        line: 1-based, or None where the finding is about the whole file.
        mapping: name of the Mapping that it is about, or None.
    """

    severity: Severity
    code: str
    message: str
    file: str
    line: int | None = None
    mapping: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {self.severity} {self.code} {self.message}{hint}"
