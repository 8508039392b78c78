"""Errors of a whole source, from the findings about its documents, and what they leave in force."""

from collections.abc import Iterable

from canary_mw.config.document import EMPTY_DIRECTORY, UNREACHABLE_CLUSTER, UNREADABLE_FILE, Diagnostic, Document
from canary_mw.exceptions import ConfigError, SourceError


def error_of(diagnostics: Iterable[Diagnostic]) -> ConfigError | None:
    """The first error among findings, with the number of the others."""
    errors = [each for each in diagnostics if each.severity == "error"]
    if not errors:
        return None
    first = errors[0]
    # A ConfigError names its Mapping itself.
    message = first.message.removeprefix(f"Mapping {first.mapping}: ")
    more = f"; and {len(errors) - 1} more, see the diagnostics" if len(errors) > 1 else ""
    kind = SourceError if first.code in (UNREADABLE_FILE, EMPTY_DIRECTORY, UNREACHABLE_CLUSTER) else ConfigError
    return kind(message + more, file=first.file, line=first.line, mapping=first.mapping, hint=first.hint)


def emptied_error(documents: list[Document]) -> SourceError:
    """The error of a source that has lost its last Mapping."""
    names = ", ".join(document.name for document in documents[:3]) or "the source"
    more = f" and {len(documents) - 3} more" if len(documents) > 3 else ""
    return SourceError(f"no Mapping is left in {names}{more}", hint="allow_empty lets the last one be removed")


def what_stays(generation: int, *, middleware: bool) -> str:
    """What an error leaves in force, in words."""
    if generation:
        return f"rules {generation} stay in force"
    where = "goes to the app, as stable" if middleware else "is answered with 404"
    return f"no rules are in force, and every request {where}, until this is mended"
