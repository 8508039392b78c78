"""getambassador.io documents -> Mappings and findings; a bad document costs only itself.

What a bad edit may do is settled here. A Mapping whose document is in error keeps its last good version, and so does
the Module. While any document of a file cannot be read, nothing of that file is removed, since a half-written file must
not look like a deletion; its good documents, new or changed, go live. The same holds while one does not say its name,
since it may be any of those that were there before. A clean file is taken as it stands.
"""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from canary_mw.config.ambassador.kinds import REQUIRED
from canary_mw.config.ambassador.mapping import DocumentOrigin, to_mapping
from canary_mw.config.ambassador.schema import MODELS
from canary_mw.config.ambassador.shared_resources import (
    SHARED_KINDS,
    SharedResources,
    matches_ambassador_id,
    read_shared_resources,
)
from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.reader import Reading, read
from canary_mw.config.reading_cache import ReadingCache
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report, did_you_mean, validate
from canary_mw.rules.mapping import Mapping

_GROUP = "getambassador.io/"
_KINDS = (*REQUIRED, "Mapping", "Module", "TLSContext")
_OTHER_KINDS = frozenset((*REQUIRED, "Module", "TLSContext"))

Name = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Interpreted:
    """One document: what it defines, its Mapping unless that is in error, and what was found.

    Attributes:
        name: None for what is no Mapping, ("shop", "") for one of that namespace without a name.
    """

    name: Name | None
    mapping: Mapping | None
    diagnostics: tuple[Diagnostic, ...]

    @property
    def in_error(self) -> bool:
        """Whether its Mapping is."""
        return self.mapping is None and any(finding.severity == "error" for finding in self.diagnostics)


Documents = dict[int, tuple[Resource, Interpreted]]


@dataclass(frozen=True, slots=True)
class FileRules:
    """One file: what was read from it and what that means, to be kept whole for as long as its text stays.

    Attributes:
        documents: by the identity of their `spec`, which the cache of the reading keeps alive.
        mappings: last good versions included.
        diagnostics: those of `reading` are not among them.
    """

    text: str
    reading: Reading
    documents: Documents = field(default_factory=dict)
    mappings: dict[Name, Mapping] = field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()


_NEW_FILE = FileRules("", Reading((), (), True, {}))


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules of a source.

    Attributes:
        mappings: in the order in which they are written, names unique.
        shared: with the Module's settings.
        files: by name, for the next reading.
    """

    mappings: tuple[Mapping, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    shared: SharedResources = field(default_factory=SharedResources)
    files: Dict[str, FileRules] = field(default_factory=dict)


def parse(
    documents: Sequence[Document],
    *,
    environ: Dict[str, str] | None = None,
    ambassador_id: str = "default",
    previous: RuleSet | None = None,
) -> RuleSet:
    """Read the texts of a source.

    Args:
        environ: values for `$VAR` in the texts.
        ambassador_id: Mappings for another id are passed over.
        previous: the rules in force; their good versions stand in for what is in error now.
    """
    old = previous or RuleSet()
    readings = _read(documents, environ or {}, old.files)
    findings = [finding for _, reading in readings for finding in reading.diagnostics]
    complete = all(reading.complete for _, reading in readings)
    resources = [(r, d.name) for d, reading in readings for r in reading.resources if r.kind in SHARED_KINDS]
    shared = read_shared_resources(resources, ambassador_id, old.shared, complete, findings)
    same = shared == old.shared
    files: dict[str, FileRules] = {}
    for document, reading in readings:
        file = old.files.get(document.name, _NEW_FILE)
        if file.reading is not reading or not same:
            file = _file(document, reading, shared, file, file.documents if same else {})
        files[document.name] = file
        findings += file.diagnostics
    mappings = tuple(_unique(files, findings))
    return RuleSet(mappings, tuple(findings), shared, files)


def _read(
    documents: Sequence[Document], environ: Dict[str, str], before: Dict[str, FileRules]
) -> list[tuple[Document, Reading]]:
    """A file whose text is the same gives the same reading again, unless its text may have other variables in it."""
    names = {document.name for document in documents}
    # A file may have got another name.
    gone: ReadingCache = {}
    for name in before.keys() - names:
        gone |= before[name].reading.cache
    readings = []
    for document in documents:
        old = before.get(document.name)
        if old is not None and old.text == document.text and not (environ and "$" in document.text):
            readings.append((document, old.reading))
        else:
            cache = gone if old is None else old.reading.cache
            readings.append((document, read(document, environ=environ, cache=cache)))
    return readings


def _file(
    document: Document, reading: Reading, shared: SharedResources, before: FileRules, known: Documents
) -> FileRules:
    documents: Documents = {}
    found = [_remembered(resource, document.name, shared, known, documents) for resource in reading.resources]
    findings = [finding for item in found for finding in item.diagnostics]
    complete = reading.complete and not any(item.name and not item.name[1] and item.in_error for item in found)
    mappings = _effective(found, before.mappings, complete, findings)
    return FileRules(document.text, reading, documents, mappings, tuple(findings))


def _remembered(resource: Resource, file: str, shared: SharedResources, old: Documents, new: Documents) -> Interpreted:
    known = old.get(id(resource.spec)) or new.get(id(resource.spec))
    if known is not None and known[0] is resource:
        new[id(resource.spec)] = known
        return known[1]
    if known is None or not _same(known[0], resource):
        report = Report(resource, file)
        mapping = _interpret(resource, file, shared, report)
        found = Interpreted(_defined(resource), mapping, tuple(report.found))
    else:
        found = _moved(known[1], resource.line - known[0].line)
    new[id(resource.spec)] = (resource, found)
    return found


def _same(one: Resource, other: Resource) -> bool:
    """Whether two readings of one text mean the same; they may stand in different lines."""
    return one.labels == other.labels and one.namespace == other.namespace and one.parent == other.parent


def _moved(found: Interpreted, lines: int) -> Interpreted:
    """What was found, when the document only stands some lines further down."""
    if not lines:
        return found
    mapping = found.mapping
    if mapping is not None:
        # Not `replace`: a copy keeps what the Mapping has worked out.
        mapping = copy(mapping)
        object.__setattr__(mapping, "line", mapping.line + lines)
    diagnostics = tuple(replace(d, line=d.line and d.line + lines) for d in found.diagnostics)
    return Interpreted(found.name, mapping, diagnostics)


def _defined(resource: Resource) -> Name | None:
    # A misspelt kind counts too: it must not take away the Mapping that the document was.
    return None if resource.kind in _OTHER_KINDS else (resource.namespace, resource.name or "")


def _interpret(resource: Resource, file: str, shared: SharedResources, report: Report) -> Mapping | None:
    """Judge one document by its version, kind, types and values."""
    version = _version(resource, report)
    if not matches_ambassador_id(resource, shared.ambassador_id):
        return None
    if resource.kind in REQUIRED:
        _other_kind(resource, report)
        return None
    if resource.kind == "TLSContext":
        return None
    if resource.kind == "Module":
        if resource.name != "ambassador":
            report("notice", "kind-ignored", "only the Module called ambassador has an effect")
        return None
    if resource.kind != "Mapping":
        what = "no kind" if resource.kind is None else f"unknown kind {resource.kind}"
        report("error", "unknown-kind", f"{what}: the document is left out", hint=did_you_mean(resource.kind, _KINDS))
        return None
    if not resource.name:
        report("error", "no-name", "the Mapping has no name: it is left out")
        return None
    model = version and validate(MODELS[version], dict(resource.spec), report)
    if not model:
        return None
    if model.resolver and model.resolver not in shared.resolvers:
        hint = "known are " + ", ".join(sorted(shared.resolvers))
        report("error", "unknown-resolver", f"resolver {model.resolver} is unknown", attribute="resolver", hint=hint)
        return None
    if isinstance(model.tls, str) and model.tls not in shared.tls_contexts:
        known = ", ".join(sorted(shared.tls_contexts)) or "none"
        text = f"TLSContext {model.tls} is not defined, or in error itself"
        report("error", "unknown-tls-context", text, attribute="tls", hint=f"define it; known are: {known}")
        return None
    place = (resource.name, resource.namespace, resource.labels, file, resource.line)
    origin = DocumentOrigin(*place, shared.settings, shared.tls_contexts)
    mapping, notes = to_mapping(model, origin)
    for note in notes:
        report(note.severity, note.code, note.message, attribute=note.attribute, hint=note.hint)
    return mapping


def _other_kind(resource: Resource, report: Report) -> None:
    """Recognised, checked for what it cannot do without, and ignored."""
    missing = [name for name in REQUIRED[resource.kind or ""] if resource.spec.get(name) in (None, "", [])]
    for name in missing:
        report("error", "missing", f"{name} is missing")
    if not missing:
        report("notice", "kind-ignored", "not supported yet: ignored")


def _version(resource: Resource, report: Report) -> str | None:
    api_version = resource.api_version
    if api_version is None:
        report("warning", "no-api-version", "no apiVersion: read as getambassador.io/v2")
        return "v2"
    version = api_version.removeprefix(_GROUP)
    if version in MODELS and api_version.startswith(_GROUP):
        return version
    hint = "known are " + ", ".join(_GROUP + known for known in MODELS)
    report("error", "unknown-version", f"apiVersion {api_version} is not known", attribute="apiVersion", hint=hint)
    return None


def _effective(
    found: list[Interpreted], before: Dict[Name, Mapping], complete: bool, findings: list[Diagnostic]
) -> dict[Name, Mapping]:
    """The Mappings of a file: the good ones, last good versions of those in error, and none lost from a broken file."""
    now: dict[Name, Mapping] = {}
    for item in found:
        if item.name is None:
            continue
        in_error = item.in_error
        mapping = before.get(item.name) if in_error else item.mapping
        if mapping is None:
            continue
        if item.name in now and not in_error:
            findings.append(_twice(mapping, now[item.name]))
        if item.name not in now or not in_error:
            now[item.name] = mapping
    return now if complete else {**{name: now.get(name, old) for name, old in before.items()}, **now}


def _twice(later: Mapping, earlier: Mapping) -> Diagnostic:
    return Diagnostic(
        severity="error",
        code="duplicate-name",
        message=f"Mapping {later.name} is defined again; this one replaces that of {earlier.file}:{earlier.line}",
        file=later.file,
        line=later.line,
        mapping=later.name,
        hint="give it a name of its own",
    )


def _unique(files: Dict[str, FileRules], findings: list[Diagnostic]) -> list[Mapping]:
    """All Mappings: a name defined twice keeps its first place and last value, one of another namespace is renamed."""
    taken: dict[Name, Mapping] = {}
    for file in files.values():
        # Quick where there are none, as nearly always.
        if not taken.keys().isdisjoint(file.mappings):
            findings += [_twice(file.mappings[name], taken[name]) for name in file.mappings if name in taken]
        taken |= file.mappings
    if len({mapping.name for mapping in taken.values()}) == len(taken):
        return list(taken.values())
    owners: dict[str, str] = {}
    out = []
    for mapping in taken.values():
        owner = owners.setdefault(mapping.name, mapping.namespace)
        renamed = owner != mapping.namespace
        out.append(replace(mapping, name=f"{mapping.name}.{mapping.namespace}") if renamed else mapping)
    return out
