"""Objects of a Kubernetes API as texts of rules."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from canary_mw.config.annotations import ANNOTATION
from canary_mw.config.document import APIObject, Diagnostic, Document, on_one_line
from canary_mw.control.sources.kubernetes_url import SCHEME
from canary_mw.kubernetes.event_writer import Problem
from canary_mw.kubernetes.kinds import KINDS, Kind

_API_VERSIONS = {kind.name: f"{kind.group}/{kind.versions[0]}".lstrip("/") for kind in KINDS.values()}
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
            uid=str(metadata.get("uid") or ""),
        )
        return Document(text, f"{SCHEME}{namespace}/{kind.name}/{name}", api_object=api_object)

    return make


def in_order(documents: Iterable[Document]) -> tuple[Document, ...]:
    """The documents in Emissary's order: that of the texts `name.namespace.1`."""
    return tuple(sorted(documents, key=_key))


def problems_of(diagnostics: Iterable[Diagnostic], documents: Iterable[Document]) -> list[Problem]:
    """The errors in the rules of objects, each with its object."""
    objects = {document.name: document.api_object for document in documents}
    found = []
    for each in diagnostics:
        # A second source of one namespace has a number behind its names.
        holder = objects.get(each.file) or objects.get(each.file.partition(" [")[0])
        if holder is not None and each.severity == "error":
            reason = "".join(word.capitalize() for word in each.code.split("-"))
            hint = f" ({each.hint})" if each.hint else ""
            line = f"line {each.line}: " if holder.annotated and each.line else ""
            place = (_API_VERSIONS[holder.kind], holder.kind, holder.namespace, holder.name, holder.uid)
            found.append(Problem(*place, reason, on_one_line(f"{line}{each.message}{hint}")))
    return found


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
