"""One Kubernetes object, flat or in CRD shape, with the line of every attribute."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from sys import intern
from typing import Any, NamedTuple, cast

import yaml

from canary_mw.config.annotations import ANNOTATION
from canary_mw.config.wording import in_words, odd_key_in_words
from canary_mw.config.yaml.loader import DocumentRefused, line_of
from canary_mw.config.yaml.scalars import OddKey
from canary_mw.config.yaml.stream import count_line_breaks

_METADATA = frozenset(("name", "namespace", "generation"))
NOT_IN_SPEC = _METADATA | {"apiVersion", "kind", "metadata", "spec", "status", "metadata_labels"}


@dataclass(frozen=True, slots=True)
class Resource:
    """One Kubernetes object; the flat and the CRD shape give the same value. Immutable.

    Attributes:
        api_version: `ambassador/X` is read as `getambassador.io/X`; None where it is missing.
        kind: None where it is missing.
        name: None where it is missing.
        namespace: its own, else the parent's, else "default".
        spec: every attribute; one at the top level overrides the same one below `spec`. It is the same object for as
            long as the document is in the cache, so its identity shows whether the rule changed.
        labels: `metadata.labels` or `metadata_labels`, else the parent's.
        line: 1-based line in the file where the document begins.
        last_line: line where the document ends.
        parent: "Service/NAME" for a document in the annotation of that Service.
        lines_inside: as `lines`, but without the first `shift` lines, so that all readings can share it.
    """

    api_version: str | None
    kind: str | None
    name: str | None
    namespace: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str]
    line: int
    last_line: int
    parent: str | None
    lines_inside: Mapping[str, int] = field(repr=False)
    shift: int = 0

    @property
    def lines(self) -> dict[str, int]:
        """Line of each attribute, and of each key of a map one level down: "weight", "headers.gray"."""
        return {name: line + self.shift for name, line in self.lines_inside.items()}

    def moved(self, lines: int) -> "Resource":
        """The same resource, `lines` lines further down."""
        line, last_line = self.line + lines, self.last_line + lines
        return replace(self, line=line, last_line=last_line, shift=self.shift + lines) if lines else self

    def placed(self, place: Callable[[int], int]) -> "Resource":
        """The same resource, with every line mapped by `place`."""
        lines = {name: place(line) for name, line in self.lines.items()}
        line, last_line = place(self.line), place(self.last_line)
        return replace(self, line=line, last_line=last_line, lines_inside=lines, shift=0)


class Context(NamedTuple):
    """Defaults that the documents of a text take from the object that holds the text."""

    holder: str | None = None
    parent: str | None = None
    namespace: str = "default"
    labels: tuple[tuple[str, str], ...] = ()


def make_resource(attributes: dict[str, Any], node: yaml.Node, text: str, context: Context) -> Resource:
    """A Resource of the attributes of a document.

    Raises:
        DocumentRefused: an attribute that every object has is of a wrong type.
    """
    metadata, metadata_node = part_of(attributes, "metadata", node)
    spec, _ = part_of(attributes, "spec", node)
    own_labels = labels_of(attributes, "metadata_labels", node) or labels_of(metadata, "labels", metadata_node)
    namespace = text_of(attributes, "namespace", node) or text_of(metadata, "namespace", metadata_node)
    return Resource(
        api_version=_api_version(text_of(attributes, "apiVersion", node)),
        kind=_interned(text_of(attributes, "kind", node)),
        name=text_of(attributes, "name", node) or text_of(metadata, "name", metadata_node),
        namespace=namespace or context.namespace,
        spec={**spec, **{key: value for key, value in attributes.items() if key not in NOT_IN_SPEC}},
        labels=own_labels or _labels(context.labels),
        line=line_of(node),
        # Counted within the object only: a List may hold thousands of them.
        last_line=line_of(node) + count_line_breaks(text[node.start_mark.index : node.end_mark.index].rstrip()),
        parent=context.parent,
        lines_inside=_shared_lines(tuple(_lines(node).items())),
    )


def _api_version(written: str | None) -> str | None:
    if written and written.startswith("ambassador/"):
        written = "getambassador.io/" + written.removeprefix("ambassador/")
    return _interned(written)


def _interned(text: str | None) -> str | None:
    """One string object for all documents that hold this text."""
    return text and intern(text)


@lru_cache(maxsize=256)
def _labels(labels: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return dict(labels)


@lru_cache(maxsize=1024)
def _shared_lines(lines: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    """One dict for all documents with the same attributes on the same lines; there are often thousands."""
    return dict(lines)


def _lines(node: yaml.Node) -> dict[str, int]:
    lines: dict[str, int] = {}
    for part in ("metadata", "spec"):
        child = child_of(node, part)
        if child is not node and isinstance(child, yaml.MappingNode):
            lines |= _lines_of_keys(child)
    return lines | _lines_of_keys(node)


def _lines_of_keys(node: yaml.Node) -> dict[str, int]:
    lines = {}
    for key, value in node.value:
        name = intern(key.value)
        lines[name] = key.start_mark.line + 1
        lines |= _lines_of_items(name, value)
        if isinstance(value, yaml.MappingNode):
            for inner, inside in value.value:
                path = intern(f"{name}.{inner.value}")
                lines[path] = inner.start_mark.line + 1
                lines |= _lines_of_items(path, inside)
    return lines


def _lines_of_items(path: str, node: yaml.Node) -> dict[str, int]:
    """The lines of the items of a list of maps, as `steps.0`."""
    if not isinstance(node, yaml.SequenceNode):
        return {}
    maps = [(index, each) for index, each in enumerate(node.value) if isinstance(each, yaml.MappingNode)]
    return {intern(f"{path}.{index}"): each.start_mark.line + 1 for index, each in maps}


def child_of(node: yaml.Node, name: str) -> yaml.Node:
    """Node of an attribute; the map itself without it, so that there is always a line to report."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return cast(yaml.Node, value)
    return node


def as_map(value: Any, node: yaml.Node, what: str) -> dict[str, Any]:
    """The value, if it is a map whose keys are texts.

    Raises:
        DocumentRefused: it is not.
    """
    if not isinstance(value, dict):
        hint = "write one `key: value` to a line"
        raise DocumentRefused("not-a-map", f"{what} is not a map of attributes", line_of(node), hint=hint)
    for position, key in enumerate(value):
        if isinstance(key, OddKey):
            message, hint = odd_key_in_words(key)
            raise DocumentRefused("bad-key", message, node.value[position][0].start_mark.line + 1, hint=hint)
    return value


def part_of(attributes: dict[str, Any], name: str, node: yaml.Node) -> tuple[dict[str, Any], yaml.Node]:
    """The map below an attribute, empty where the attribute is missing, and its node."""
    value, child = attributes.get(name), child_of(node, name)
    return {} if value is None else as_map(value, child, f"`{name}`"), child


def text_of(attributes: dict[str, Any], name: str, node: yaml.Node) -> str | None:
    value = attributes.get(name)
    if value is None or isinstance(value, str):
        return value and str(value)
    raise wrong_type(name, "a text", value, child_of(node, name))


def labels_of(attributes: dict[str, Any], name: str, node: yaml.Node) -> dict[str, str]:
    labels, child = part_of(attributes, name, node)
    for label, value in labels.items():
        if not isinstance(value, str):
            raise wrong_type(label, "a text", value, child_of(child, label))
    return labels


def wrong_type(name: str, wanted: str, value: Any, node: yaml.Node) -> DocumentRefused:
    if value is None:
        return DocumentRefused("wrong-type", f"`{name}` is null", line_of(node), hint="leave it out instead")
    hint = "put it in quotes" if wanted == "a text" and isinstance(value, bool | int | float) else None
    return DocumentRefused("wrong-type", f"`{name}` must be {wanted}, not {in_words(value)}", line_of(node), hint=hint)


def annotation_of(attributes: dict[str, Any], node: yaml.Node) -> tuple[str, yaml.Node, Context] | None:
    """Value and node of the annotation of an object, and what its documents take from the object; None without it.

    Raises:
        DocumentRefused: the value is not a text, or an attribute around it is of a wrong type.
    """
    metadata, metadata_node = part_of(attributes, "metadata", node)
    annotations, annotations_node = part_of(metadata, "annotations", metadata_node)
    text, text_node = annotations.get(ANNOTATION), child_of(annotations_node, ANNOTATION)
    if text is None:
        return None
    if not isinstance(text, str):
        hint = f"write `{ANNOTATION}: |` and indent the rules below it"
        raise DocumentRefused(
            "bad-annotation", f"the value of {ANNOTATION} must be a text", line_of(text_node), hint=hint
        )
    parent = f"{attributes['kind']}/{text_of(metadata, 'name', metadata_node) or ''}"
    namespace = text_of(metadata, "namespace", metadata_node) or "default"
    labels = labels_of(metadata, "labels", metadata_node)
    return text, text_node, Context("annotation", parent, namespace, tuple(sorted(labels.items())))
