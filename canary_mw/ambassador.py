"""getambassador.io documents -> Mappings and findings; a bad document costs only itself.

What a bad edit may do is settled here. A Mapping whose document is in error keeps its last good version. While any
document of a file cannot be read, nothing of that file is removed, since a half-written file must not look like a
deletion; its good documents, new or changed, go live. A clean file is taken as it stands.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .conversion import Model, Note, Origin, to_mapping
from .documents import Cache, read
from .mapping import Mapping
from .messages import Diagnostic, Document, Severity
from .resource import Resource
from .schema import MODELS, TEXTS

KINDS_WITHOUT_EFFECT = frozenset(
    "AuthService ConsulResolver DevPortal Host KubernetesEndpointResolver KubernetesServiceResolver Listener LogService"
    " Module RateLimitService TCPMapping TLSContext TracingService".split()
)
_GROUP = "getambassador.io/"

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
class RuleSet:
    """All rules of a source.

    Attributes:
        mappings: in the order in which they are written, names unique.
        files: the Mappings of each file, last good versions included, for the next reading.
        cache: likewise.
    """

    mappings: tuple[Mapping, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
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
    files: dict[str, Dict[Name, Mapping]] = {}
    findings: list[Diagnostic] = []
    for document in documents:
        reading = read(document, environ=environ or {}, cache=old.cache.texts)
        cache.texts.update(reading.cache)
        found = [_remembered(r, document.name, ambassador_id, old.cache, cache) for r in reading.resources]
        findings += reading.diagnostics
        for item in found:
            findings += item.diagnostics
        files[document.name] = _effective(found, old.files.get(document.name, {}), reading.complete, findings)
    mappings = tuple(_unique(files, findings))
    return RuleSet(mappings, tuple(findings), files, cache)


def _remembered(resource: Resource, file: str, ambassador_id: str, old: RuleCache, new: RuleCache) -> Interpreted:
    known = old.documents.get(id(resource.spec)) or new.documents.get(id(resource.spec))
    if known is None or known[0] != resource or known[1] != file:
        known = (resource, file, _interpret(resource, file, ambassador_id))
    new.documents[id(resource.spec)] = known
    return known[2]


def _interpret(resource: Resource, file: str, ambassador_id: str) -> Interpreted:
    """Judge one document by its version, kind, types and values."""
    report = _Report(resource, file)
    version = _version(resource, report)
    if resource.kind in KINDS_WITHOUT_EFFECT:
        report("notice", "kind-ignored", f"kind {resource.kind} is not supported yet: ignored")
        return report.result(None)
    if resource.kind != "Mapping":
        what = "no kind" if resource.kind is None else f"unknown kind {resource.kind}"
        report("error", "unknown-kind", f"{what}: the document is left out", hint=_nearest(resource.kind, _KINDS))
        return report.result(None)
    if not resource.name:
        report("error", "no-name", "the Mapping has no name: it is left out")
        return report.result(None)
    if version is None or not _is_for(resource.spec.get("ambassador_id"), ambassador_id):
        return report.result(None)
    model = _validated(MODELS[version], resource, report)
    if model is None:
        return report.result(None)
    origin = Origin(resource.name, resource.namespace, resource.labels, file, resource.line)
    mapping, notes = to_mapping(model, origin)
    for note in notes:
        report.note(note)
    return report.result(mapping)


_KINDS = (*sorted(KINDS_WITHOUT_EFFECT), "Mapping")


class _Report:
    """Collects the findings about one document."""

    def __init__(self, resource: Resource, file: str) -> None:
        self.resource = resource
        self.file = file
        self.found: list[Diagnostic] = []

    def __call__(
        self, severity: Severity, code: str, message: str, *, attribute: str = "", hint: str | None = None
    ) -> None:
        lines, resource = self.resource.lines, self.resource
        line = lines.get(attribute) or lines.get(attribute.partition(".")[0]) or resource.line
        name = resource.name
        text = f"Mapping {name}: {message}" if name and resource.kind == "Mapping" else message
        self.found.append(
            Diagnostic(severity=severity, code=code, message=text, file=self.file, line=line, mapping=name, hint=hint)
        )

    def note(self, note: Note) -> None:
        self(note.severity, note.code, note.message, attribute=note.attribute, hint=note.hint)

    def result(self, mapping: Mapping | None) -> Interpreted:
        resource = self.resource
        # A misspelt kind counts too: it must not take away the Mapping that the document was.
        defines = resource.name and resource.kind not in KINDS_WITHOUT_EFFECT
        name = (resource.namespace, resource.name) if defines and resource.name else None
        return Interpreted(name, mapping, tuple(self.found))


def _version(resource: Resource, report: _Report) -> str | None:
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


def _is_for(wanted: Any, own: str) -> bool:
    ids = [wanted] if wanted and isinstance(wanted, str) else wanted
    return not ids or not isinstance(ids, list) or own in ids


def _validated(kind: type[Model], resource: Resource, report: _Report) -> Model | None:
    """The typed attributes, or None with an error for each that is wrong."""
    spec = {name: value for name, value in resource.spec.items() if value != "" or name not in TEXTS}
    nulls = [name for name, value in spec.items() if value is None]
    for name in nulls:
        report("error", "wrong-type", f"{name} is null", attribute=name, hint="leave it out instead")
    if nulls:
        return None
    try:
        model = kind.model_validate(spec)
    except ValidationError as exc:
        for error in _by_attribute(exc.errors(include_url=False, include_context=False)):
            attribute, message, hint = error
            report("error", "wrong-type", message, attribute=attribute, hint=hint)
        return None
    for name in model.model_extra or {}:
        hint = _nearest(name, list(kind.model_fields))
        report("warning", "unknown-field", f"unknown field {name} is ignored", attribute=name, hint=hint)
    return model


def _by_attribute(errors: list[ErrorDetails]) -> Iterator[tuple[str, str, str | None]]:
    """One message for each attribute; a union reports one error for each of its arms."""
    wanted: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for error in errors:
        path = [str(part) for part in error["loc"] if not (isinstance(part, str) and part in _ARMS)]
        attribute = ".".join(path)
        if error["type"] == "missing" and len(path) == 1:
            yield attribute, f"{attribute} is missing", None
            continue
        wanted.setdefault(attribute, []).append(_WANTED.get(error["type"], error["msg"]))
        given[attribute] = error["input"]
    for attribute, texts in wanted.items():
        value = given[attribute]
        hint = "put it in quotes" if "a text" in texts and isinstance(value, bool | int | float) else None
        yield attribute, f"{attribute} must be {' or '.join(dict.fromkeys(texts))}, not {_shown(value)}", hint


# Names that pydantic puts into the place of an error for the arm of a union.
_ARMS = frozenset(("str", "bool", "list[str]", "AddedHeader", "LegacyCors", "Cors"))
_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "missing": "given",
}


def _shown(value: Any) -> str:
    kind = {str: "the text", bool: "the boolean", int: "the number", float: "the number", list: "the list"}
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{kind.get(type(value), 'the map')} {text if len(text) < 60 else text[:57] + '...'}"


def _nearest(name: str | None, known: Sequence[str]) -> str | None:
    found = get_close_matches((name or "").lower(), [k.lower() for k in known], n=1)
    return f"did you mean {next(k for k in known if k.lower() == found[0])}?" if found else None


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
