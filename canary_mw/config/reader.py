"""Texts of rules -> Kubernetes objects, with the line of every attribute.

A text is the content of a file: the value of the annotation `getambassador.io/config` itself, Kubernetes manifests, or
the annotations file of a downward API volume. A document that cannot be read does not affect the others.

Kinds, versions and attributes of Mappings are checked in `parser.py` and `ambassador/`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from canary_mw.config.annotations import ANNOTATION, go_unquote, is_annotations_file, quoted_annotations
from canary_mw.config.document import Diagnostic, Document, has_rule_suffix
from canary_mw.config.foreign_objects import AMBASSADOR_GROUPS, CANARY_GROUPS, group_of, is_foreign, may_hold_rules
from canary_mw.config.large_lists import split_list
from canary_mw.config.reading_cache import CachedDocument, ReadingCache, ReadResult
from canary_mw.config.resource import (
    Context,
    Resource,
    annotation_of,
    as_map,
    child_of,
    make_resource,
    part_of,
    wrong_type,
)
from canary_mw.config.variables import Variable, expand_variables, variables_in
from canary_mw.config.yaml.loader import DocumentRefused, RawDiagnostic, line_of, load
from canary_mw.config.yaml.stream import count_line_breaks, split_documents, with_unix_line_ends

_LIST_GROUPS = (None, "", "networking.k8s.io", "extensions", *AMBASSADOR_GROUPS, *CANARY_GROUPS)
_ANNOTATED = (("Service", ""), ("Ingress", "networking.k8s.io"), ("Ingress", "extensions"))

_NAME_LINE = re.compile(r"""^name:[ \t]+["']?([\w.-]+)["']?[ \t]*$""", re.M)


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading one Document.

    Attributes:
        complete: False if a document in it could not be read; then there is an error among the diagnostics.
        cache: argument of the next `read`; it holds only the documents of this reading.
        variables: every place where a document with rules names a variable, whether there is a value for it or not.
    """

    resources: tuple[Resource, ...]
    diagnostics: tuple[Diagnostic, ...]
    complete: bool
    cache: ReadingCache
    variables: tuple[Variable, ...] = ()


class _Caches(NamedTuple):
    """The cache of earlier readings, and that of this one."""

    previous: Mapping[tuple[str, Context], CachedDocument]
    current: ReadingCache


def read(
    document: Document,
    *,
    environ: Mapping[str, str] = {},
    cache: Mapping[tuple[str, Context], CachedDocument] = {},
) -> Reading:
    """Read every document of a text. Never raises: a document that cannot be read is reported in the diagnostics.

    Documents are separated by `---` lines and taken from the same places as in Emissary: flat or CRD-shaped documents,
    annotations of Services and Ingresses, `List` items, values of a ConfigMap. Objects of other Kubernetes groups are
    ignored.

    Args:
        environ: values for `$NAME` and `${NAME}`; an unknown name is left as it is. See `variables.py`.
        cache: `Reading.cache` of earlier readings, of this file or merged from several. Its documents are not parsed
            again; one that did not move gives the same objects.
    """
    caches = _Caches(cache, {})
    text, context = with_unix_line_ends(document.text), _context_of(document)
    if document.api_object is None:
        result = _read_text(text, context, environ, caches)
    else:
        result = _read_documents(text, context, environ, caches)
        result.resources[:] = _in_order_of_numbers(result.resources)
    diagnostics = tuple(
        Diagnostic(
            severity="error",
            code=raw.code,
            message=_message(raw),
            file=document.name,
            line=raw.line,
            mapping=raw.mapping,
            hint=raw.hint,
        )
        for raw in result.diagnostics
    )
    resources, variables = tuple(result.resources), tuple(result.variables)
    return Reading(resources, diagnostics, not diagnostics, caches.current, variables)


def _in_order_of_numbers(resources: list[Resource]) -> list[Resource]:
    """The documents of an annotation in Emissary's order, that of the texts `1`, `10`, `2`."""
    return [each for _, each in sorted(enumerate(resources, 1), key=lambda numbered: str(numbered[0]))]


def _context_of(document: Document) -> Context:
    holder = document.api_object
    if holder is None or not holder.annotated:
        return Context()
    return Context("annotation", f"{holder.kind}/{holder.name}", holder.namespace, holder.labels)


def _message(raw: RawDiagnostic) -> str:
    return raw.message if raw.other is None else f"{raw.message} {raw.other}"


def _read_text(text: str, context: Context, environ: Mapping[str, str], caches: _Caches) -> ReadResult:
    if is_annotations_file(text):
        return _read_annotations_file(text, environ, caches)
    return _read_documents(text, context, environ, caches)


def _read_annotations_file(text: str, environ: Mapping[str, str], caches: _Caches) -> ReadResult:
    result = ReadResult()
    context = Context(holder="annotation")
    for line, quoted in quoted_annotations(text):
        try:
            value = with_unix_line_ends(go_unquote(quoted))
        except ValueError:
            hint = "the file is cut off or was edited by hand; mount the annotations by the downward API"
            message = f"the quoted value of {ANNOTATION} cannot be read"
            result.diagnostics.append(RawDiagnostic("bad-annotation-file", message, line, hint=hint))
        else:
            inner = _read_documents(value, context, environ, caches)
            _add_at_line(result, inner, line)
            result.variables += [(name, line) for name, _ in inner.variables]
    return result


def _add_at_line(result: ReadResult, inner: ReadResult, line: int) -> None:
    """Add the result of a text that is on one line of the file; line numbers within the text go into the messages."""
    diagnostics = [
        raw._replace(message=f"{_message(raw)} (line {raw.line} of the text in it)", other=None)
        for raw in inner.diagnostics
    ]
    result.add(ReadResult(inner.resources, diagnostics), lambda _: line)


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a text, and in place of a large List its items; each with the number of lines before it."""
    for start, part in split_documents(text):
        items = split_list(part)
        yield from [(start, part)] if items is None else [(start + at, item) for at, item in items]


def _read_documents(text: str, context: Context, environ: Mapping[str, str], caches: _Caches) -> ReadResult:
    result = ReadResult()
    for start, part in _parts(text):
        expanded, origin = expand_variables(part, environ)
        cached = _read_document(expanded, context, start if origin is None else 0, caches)
        if origin is None:
            result.resources += cached.resources
            result.diagnostics += cached.diagnostics
        else:
            result.add(cached, _place(start, origin))
        if "$" in part and (cached.resources or cached.diagnostics):
            result.variables += [(name, start + line) for name, line in variables_in(part)]
    return result


def _place(start: int, origin: list[int]) -> Callable[[int], int]:
    """Maps a line of an expanded document to a line of its text."""
    return lambda line: start + origin[min(line, len(origin)) - 1]


def _read_document(text: str, context: Context, start: int, caches: _Caches) -> CachedDocument:
    key = (text, context)
    cached = caches.current.get(key) or caches.previous.get(key) or _parse_document(text, context, caches)
    cached = caches.current[key] = cached.at(start)
    return cached


def _parse_document(text: str, context: Context, caches: _Caches) -> CachedDocument:
    result = ReadResult()
    try:
        loaded = load(text)
    except DocumentRefused as refused:
        name = _NAME_LINE.search(text)
        last = count_line_breaks(text.rstrip()) + 1
        raw = refused.diagnostic
        result.diagnostics.append(raw._replace(line=min(raw.line, last), mapping=name and name[1]))
    else:
        if loaded:
            node, value = loaded
            _read_object(result, value, node, text, context, caches)
    return CachedDocument(0, tuple(result.resources), tuple(result.diagnostics))


def _read_object(result: ReadResult, value: Any, node: yaml.Node, text: str, context: Context, caches: _Caches) -> None:
    """Add the resources of one object: itself, those it holds, or none."""
    try:
        if context.holder != "annotation" and _is_passed_over(value):
            return
        attributes = as_map(value, node, "the document")
        kind, group = attributes.get("kind"), group_of(attributes.get("apiVersion"))
        if context.holder == "annotation":
            result.resources.append(make_resource(attributes, node, text, context))
        elif _is_list(kind, group):
            _read_list(result, attributes, node, text, context, caches)
        elif (kind, group) == ("ConfigMap", ""):
            _read_config_map(result, attributes, node, context, caches)
        elif (kind, group) in _ANNOTATED:
            _read_annotation(result, attributes, node, caches)
        else:
            result.resources.append(make_resource(attributes, node, text, context))
    except DocumentRefused as refused:
        name = value.get("name") if isinstance(value, dict) else None
        result.diagnostics.append(refused.diagnostic._replace(mapping=name if isinstance(name, str) else None))


def _is_passed_over(value: Any) -> bool:
    """Whether an object belongs to another program; nothing in it is checked."""
    if not isinstance(value, dict):
        return False
    kind, group = value.get("kind"), group_of(value.get("apiVersion"))
    holds_rules = _is_list(kind, group) or (kind, group) == ("ConfigMap", "") or (kind, group) in _ANNOTATED
    return not holds_rules and is_foreign(value)


def _is_list(kind: Any, group: str | None) -> bool:
    return isinstance(kind, str) and kind.endswith("List") and group in _LIST_GROUPS


def _read_list(
    result: ReadResult, attributes: dict[str, Any], node: yaml.Node, text: str, context: Context, caches: _Caches
) -> None:
    """Read the items of a `List`; in a typed list they may omit kind and apiVersion, as from the API server."""
    items, items_node = attributes.get("items"), child_of(node, "items")
    if items is None:
        return
    if not isinstance(items, list):
        raise wrong_type("items", "a list", items, items_node)
    kind = attributes["kind"].removesuffix("List")
    implied = {"kind": kind, "apiVersion": attributes.get("apiVersion")} if kind else {}
    for item, item_node in zip(items, items_node.value, strict=True):
        whole = item | {key: implied[key] for key in implied.keys() - item} if isinstance(item, dict) else item
        _read_object(result, whole, item_node, text, context, caches)


def _read_config_map(
    result: ReadResult, attributes: dict[str, Any], node: yaml.Node, context: Context, caches: _Caches
) -> None:
    """Read the values that may hold rules; others are files of other programs."""
    data, data_node = part_of(attributes, "data", node)
    for key, value in data.items():
        if not isinstance(value, str) or not has_rule_suffix(key) or not may_hold_rules(value):
            continue
        if context.holder == "ConfigMap":
            hint = "keep the rules in `data` of one ConfigMap"
            text = "a ConfigMap inside a ConfigMap is not read"
            raise DocumentRefused("nested-config-map", text, line_of(node), hint=hint)
        _read_scalar(result, value, child_of(data_node, key), Context(holder="ConfigMap"), caches)


def _read_annotation(result: ReadResult, attributes: dict[str, Any], node: yaml.Node, caches: _Caches) -> None:
    annotation = annotation_of(attributes, node)
    if annotation is not None:
        text, text_node, context = annotation
        _read_scalar(result, text, text_node, context, caches)


def _read_scalar(result: ReadResult, text: str, node: yaml.Node, context: Context, caches: _Caches) -> None:
    """Read a text that is a value of a document. Only a literal block scalar has the same lines as the file."""
    text = with_unix_line_ends(text)
    if context.holder == "annotation":
        inner = _read_documents(text, context, {}, caches)
    else:
        inner = _read_text(text, context, {}, caches)
    if isinstance(node, yaml.ScalarNode) and node.style == "|":
        result.add(inner, line_of(node))
    else:
        _add_at_line(result, inner, line_of(node))
