"""Attributes without effect yet: what Emissary's CRDs and Envoy refuse in them is refused here too."""

from collections.abc import Callable
from typing import Any

from canary_mw.config.ambassador.schema import KeepAlive, LegacyMapping, Model
from canary_mw.config.ambassador.traffic_policies import unsigned
from canary_mw.config.wording import in_words
from canary_mw.exceptions import MappingError

# The kinds of a label of v3alpha1, with the attributes that each requires, and those that it may have.
_LABELS: dict[str, tuple[set[str], set[str]]] = {
    "generic_key": ({"value"}, {"key", "v2Shorthand"}),
    "request_headers": ({"key", "header_name"}, {"omit_if_not_present"}),
    "remote_address": ({"key"}, set()),
    "source_cluster": ({"key"}, set()),
    "destination_cluster": ({"key"}, set()),
}
_DOCS = {"path": str, "url": str, "display_name": str, "ignored": bool, "timeout_ms": int}


def labels(model: Model) -> None:
    """`labels`: domains, each with a list of groups, each with a list of labels.

    Raises:
        MappingError: another shape.
    """
    legacy = isinstance(model, LegacyMapping)
    check = _legacy_label if legacy else _label
    for domain, groups in (model.labels or {}).items():
        for number, group in enumerate(_list(groups, f"labels.{domain}")):
            path = f"labels.{domain}[{number}]"
            if not isinstance(group, dict) or not group or (len(group) > 1 and not legacy):
                raise MappingError(f"{path} must be a map of one name, not {in_words(group)}")
            for name, given in group.items():
                for index, label in enumerate(_list(given, f"{path}.{name}")):
                    check(label, f"{path}.{name}[{index}]")


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise MappingError(f"{path} must be a list, not {in_words(value)}")
    return value


def _legacy_label(label: Any, path: str) -> None:
    """A text, `{generic_key: text}`, or `{name: {header: name}}`."""
    given = label if isinstance(label, dict) else {}
    generic = isinstance(given.get("generic_key"), str) and given.keys() <= {"generic_key", "v3Key"}
    if isinstance(label, str) or generic:
        return
    values = [*given.values()]
    if len(values) != 1 or not isinstance(values[0], dict):
        text = f"{path} must be a text or a map of one name, not {in_words(label)}"
        raise MappingError(text, hint="write - name: {header: x-name}")
    _attributes(values[0], path, {"header"}, {"omit_if_not_present"})


def _label(label: Any, path: str) -> None:
    """A map of one of the kinds of `_LABELS`."""
    kind = next(iter(label), None) if isinstance(label, dict) and len(label) == 1 else None
    if kind not in _LABELS:
        raise MappingError(f"{path} must be a map of one of {', '.join(_LABELS)}, not {in_words(label)}")
    required, others = _LABELS[kind]
    _attributes(label[kind], f"{path}.{kind}", required, others)
    if required == {"key"} and label[kind]["key"] != kind:
        raise MappingError(f"{path}.{kind}.key must be the text '{kind}', not {in_words(label[kind]['key'])}")


def _attributes(value: Any, path: str, required: set[str], others: set[str]) -> None:
    if not isinstance(value, dict):
        raise MappingError(f"{path} must be a map, not {in_words(value)}")
    for name in sorted(required - value.keys()):
        raise MappingError(f"{path}.{name} is missing")
    for name, given in value.items():
        wanted = bool if name in ("omit_if_not_present", "v2Shorthand") else str
        if name in required | others and not isinstance(given, wanted):
            what = "true or false" if wanted is bool else "a text"
            raise MappingError(f"{path}.{name} must be {what}, not {in_words(given)}")


def check_keepalive(given: KeepAlive | None) -> None:
    """`keepalive`.

    Raises:
        MappingError: a number that Envoy does not take.
    """
    for name in KeepAlive.model_fields:
        if (value := getattr(given, name, None)) is not None:
            unsigned(name, value)


def docs(model: Model) -> None:
    """`docs`.

    Raises:
        MappingError: a value of a wrong type.
    """
    for name, value in (model.docs or {}).items():
        kind = _DOCS.get(name, object)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            what = {str: "a text", bool: "true or false"}.get(kind, "a whole number")
            raise MappingError(f"docs.{name} must be {what}, not {in_words(value)}")


def error_response_overrides(model: Model) -> None:
    """`error_response_overrides`.

    Raises:
        MappingError: an entry without a status from 400 to 599, or with a body that is no map.
    """
    for number, each in enumerate(model.error_response_overrides or ()):
        status, body = each.get("on_status_code"), each.get("body", {})
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599:
            text = f"error_response_overrides[{number}].on_status_code must be a number from 400 to 599"
            raise MappingError(text if status is None else f"{text}, not {in_words(status)}")
        if not isinstance(body, dict):
            raise MappingError(f"error_response_overrides[{number}].body must be a map, not {in_words(body)}")


def envoy_override(model: Model) -> None:
    """`envoy_override`.

    Raises:
        MappingError: it is no map.
    """
    if model.envoy_override is not None and not isinstance(model.envoy_override, dict):
        raise MappingError(f"envoy_override must be a map, not {in_words(model.envoy_override)}")


CHECKS: dict[str, Callable[[Model], None]] = {
    "labels": labels,
    "keepalive": lambda model: check_keepalive(model.keepalive),
    "docs": docs,
    "error_response_overrides": error_response_overrides,
    "envoy_override": envoy_override,
}
