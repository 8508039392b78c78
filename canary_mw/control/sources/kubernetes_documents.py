"""Objects of a Kubernetes API as texts of rules."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from canary_mw.config.annotations import ANNOTATION
from canary_mw.config.document import APIObject, Document
from canary_mw.control.sources.kubernetes_url import SCHEME
from canary_mw.kubernetes.kinds import Kind

# What JSON has as it is, and YAML only as an escape.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def document_of(kind: Kind, *, last_stays: bool) -> Callable[[dict[str, Any]], Document | None]:
    """What makes a Document of an object of a kind; None of one without rules."""

    def make(item: dict[str, Any]) -> Document | None:
        metadata = item["metadata"]
        text = _annotation(metadata) if kind.metadata_only else _manifest(kind, item)
        if text is None:
            return None
        name, namespace = metadata["name"], metadata.get("namespace") or "default"
        labels = metadata.get("labels")
        pairs = labels.items() if isinstance(labels, dict) else ()
        api_object = APIObject(
            kind=kind.name,
            name=name,
            namespace=namespace,
            labels=tuple(sorted((str(label), str(value)) for label, value in pairs)),
            annotated=kind.metadata_only,
            last_stays=last_stays,
        )
        return Document(text, f"{SCHEME}{namespace}/{kind.name}/{name}", api_object=api_object)

    return make


def in_order(documents: Iterable[Document]) -> tuple[Document, ...]:
    """The documents in Emissary's order: that of the texts `name.namespace.1`."""
    return tuple(sorted(documents, key=_key))


def _key(document: Document) -> tuple[str, str]:
    holder = document.api_object
    assert holder is not None
    return f"{holder.name}.{holder.namespace}.1", holder.kind


def _annotation(metadata: dict[str, Any]) -> str | None:
    annotations = metadata.get("annotations")
    text = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
    return _SURROGATE.sub("\ufffd", text) if isinstance(text, str) else None


def _manifest(kind: Kind, item: dict[str, Any]) -> str:
    """The part of an object that counts, as JSON that is YAML too. What it says about its status is left out."""
    metadata = {name: item["metadata"][name] for name in ("name", "namespace", "labels") if name in item["metadata"]}
    whole = {
        "apiVersion": item.get("apiVersion"),
        "kind": item.get("kind") or kind.name,
        "metadata": metadata,
        "spec": item.get("spec"),
    }
    text = json.dumps(whole, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", _SURROGATE.sub("\ufffd", text))
