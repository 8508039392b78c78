"""getambassador.io documents -> Mappings and findings; a bad document costs only itself.

What a bad edit may do is settled here. A Mapping whose document is in error keeps its last good version, and so does
the Module. While any document of a file cannot be read, nothing of that file is removed, since a half-written file must
not look like a deletion; its good documents, new or changed, go live. A clean file is taken as it stands.
"""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from .conversion import Origin, to_mapping
from .documents import Cache, read
from .exceptions import MappingError
from .kinds import REQUIRED, RESOLVER_KINDS, RESOLVERS
from .mapping import Mapping
from .messages import Diagnostic, Document
from .module import NO_EFFECT_YET, NO_GLOBALS, UNSUPPORTED, Globals, ModuleConfig, to_globals
from .resource import Resource
from .schema import MODELS
from .validation import Report, nearest, validated

_GROUP = "getambassador.io/"
_KINDS = (*REQUIRED, "Mapping", "Module")
_OTHER_KINDS = frozenset((*REQUIRED, "Module"))

Name = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class Interpreted:
    """One document: what it defines, its Mapping unless that is in error, and what was found."""

    name: Name | None
    mapping: Mapping | None
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class RuleCache:
    """What was read before: texts, and documents by the identity of their `spec`, which the text cache keeps alive."""

    texts: Cache = field(default_factory=dict)
    documents: dict[int, tuple[Resource, str, Interpreted]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all Mappings of a source share.

    Attributes:
        resolvers: names that a `resolver` attribute may have.
    """

    ambassador_id: str = "default"
    globals: Globals = NO_GLOBALS
    resolvers: frozenset[str] = RESOLVERS


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules of a source.

    Attributes:
        mappings: in the order in which they are written, names unique.
        surroundings: with the Module's settings.
        files: the Mappings of each file, last good versions included, for the next reading.
        cache: likewise.
    """

    mappings: tuple[Mapping, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    surroundings: Surroundings = field(default_factory=Surroundings)
    files: Dict[str, Dict[Name, Mapping]] = field(default_factory=dict)
    cache: RuleCache = field(default_factory=RuleCache)


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
    cache = RuleCache()
    findings: list[Diagnostic] = []
    readings = [(d.name, read(d, environ=environ or {}, cache=old.cache.texts)) for d in documents]
    for _, reading in readings:
        cache.texts.update(reading.cache)
        findings += reading.diagnostics
    resources = [(resource, file) for file, reading in readings for resource in reading.resources]
    complete = all(reading.complete for _, reading in readings)
    shared = _surroundings(resources, ambassador_id, old.surroundings.globals, complete, findings)
    known = old.cache if shared == old.surroundings else RuleCache()
    files: dict[str, Dict[Name, Mapping]] = {}
    for file, reading in readings:
        found = [_remembered(resource, file, shared, known, cache) for resource in reading.resources]
        for item in found:
            findings += item.diagnostics
        files[file] = _effective(found, old.files.get(file, {}), reading.complete, findings)
    mappings = tuple(_unique(files, findings))
    return RuleSet(mappings, tuple(findings), shared, files, cache)


def _surroundings(
    resources: list[tuple[Resource, str]], own_id: str, last_good: Globals, complete: bool, findings: list[Diagnostic]
) -> Surroundings:
    """Module and resolvers; they stand apart because they change what the Mappings before them mean."""
    resolvers = {r.name for r, _ in resources if r.kind in RESOLVER_KINDS and r.name}
    modules = [
        (resource, file)
        for resource, file in resources
        if resource.kind == "Module" and resource.name == "ambassador" and _is_for(resource, own_id)
    ]
    settings = NO_GLOBALS if complete else last_good
    for resource, file in modules:
        report = Report(resource, file, "config.")
        settings = _globals(resource, report) or last_good
        findings += report.found
    return Surroundings(own_id, settings, RESOLVERS | resolvers)


def _globals(resource: Resource, report: Report) -> Globals | None:
    config = resource.spec.get("config", {})
    if not isinstance(config, dict):
        report("error", "wrong-type", "config must be a map")
        return None
    model = validated(ModuleConfig, config, report, unsupported=UNSUPPORTED)
    if model is None:
        return None
    for name in NO_EFFECT_YET:
        if name in model.model_fields_set:
            report("notice", "no-effect-yet", f"{name} is read and has no effect yet", attribute=name)
    try:
        return to_globals(model)
    except MappingError as exc:
        report("error", "bad-value", exc.message, attribute=exc.message.partition(":")[0], hint=exc.hint)
        return None


def _remembered(resource: Resource, file: str, shared: Surroundings, old: RuleCache, new: RuleCache) -> Interpreted:
    known = old.documents.get(id(resource.spec)) or new.documents.get(id(resource.spec))
    if known is None or known[1] != file or not _same(known[0], resource):
        report = Report(resource, file)
        mapping = _interpret(resource, file, shared, report)
        found = Interpreted(_defined(resource), mapping, tuple(report.found))
    else:
        found = _moved(known[2], resource.line - known[0].line)
    new.documents[id(resource.spec)] = (resource, file, found)
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
    return (resource.namespace, resource.name) if resource.name and resource.kind not in _OTHER_KINDS else None


def _interpret(resource: Resource, file: str, shared: Surroundings, report: Report) -> Mapping | None:
    """Judge one document by its version, kind, types and values."""
    version = _version(resource, report)
    if not _is_for(resource, shared.ambassador_id):
        return None
    if resource.kind in REQUIRED:
        _other_kind(resource, report)
        return None
    if resource.kind == "Module":
        if resource.name != "ambassador":
            report("notice", "kind-ignored", "only the Module called ambassador has an effect")
        return None
    if resource.kind != "Mapping":
        what = "no kind" if resource.kind is None else f"unknown kind {resource.kind}"
        report("error", "unknown-kind", f"{what}: the document is left out", hint=nearest(resource.kind, _KINDS))
        return None
    if not resource.name:
        report("error", "no-name", "the Mapping has no name: it is left out")
        return None
    model = version and validated(MODELS[version], dict(resource.spec), report)
    if not model:
        return None
    if model.resolver and model.resolver not in shared.resolvers:
        hint = "known are " + ", ".join(sorted(shared.resolvers))
        report("error", "unknown-resolver", f"resolver {model.resolver} is unknown", attribute="resolver", hint=hint)
        return None
    origin = Origin(resource.name, resource.namespace, resource.labels, file, resource.line, shared.globals)
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


def _is_for(resource: Resource, own: str) -> bool:
    wanted: Any = resource.spec.get("ambassador_id")
    ids = [wanted] if wanted and isinstance(wanted, str) else wanted
    return not ids or not isinstance(ids, list) or own in ids


def _effective(
    found: list[Interpreted], before: Dict[Name, Mapping], complete: bool, findings: list[Diagnostic]
) -> dict[Name, Mapping]:
    """The Mappings of a file: the good ones, last good versions of those in error, and none lost from a broken file."""
    now: dict[Name, Mapping] = {}
    for item in found:
        if item.name is None:
            continue
        in_error = item.mapping is None and any(d.severity == "error" for d in item.diagnostics)
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


def _unique(files: Dict[str, Dict[Name, Mapping]], findings: list[Diagnostic]) -> list[Mapping]:
    """All Mappings: a name defined twice keeps its first place and last value, one of another namespace is renamed."""
    taken: dict[Name, Mapping] = {}
    for mappings in files.values():
        for name, mapping in mappings.items():
            if name in taken:
                findings.append(_twice(mapping, taken[name]))
            taken[name] = mapping
    owners: dict[str, str] = {}
    out = []
    for mapping in taken.values():
        owner = owners.setdefault(mapping.name, mapping.namespace)
        renamed = owner != mapping.namespace
        out.append(replace(mapping, name=f"{mapping.name}.{mapping.namespace}") if renamed else mapping)
    return out
