"""Documents -> RuleSet, with what is last good of each document in error: see `last_good.py`."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from canary_mw.config.ambassador.interpretation import interpret
from canary_mw.config.ambassador.kinds import KNOWN_KINDS
from canary_mw.config.ambassador.shared_resources import SharedResources, is_shared, read_shared_resources
from canary_mw.config.canary.documents import is_release, parse_release, releases_of
from canary_mw.config.canary.resolution import ReadIds, Surroundings
from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.foreign_objects import may_hold_rules
from canary_mw.config.last_good import (
    Name,
    ParsedDocument,
    about_partial,
    shown_mappings,
    shown_releases,
    why_partial,
)
from canary_mw.config.reader import Reading, read
from canary_mw.config.reading_cache import ReadingCache
from canary_mw.config.resource import Resource
from canary_mw.config.services.tcp_mapping import unopened_ports
from canary_mw.config.unique_names import unique_names
from canary_mw.config.validation import Report
from canary_mw.config.variables import listed_variables, unknown_variables
from canary_mw.config.weights import keep_shares
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import NO_RELEASES, GrayRelease, Releases

_OTHER_KINDS = frozenset(KNOWN_KINDS) - {"Mapping"}

Documents = dict[int, tuple[Resource, ParsedDocument]]


@dataclass(frozen=True, slots=True)
class FileRules:
    """Resources and rules of one file; reused as a whole while its document does not change.

    Attributes:
        documents: by the identity of their `spec`, which the cache of the reading keeps alive.
        mappings, releases: including last good versions.
        in_error: names of the Mappings that are last good versions.
        gray_in_error: the Mappings that releases in error name as gray.
        diagnostics: without those of `reading`.
        complete: whether what the file does not show is removed.
    """

    document: Document
    reading: Reading
    documents: Documents = field(default_factory=dict)
    mappings: dict[Name, Mapping] = field(default_factory=dict)
    releases: dict[Name, GrayRelease] = field(default_factory=dict)
    in_error: frozenset[Name] = frozenset()
    gray_in_error: frozenset[Name] = frozenset()
    diagnostics: tuple[Diagnostic, ...] = ()
    complete: bool = True


_NEW_FILE = FileRules(Document("", ""), Reading((), (), True, {}))


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules of a source.

    Attributes:
        mappings: in the order in which they are written, with unique names.
        shared: settings of the Module, resolvers and TLSContexts.
        releases: the GrayReleases in force, and what those in error hold back.
        files: by name, for the next call of `parse`.
    """

    mappings: tuple[Mapping, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    shared: SharedResources = field(default_factory=SharedResources)
    files: Dict[str, FileRules] = field(default_factory=dict)
    releases: Releases = NO_RELEASES


def parse(
    documents: Sequence[Document],
    *,
    environ: Dict[str, str] | None = None,
    listed: Dict[str, str] | None = None,
    ambassador_id: str = "default",
    middleware: bool = False,
    previous: RuleSet | None = None,
    read_ids: ReadIds | None = None,
) -> RuleSet:
    """Read the texts of a source.

    Args:
        environ: values for `$NAME` and `${NAME}` in the texts.
        listed: those for the texts of a Kubernetes API; by default the ones of `environ` that it lists.
        ambassador_id: documents for another id are ignored.
        middleware: a wrapped app takes the requests that no Mapping takes.
        previous: the rules in force; their versions replace documents that are in error now.
        read_ids: reads the files of ids that releases name.
    """
    old = previous or RuleSet()
    documents = _without_foreign_files(documents, old.files)
    everywhere = environ or {}
    variables = {True: everywhere, False: listed_variables(everywhere) if listed is None else listed}
    readings = _read(_with_kept_files(documents, old.files), variables, old.files)
    complete = all(reading.complete and document.partial is None for document, reading in readings)
    shared, found = _read_shared(readings, ambassador_id, old.shared, complete)
    files = _parse_files(readings, shared, found, old)
    if complete and not all(file.complete for file in files.values()):
        # What is behind a cut may be a Module or a TLSContext. But a last document that is in error only because its
        # TLSContext is gone tells of no cut.
        kept, found_then = _read_shared(readings, ambassador_id, old.shared, False)
        again = files if kept == shared else _parse_files(readings, kept, found_then, old)
        if not all(file.complete for file in again.values()):
            shared, found, files = kept, found_then, again
    diagnostics = [each for _, reading in readings for each in reading.diagnostics] + found
    diagnostics += unopened_ports(shared.tcp) if middleware else []
    for document, reading in readings:
        known = variables[document.api_object is None]
        diagnostics += unknown_variables(reading.variables, known, document.name)
    diagnostics += [each for file in files.values() for each in file.diagnostics]
    in_error = {name for file in files.values() for name in file.in_error}
    in_error |= {(namespace, f"{name}.{namespace}") for namespace, name in in_error}
    written = unique_names([(file.document, file.mappings) for file in files.values()], diagnostics)
    mappings = keep_shares(written, old.mappings, in_error, diagnostics, middleware=middleware)
    scope = partial(Surroundings, mappings, middleware, old.releases, read_ids, old.mappings)
    releases = releases_of(
        [(file.document, file.releases, file.gray_in_error) for file in files.values()], scope, diagnostics
    )
    return RuleSet(tuple(mappings), tuple(diagnostics), shared, files, releases)


def _read_shared(
    readings: list[tuple[Document, Reading]], ambassador_id: str, last_good: SharedResources, complete: bool
) -> tuple[SharedResources, list[Diagnostic]]:
    found: list[Diagnostic] = []
    resources = [(r, d.name) for d, reading in readings for r in reading.resources if is_shared(r)]
    cut_off = next((d.name for d, reading in readings if not reading.complete and "AuthService" in d.text), "")
    return read_shared_resources(resources, ambassador_id, last_good, complete, found, cut_off), found


def _parse_files(
    readings: list[tuple[Document, Reading]], shared: SharedResources, found: list[Diagnostic], old: RuleSet
) -> dict[str, FileRules]:
    """The rules of all files; `found` is what is wrong with the shared resources in them."""
    same = shared == old.shared
    files: dict[str, FileRules] = {}
    for document, reading in readings:
        file = old.files.get(document.name, _NEW_FILE)
        if file.reading is not reading or file.document.partial != document.partial or not same:
            last = file.documents if same else {}
            file = _parse_file(document, reading, shared, file, last, [d for d in found if d.file == document.name])
        files[document.name] = file
    return files


def _without_foreign_files(documents: Sequence[Document], previous: Dict[str, FileRules]) -> Sequence[Document]:
    """The documents without files of other programs that stand beside rules in a directory.

    A file that had rules is none of them, also if it is cut off now. Where no file has rules, each one is read, so that
    it is reported.
    """
    ours = [document for document in documents if _is_ours(document, previous.get(document.name))]
    return ours or documents


def _is_ours(document: Document, previous: FileRules | None) -> bool:
    if not document.listed or document.error or may_hold_rules(document.text):
        return True
    return previous is not None and bool(previous.mappings or previous.reading.resources)


def _with_kept_files(documents: Sequence[Document], previous: Dict[str, FileRules]) -> list[Document]:
    """The documents, and the previous ones of all files below a directory that cannot be read."""
    if all(document.error is None for document in documents):
        return list(documents)
    names = {document.name for document in documents}
    kept = []
    for document in documents:
        kept.append(document)
        if document.error is not None:
            top = document.name.rstrip("/") + "/"
            kept += [file.document for name, file in previous.items() if name.startswith(top) and name not in names]
    return kept


def _read(
    documents: Sequence[Document], variables: Dict[bool, Dict[str, str]], previous: Dict[str, FileRules]
) -> list[tuple[Document, Reading]]:
    """Read all files; an unchanged text without variables keeps its previous reading.

    Args:
        variables: for files (True), and for texts of an API (False).
    """
    names = {document.name for document in documents}
    # A file may have been renamed, so a new file uses the cache of the removed ones.
    removed: ReadingCache = {}
    for name in previous.keys() - names:
        removed |= previous[name].reading.cache
    return [
        (each, _read_file(each, variables[each.api_object is None], previous.get(each.name), removed))
        for each in documents
    ]


def _read_file(document: Document, environ: Dict[str, str], old: FileRules | None, removed: ReadingCache) -> Reading:
    if old is not None and _same_text(old.document, document) and not (environ and "$" in document.text):
        return old.reading
    if document.error is not None:
        last = (old or _NEW_FILE).reading
        return replace(last, diagnostics=(document.error,), complete=False)
    return read(document, environ=environ, cache=removed if old is None else old.reading.cache)


def _same_text(one: Document, other: Document) -> bool:
    return one.text == other.text and one.error == other.error and one.api_object == other.api_object


def _parse_file(
    document: Document,
    reading: Reading,
    shared: SharedResources,
    previous: FileRules,
    known: Documents,
    found: list[Diagnostic],
) -> FileRules:
    documents: Documents = {}
    parsed = [_parse_resource(resource, document.name, shared, known, documents) for resource in reading.resources]
    diagnostics = [diagnostic for item in parsed for diagnostic in item.diagnostics]
    mappings = shown_mappings(parsed, previous.mappings, diagnostics)
    releases = shown_releases(parsed, previous.releases, diagnostics)
    partial = why_partial(document, reading, parsed, found)
    if partial:
        missing = previous.mappings.keys() - mappings.keys() | previous.releases.keys() - releases.keys()
        diagnostics += about_partial(document, reading, partial, missing)
        if missing:
            mappings = {**{name: mappings.get(name, old) for name, old in previous.mappings.items()}, **mappings}
            releases = {**{name: releases.get(name, old) for name, old in previous.releases.items()}, **releases}
    good = {id(item.mapping) for item in parsed} if document.error is None else set()
    in_error = frozenset(name for name, mapping in mappings.items() if id(mapping) not in good)
    gray = frozenset(name for item in parsed for name in item.gray)
    return FileRules(document, reading, documents, mappings, releases, in_error, gray, tuple(diagnostics), not partial)


def _parse_resource(
    resource: Resource, file: str, shared: SharedResources, old: Documents, new: Documents
) -> ParsedDocument:
    """The result of a resource, from `old` or `new` if its document did not change; it is added to `new`."""
    known = old.get(id(resource.spec)) or new.get(id(resource.spec))
    if known is not None and known[0] is resource:
        new[id(resource.spec)] = known
        return known[1]
    if known is None or not _same_context(known[0], resource):
        report = Report(resource, file)
        if is_release(resource):
            parsed = parse_release(resource, file, shared.ambassador_id, report)
        else:
            mapping = interpret(resource, file, shared, report)
            parsed = ParsedDocument(_mapping_name(resource), mapping, tuple(report.diagnostics))
    else:
        parsed = known[1].moved(resource.line - known[0].line)
    new[id(resource.spec)] = (resource, parsed)
    return parsed


def _same_context(one: Resource, other: Resource) -> bool:
    """Whether two readings of one document give the same result, apart from its line."""
    return one.labels == other.labels and one.namespace == other.namespace and one.parent == other.parent


def _mapping_name(resource: Resource) -> Name | None:
    # A misspelt kind counts as a Mapping: the error must not remove the Mapping that the document was before.
    return None if resource.kind in _OTHER_KINDS else (resource.namespace, resource.name or "")
