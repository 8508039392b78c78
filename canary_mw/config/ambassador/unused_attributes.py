"""Attributes without effect yet: what Emissary's CRDs and Envoy refuse in them is refused here too."""

from collections.abc import Callable

from canary_mw.config.ambassador.schema import KeepAlive, Model
from canary_mw.config.ambassador.traffic_policies import unsigned
from canary_mw.config.wording import in_words
from canary_mw.exceptions import MappingError

_DOCS = {"path": str, "url": str, "display_name": str, "ignored": bool, "timeout_ms": int}


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
    "keepalive": lambda model: check_keepalive(model.keepalive),
    "docs": docs,
    "error_response_overrides": error_response_overrides,
    "envoy_override": envoy_override,
}
