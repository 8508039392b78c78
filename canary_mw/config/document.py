"""A text of a source, and a finding about it."""

import json
from dataclasses import dataclass, field
from typing import Literal

# Codes of `Document.error`.
UNREADABLE_FILE = "unreadable-file"
EMPTY_DIRECTORY = "empty-directory"
UNREACHABLE_CLUSTER = "unreachable-cluster"

# What the names of texts of a Kubernetes API begin with.
API_SCHEME = "k8s://"

_RULE_SUFFIXES = ("yaml", "yml", "json")

Severity = Literal["error", "warning", "notice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One finding about the rules.

    Attributes:
        code: stable, lower-case, words joined by "-".
        line: 1-based, None where the finding is about the whole file.
        mapping: name of the Mapping that the finding is about, or None.
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
        return on_one_line(f"{place}: {self.severity} {self.code} {self.message}{hint}")


def on_one_line(text: str) -> str:
    """The text with escapes for what is not printable: a name in a rule must not be able to begin a line of the log."""
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


@dataclass(frozen=True, slots=True, kw_only=True)
class APIObject:
    """The object of a Kubernetes API that a text is in.

    Such a text is whole, and a missing one is deleted. Only listed variables are put into it: whoever may annotate a
    Service must not read the environment of this process.

    Attributes:
        labels: sorted.
        annotated: whether the text is the value of its annotation, which takes name, namespace and labels from it.
            Otherwise it is the object itself.
        last_stays: whether the last Mapping stays in force when all objects are deleted.
        uid: what tells it from another object of this name; it does not count.
    """

    kind: str
    name: str
    namespace: str
    labels: tuple[tuple[str, str], ...] = ()
    annotated: bool = False
    last_stays: bool = False
    uid: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a source, for example the content of a file.

    Attributes:
        name: path of the file; diagnostics show it.
        error: why there is no text. The file, and every file below a directory of this name, stays as it was last read.
        partial: why the text may be only a part of what is meant. Then nothing that it does not show is removed, and
            this is the finding about what stays.
        api_object: where a text of a Kubernetes API comes from; None for a file.
        listed: True for a file that stands in a directory. Nobody has named it, so it may be one of another program.
    """

    text: str
    name: str
    error: Diagnostic | None = None
    partial: Diagnostic | None = None
    api_object: APIObject | None = None
    listed: bool = field(default=False, compare=False)


def document_in_error(
    name: str, message: str, *, code: str = UNREADABLE_FILE, line: int | None = None, hint: str | None = None
) -> Document:
    """The Document of a file or directory that cannot be read."""
    return Document("", name, Diagnostic(severity="error", code=code, message=message, file=name, line=line, hint=hint))


def has_rule_suffix(name: str) -> bool:
    """Whether a file of a directory, or a key of a ConfigMap, is read by its name: names without ending are, too."""
    stem, _, suffix = name.lower().rpartition(".")
    return not stem or suffix in _RULE_SUFFIXES
