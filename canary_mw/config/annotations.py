"""The annotation `getambassador.io/config`, in Kubernetes objects and in annotations files of downward API volumes."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from canary_mw.config.resource import Context, child_of, labels_of, part_of, text_of
from canary_mw.config.yaml_loader import DocumentRefused, line_of

ANNOTATION = "getambassador.io/config"

_LINE = re.compile(r'([A-Za-z0-9][\w./-]*)=(".*)', re.A)
_GO_TOKEN = re.compile(
    r'([^"\\\n]+)|\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U(00[01][0-9a-fA-F]{5}))'
)
_GO_ESCAPES = dict(zip('abfnrtv\\"', b'\a\b\f\n\r\t\v\\"', strict=True))


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


def is_annotations_file(text: str) -> bool:
    """Whether every line is `key="value"`, as in a downward API volume with `fieldPath: metadata.annotations`."""
    if not _LINE.match(text.lstrip("\n")):
        return False
    return all(not line or _LINE.match(line) for line in text.split("\n"))


def quoted_annotations(text: str) -> Iterator[tuple[int, str]]:
    """Line and quoted value of each annotation `getambassador.io/config` in an annotations file; see `go_unquote`."""
    for number, line in enumerate(text.split("\n"), 1):
        match = _LINE.match(line)
        if match is not None and match[1] == ANNOTATION:
            yield number, match[2]


def go_unquote(literal: str) -> str:
    """The value of a Go string literal in double quotes, as %q writes it.

    Raises:
        ValueError: not such a literal, or not UTF-8.
    """
    out, position, end = bytearray(), 1, len(literal) - 1
    if end < 1 or literal[0] != '"' or literal[end] != '"':
        raise ValueError("not in double quotes")
    while position < end:
        match = _GO_TOKEN.match(literal, position, end)
        if match is None:
            raise ValueError(f"bad escape at {position}")
        plain, short, byte, octal, *runes = match.groups()
        if plain:
            out += plain.encode()
        elif short:
            out.append(_GO_ESCAPES[short])
        elif byte or octal:
            out.append(int(byte or octal, 16 if byte else 8))
        else:
            out += chr(int(runes[0] or runes[1], 16)).encode()
        position = match.end()
    return out.decode()
