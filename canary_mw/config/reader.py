"""Texts of rules -> objects as Kubernetes writes them, with the line of every attribute.

A text is what a file holds: the bare value of the annotation `getambassador.io/config`, Kubernetes manifests, or the
annotations file of a downward-API volume. What broke costs its own document only; its neighbours are still read.

Kinds, versions and attributes of Mappings are not judged here: `ambassador` does that.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.reading_cache import CachedDocument, ReadingCache, ReadResult
from canary_mw.config.resource import (
    Context,
    Resource,
    as_map,
    child_of,
    labels_of,
    make_resource,
    part_of,
    text_of,
    wrong_type,
)
from canary_mw.config.yaml_loader import DocumentRefused, RawDiagnostic, count_line_breaks, line_of, load

ANNOTATION = "getambassador.io/config"
_OUR_GROUPS = ("getambassador.io", "ambassador", "x.getambassador.io")
_LIST_GROUPS = (None, "", "networking.k8s.io", "extensions", *_OUR_GROUPS)

_SEPARATOR = re.compile(r"^\ufeff?(?:---|\.\.\.)(?:[ \t]+#.*|[ \t]*)$", re.M)
_CONTENT = re.compile(r"^(?!%)[ \t]*[^\s#]", re.M)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.A)
_ANNOTATION_LINE = re.compile(r'([A-Za-z0-9][\w./-]*)=(".*)', re.A)
_GO_PART = re.compile(
    r'([^"\\\n]+)|\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U(00[01][0-9a-fA-F]{5}))'
)
_GO_SHORT = dict(zip('abfnrtv\\"', b'\a\b\f\n\r\t\v\\"', strict=True))
_OWN_NAME = re.compile(r"""^name:[ \t]+["']?([\w.-]+)["']?[ \t]*$""", re.M)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one Document gave.

    Attributes:
        complete: False when some document in it could not be read; then there is an error among the diagnostics.
        cache: to be handed to the next `read`; it holds what this reading used and nothing older.
    """

    resources: tuple[Resource, ...]
    diagnostics: tuple[Diagnostic, ...]
    complete: bool
    cache: ReadingCache


class _Memory(NamedTuple):
    known: Mapping[tuple[str, Context], CachedDocument]
    used: ReadingCache


def read(
    document: Document,
    *,
    environ: Mapping[str, str] = {},
    cache: Mapping[tuple[str, Context], CachedDocument] = {},
) -> Reading:
    """Read every document of a text. Never raises: what cannot be read is told in the diagnostics.

    Documents are split at lines that are `---` and found as in Emissary: flat or CRD-shaped documents, Service and
    Ingress annotations, `List` items, the values of a ConfigMap. Objects of other Kubernetes groups are passed over.

    Args:
        environ: values for `$NAME` and `${NAME}`; a name that is not in it stays as written.
        cache: `Reading.cache` of earlier readings, of this file or merged from several; its documents are not parsed
            again, and one that did not move gives the same objects again.
    """
    memory = _Memory(cache, {})
    text = document.text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = _read_text(text, Context(), environ, memory)
    diagnostics = tuple(
        Diagnostic(
            severity="error",
            code=finding.code,
            message=_message(finding),
            file=document.name,
            line=finding.line,
            mapping=finding.mapping,
            hint=finding.hint,
        )
        for finding in found.findings
    )
    return Reading(tuple(found.resources), diagnostics, not diagnostics, memory.used)


def _message(finding: RawDiagnostic) -> str:
    return finding.message if finding.other is None else f"{finding.message} {finding.other}"


def _read_text(text: str, context: Context, environ: Mapping[str, str], memory: _Memory) -> ReadResult:
    lines = text.split("\n") if _ANNOTATION_LINE.match(text.lstrip("\n")) else []
    if lines and all(not line or _ANNOTATION_LINE.match(line) for line in lines):
        return _read_annotations_file(lines, environ, memory)
    return _read_documents(text, context, environ, memory)


def _read_annotations_file(lines: list[str], environ: Mapping[str, str], memory: _Memory) -> ReadResult:
    """Lines `key="value"` with the value quoted as Go's %q: `fieldPath: metadata.annotations` of a downward API."""
    found = ReadResult()
    context = Context(holder="annotation")
    for number, line in enumerate(lines, 1):
        match = _ANNOTATION_LINE.match(line)
        if match is None or match[1] != ANNOTATION:
            continue
        try:
            text = go_unquote(match[2])
        except ValueError:
            hint = "the file is cut off or was edited by hand; mount the annotations by the downward API"
            message = f"the quoted value of {ANNOTATION} cannot be read"
            found.findings.append(RawDiagnostic("bad-annotation-file", message, number, hint=hint))
        else:
            _add_on_one_line(found, _read_documents(text, context, environ, memory), number)
    return found


def go_unquote(literal: str) -> str:
    """The text of a Go string literal in double quotes, as %q writes it.

    Raises:
        ValueError: not such a literal, or not UTF-8.
    """
    out, position, end = bytearray(), 1, len(literal) - 1
    if end < 1 or literal[0] != '"' or literal[end] != '"':
        raise ValueError("not in double quotes")
    while position < end:
        match = _GO_PART.match(literal, position, end)
        if match is None:
            raise ValueError(f"bad escape at {position}")
        plain, short, byte, octal, *runes = match.groups()
        if plain:
            out += plain.encode()
        elif short:
            out.append(_GO_SHORT[short])
        elif byte or octal:
            out.append(int(byte or octal, 16 if byte else 8))
        else:
            out += chr(int(runes[0] or runes[1], 16)).encode()
        position = match.end()
    return out.decode()


def _add_on_one_line(found: ReadResult, inner: ReadResult, line: int) -> None:
    """Add what a text gave that stands on one line of the file; its own line numbers go into the messages."""
    told = [
        finding._replace(message=f"{_message(finding)} (line {finding.line} of the text in it)", other=None)
        for finding in inner.findings
    ]
    found.add(ReadResult(inner.resources, told), lambda _: line)


def _read_documents(text: str, context: Context, environ: Mapping[str, str], memory: _Memory) -> ReadResult:
    found = ReadResult()
    for start, chunk in _split(text):
        expanded, origin = _expand(chunk, environ)
        piece = _remembered(expanded, context, start if origin is None else 0, memory)
        if origin is None:
            found.resources += piece.resources
            found.findings += piece.findings
        else:
            found.add(piece, _placement(start, origin))
    return found


def _placement(start: int, origin: list[int]) -> Callable[[int], int]:
    return lambda line: start + origin[min(line, len(origin)) - 1]


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Documents and the number of lines before each; those without content are left out."""
    begin = line = 0
    for match in _SEPARATOR.finditer(text):
        if _CONTENT.search(text, begin, match.start()):
            yield line, text[begin : match.start()]
        line += text.count("\n", begin, match.end()) + 1
        begin = match.end() + 1
    if _CONTENT.search(text, begin):
        yield line, text[begin:]


def _expand(text: str, environ: Mapping[str, str]) -> tuple[str, list[int] | None]:
    """Put in the variables; where YAML counts more lines than the text has, also the line that each one came from."""
    if ("$" not in text or not environ) and text.isascii():
        return text, None

    def value(match: re.Match[str]) -> str:
        return environ.get(match[1] or match[2], match[0])

    lines = [_VARIABLE.sub(value, line) for line in text.split("\n")]
    origin = [number for number, line in enumerate(lines, 1) for _ in range(count_line_breaks(line) + 1)]
    return "\n".join(lines), origin if len(origin) > len(lines) else None


def _remembered(text: str, context: Context, start: int, memory: _Memory) -> CachedDocument:
    key = (text, context)
    piece = memory.used.get(key) or memory.known.get(key) or _read_one(text, context, memory)
    piece = memory.used[key] = piece.at(start)
    return piece


def _read_one(text: str, context: Context, memory: _Memory) -> CachedDocument:
    found = ReadResult()
    try:
        loaded = load(text)
    except DocumentRefused as refused:
        name = _OWN_NAME.search(text)
        last = count_line_breaks(text.rstrip()) + 1
        finding = refused.finding
        found.findings.append(finding._replace(line=min(finding.line, last), mapping=name and name[1]))
    else:
        if loaded:
            node, value = loaded
            _take(found, value, node, text, context, memory)
    return CachedDocument(0, tuple(found.resources), tuple(found.findings))


def _take(found: ReadResult, value: Any, node: yaml.Node, text: str, context: Context, memory: _Memory) -> None:
    """Add what one object gives: itself, what it holds, or nothing."""
    try:
        attributes = as_map(value, node, "the document")
        if context.holder == "annotation":
            found.resources.append(make_resource(attributes, node, text, context))
            return
        kind, group = attributes.get("kind"), _group(attributes.get("apiVersion"))
        if isinstance(kind, str) and kind.endswith("List") and group in _LIST_GROUPS:
            _take_items(found, attributes, node, text, context, memory)
        elif (kind, group) == ("ConfigMap", ""):
            _take_config_map(found, attributes, node, context, memory)
        elif (kind, group) in (("Service", ""), ("Ingress", "networking.k8s.io"), ("Ingress", "extensions")):
            _take_annotation(found, attributes, node, memory)
        elif not _is_foreign(kind, group):
            found.resources.append(make_resource(attributes, node, text, context))
    except DocumentRefused as refused:
        name = value.get("name") if isinstance(value, dict) else None
        found.findings.append(refused.finding._replace(mapping=name if isinstance(name, str) else None))


def _group(api_version: Any) -> str | None:
    """API group, "" for Kubernetes' core, None where there is none."""
    return api_version.rpartition("/")[0] if isinstance(api_version, str) else None


def _is_foreign(kind: Any, group: str | None) -> bool:
    """Some other Kubernetes object. A Mapping with a misspelt group is not: it has to be reported."""
    return group is not None and group not in _OUR_GROUPS and isinstance(kind, str) and "mapping" not in kind.lower()


def _take_items(
    found: ReadResult, attributes: dict[str, Any], node: yaml.Node, text: str, context: Context, memory: _Memory
) -> None:
    """Objects of a `List`; those of a typed list may leave kind and apiVersion to it, as the API server does."""
    items, items_node = attributes.get("items"), child_of(node, "items")
    if not isinstance(items, list):
        raise wrong_type("items", "a list", items_node)
    kind = attributes["kind"].removesuffix("List")
    implied = {"kind": kind, "apiVersion": attributes.get("apiVersion")} if kind else {}
    for item, item_node in zip(items, items_node.value, strict=True):
        whole = item | {key: implied[key] for key in implied.keys() - item} if isinstance(item, dict) else item
        _take(found, whole, item_node, text, context, memory)


def _take_config_map(
    found: ReadResult, attributes: dict[str, Any], node: yaml.Node, context: Context, memory: _Memory
) -> None:
    """Values that hold rules; one that names neither ambassador nor Mapping is some other program's setting."""
    if context.holder == "ConfigMap":
        hint = "keep the rules in `data` of one ConfigMap"
        raise DocumentRefused(
            "nested-config-map", "a ConfigMap inside a ConfigMap is not read", line_of(node), hint=hint
        )
    data, data_node = part_of(attributes, "data", node)
    for key, value in data.items():
        if isinstance(value, str) and ("ambassador" in value or "Mapping" in value):
            _add_scalar(found, value, child_of(data_node, key), Context(holder="ConfigMap"), memory)


def _take_annotation(found: ReadResult, attributes: dict[str, Any], node: yaml.Node, memory: _Memory) -> None:
    metadata, metadata_node = part_of(attributes, "metadata", node)
    annotations, annotations_node = part_of(metadata, "annotations", metadata_node)
    text, text_node = annotations.get(ANNOTATION), child_of(annotations_node, ANNOTATION)
    if text is None:
        return
    if not isinstance(text, str):
        hint = f"write `{ANNOTATION}: |` and indent the rules below it"
        raise DocumentRefused(
            "bad-annotation", f"the value of {ANNOTATION} must be a text", line_of(text_node), hint=hint
        )
    parent = f"{attributes['kind']}/{text_of(metadata, 'name', metadata_node) or ''}"
    namespace = text_of(metadata, "namespace", metadata_node) or "default"
    labels = labels_of(metadata, "labels", metadata_node)
    context = Context("annotation", parent, namespace, tuple(sorted(labels.items())))
    _add_scalar(found, text, text_node, context, memory)


def _add_scalar(found: ReadResult, text: str, node: yaml.Node, context: Context, memory: _Memory) -> None:
    """Read a text that is a value of this document. Only a literal block scalar keeps the lines of the file."""
    if context.holder == "annotation":
        inner = _read_documents(text, context, {}, memory)
    else:
        inner = _read_text(text, context, {}, memory)
    if isinstance(node, yaml.ScalarNode) and node.style == "|":
        found.add(inner, line_of(node))
    else:
        _add_on_one_line(found, inner, line_of(node))
