"""What stays in force of a file that is in error, or that may be a part of what is meant.

A document in error does not affect other documents. A Mapping or Module in error keeps its last good version, and
`weights.py` keeps the shares of its group. While any document of a file cannot be read, no Mapping of that file is
removed, because a half-written file must not look like a deletion; its valid documents, new or changed, take effect.
The same holds while a document has no name, because it may be any of the previous ones, while the last document is in
error, because a document that is cut off is often good YAML that only lacks an attribute, and while the source takes
the text for partial. A file without such signs is taken as it is. A file that itself cannot be read stays as it was,
and so do the files below a directory that cannot be read.
"""

from collections.abc import Collection
from collections.abc import Mapping as Dict
from copy import copy
from dataclasses import dataclass, replace

from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.reader import Reading
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import GrayRelease

Name = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """The result of one document.

    Attributes:
        name: None for another kind than Mapping, ("shop", "") for a Mapping of namespace shop without a name.
        mapping: None for another kind, or a Mapping in error.
        release_name: as `name`, of a GrayRelease.
        release: None for another kind, or a release in error.
        gray: the Mappings that a release in error names as gray.
    """

    name: Name | None
    mapping: Mapping | None
    diagnostics: tuple[Diagnostic, ...]
    release_name: Name | None = None
    release: GrayRelease | None = None
    gray: frozenset[Name] = frozenset()

    @property
    def in_error(self) -> bool:
        """Whether the Mapping or the release is in error."""
        nothing = self.mapping is None and self.release is None
        return nothing and any(diagnostic.severity == "error" for diagnostic in self.diagnostics)

    def moved(self, lines: int) -> "ParsedDocument":
        """The result of a document that moved `lines` lines down."""
        if not lines:
            return self
        mapping = self.mapping
        if mapping is not None:
            # Not `replace`: a copy keeps the values that the Mapping has computed.
            mapping = copy(mapping)
            object.__setattr__(mapping, "line", mapping.line + lines)
        diagnostics = tuple(replace(d, line=d.line and d.line + lines) for d in self.diagnostics)
        release = self.release and self.release.moved(lines)
        return replace(self, mapping=mapping, diagnostics=diagnostics, release=release)


def shown_mappings(
    parsed: list[ParsedDocument], previous: Dict[Name, Mapping], diagnostics: list[Diagnostic]
) -> dict[Name, Mapping]:
    """The Mappings that a file shows, with the last good versions of those in error."""
    now: dict[Name, Mapping] = {}
    for item in parsed:
        if item.name is None:
            continue
        mapping, last = item.mapping, previous.get(item.name)
        in_error = item.in_error or (mapping is not None and mapping.wrong_weight)
        # Without a last good version, a Mapping with a wrong weight is there, but its weight counts as 0.
        if in_error and last is not None and (mapping is None or not last.wrong_weight):
            mapping = last
        if mapping is None:
            continue
        if item.name in now and not in_error:
            diagnostics.append(duplicate_name(mapping, now[item.name]))
        if item.name not in now or not in_error:
            now[item.name] = mapping
    return now


def duplicate_name(later: Mapping, earlier: Mapping) -> Diagnostic:
    return Diagnostic(
        severity="error",
        code="duplicate-name",
        message=f"Mapping {later.name} is defined again; this one replaces that of {earlier.file}:{earlier.line}",
        file=later.file,
        line=later.line,
        mapping=later.name,
        hint="give it a name of its own",
    )


def shown_releases(
    parsed: list[ParsedDocument], previous: Dict[Name, GrayRelease], diagnostics: list[Diagnostic]
) -> dict[Name, GrayRelease]:
    """The releases that a file shows, with the last good versions of those in error."""
    now: dict[Name, GrayRelease] = {}
    for item in parsed:
        if item.release_name is None:
            continue
        release = item.release or previous.get(item.release_name)
        if release is not None and (item.release is not None or item.release_name not in now):
            if item.release_name in now:
                diagnostics.append(duplicate_release(release, now[item.release_name]))
            now[item.release_name] = release
    return now


def duplicate_release(later: GrayRelease, earlier: GrayRelease) -> Diagnostic:
    message = f"GrayRelease {later.name} is defined again; this one replaces that of {earlier.file}:{earlier.line}"
    hint = "give it a name of its own"
    return Diagnostic(
        severity="error", code="duplicate-name", message=message, file=later.file, line=later.line, hint=hint
    )


def why_partial(
    document: Document, reading: Reading, parsed: list[ParsedDocument], found: list[Diagnostic]
) -> Diagnostic | None:
    """Why nothing of the file is removed, as a finding; None if what it does not show is removed.

    Args:
        found: what is wrong with the shared resources of the file.
    """
    if document.partial is not None:
        return document.partial
    if not reading.complete:
        message = "a document of the file cannot be read"
    elif any((name := item.name or item.release_name) and not name[1] and item.in_error for item in parsed):
        message = "a document of the file has no name"
    elif document.api_object is None and _last_in_error(reading, parsed, found):
        message = "the last document of the file is in error, as in a file that is cut off"
    else:
        return None
    hint = "correct the error"
    return Diagnostic(severity="warning", code="not-removed", message=message, file=document.name, hint=hint)


def _last_in_error(reading: Reading, parsed: list[ParsedDocument], found: list[Diagnostic]) -> bool:
    if not parsed:
        return False
    last = reading.resources[-1].line
    about_last = [*parsed[-1].diagnostics, *(each for each in found if (each.line or 0) >= last)]
    return any(each.severity == "error" for each in about_last)


def about_partial(
    document: Document, reading: Reading, partial: Diagnostic, missing: Collection[Name]
) -> list[Diagnostic]:
    """What is said about a partial file.

    Args:
        missing: the Mappings and releases in force that it does not show. Those that an error names already are
            not named again.
    """
    in_error = {diagnostic.mapping for diagnostic in reading.diagnostics}
    names = sorted(name for _, name in missing if name not in in_error)
    if names and document.error is None:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        message = f"no longer in the file, but still in force: {', '.join(names[:3])}{more}; {partial.message}"
        return [replace(partial, message=message)]
    if partial is document.partial and partial.severity == "warning":
        message = f"{partial.message}: its last document may be incomplete, and nothing would be removed"
        return [replace(partial, severity="notice", code="no-line-feed", message=message)]
    return []
