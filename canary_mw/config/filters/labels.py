"""`labels` of Mappings and of the Module -> descriptors. A label in error leaves out its descriptor, no more."""

import hashlib
import re
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from typing import Any, NamedTuple

from canary_mw.config.ambassador.origin import DocumentOrigin
from canary_mw.config.ambassador.schema import LegacyMapping, Model
from canary_mw.config.wording import in_words
from canary_mw.exceptions import MappingError
from canary_mw.http.headers import is_header_name
from canary_mw.rules.filters.limits import Descriptor, Label
from canary_mw.rules.service import Service
from canary_mw.rules.wording import quoted

# The kinds of a label of v3alpha1, with the attributes that each requires, and those that it may have.
_LABELS: dict[str, tuple[set[str], set[str]]] = {
    "generic_key": ({"value"}, {"key", "v2Shorthand"}),
    "request_headers": ({"key", "header_name"}, {"omit_if_not_present"}),
    "remote_address": ({"key"}, set()),
    "source_cluster": ({"key"}, set()),
    "destination_cluster": ({"key"}, set()),
}
LABEL_KINDS = frozenset(_LABELS)
_WORDS = ("remote_address", "source_cluster", "destination_cluster")
_PSEUDO = (":method", ":path", ":authority")
_LONGEST_NAME = 60
_NOT_ALPHANUMERIC = re.compile(r"[^0-9A-Za-z]")


_NOTHING: Dict[str, tuple[Descriptor, ...]] = {}
Labels = tuple[Dict[str, tuple[Descriptor, ...]], list[MappingError]]


class Place(NamedTuple):
    """What labels are read with.

    Attributes:
        legacy: of v0, v1 or v2.
        cluster: Envoy's name for the service of the Mapping; see `cluster_name`.
    """

    legacy: bool
    cluster: str = ""


def labels_of(model: Model, origin: DocumentOrigin, service: Callable[[Model, DocumentOrigin], Service]) -> Labels:
    """The descriptors of a Mapping by domain, and what is wrong with its labels; those of v0 are in the default domain.

    Args:
        service: reads the service.
    """
    old = getattr(model, "rate_limits", None)
    if not model.labels and not old:
        return _NOTHING, []
    tls = service(model, origin).origin.scheme == "https"
    place = Place(isinstance(model, LegacyMapping), cluster_name(model.service, origin.namespace, tls=tls))
    found, problems = read_labels(model.labels, place)
    if old and not model.labels:
        try:
            found[origin.settings.label_domain or "ambassador"] = rate_limits(old, place)
        except MappingError as exc:
            problems.append(exc)
    return found, problems


def read_labels(
    written: Dict[str, Any] | None, place: Place
) -> tuple[dict[str, tuple[Descriptor, ...]], list[MappingError]]:
    """The descriptors by domain, and what is wrong with labels."""
    found: dict[str, tuple[Descriptor, ...]] = {}
    problems: list[MappingError] = []
    for domain, groups in (written or {}).items():
        path = f"labels.{domain}"
        if not isinstance(groups, list):
            problems.append(MappingError(f"{path} must be a list, not {in_words(groups)}"))
            continue
        descriptors: list[Descriptor] = []
        for number, group in enumerate(groups):
            try:
                descriptors += _group(group, f"{path}[{number}]", place)
            except MappingError as exc:
                problems.append(exc)
        if descriptors:
            found[domain] = tuple(descriptors)
    return found, problems


def _group(group: Any, path: str, place: Place) -> Iterator[Descriptor]:
    if not isinstance(group, dict) or not group or (len(group) > 1 and not place.legacy):
        raise MappingError(f"{path} must be a map of one name, not {in_words(group)}")
    return iter([descriptor(labels, f"{path}.{name}", place) for name, labels in group.items()])


def descriptor(labels: Any, path: str, place: Place) -> Descriptor:
    """A list of labels as one descriptor.

    Raises:
        MappingError: a label is not valid.
    """
    if not isinstance(labels, list):
        raise MappingError(f"{path} must be a list, not {in_words(labels)}")
    read = _legacy_label if place.legacy else _label
    return tuple(read(label, f"{path}[{index}]", place) for index, label in enumerate(labels))


def rate_limits(written: Any, place: Place) -> tuple[Descriptor, ...]:
    """`rate_limits` of v0: each gives a descriptor of four labels, and its headers.

    Raises:
        MappingError: another shape.
    """
    if not isinstance(written, list):
        raise MappingError(f"rate_limits must be a list, not {in_words(written)}")
    return tuple(_rate_limit(each, f"rate_limits[{number}]", place) for number, each in enumerate(written))


def _rate_limit(each: Any, path: str, place: Place) -> Descriptor:
    if not isinstance(each, dict) or not isinstance(each.get("descriptor"), str):
        raise MappingError(f"{path}.descriptor must be a text", hint="write - descriptor: name")
    headers = each.get("headers", [])
    if not isinstance(headers, list) or not all(isinstance(name, str) for name in headers):
        raise MappingError(f"{path}.headers must be a list of names, not {in_words(headers)}")
    names = tuple(Label("header", name, _header_name(name, path)) for name in headers)
    fixed = (_word("source_cluster", place), _word("destination_cluster", place), _word("remote_address", place))
    return (*fixed, Label("constant", "generic_key", each["descriptor"]), *names)


def _legacy_label(label: Any, path: str, place: Place) -> Label:
    """A text, `{generic_key: text}`, or `{name: {header: name}}`."""
    if isinstance(label, str):
        return _word(label, place) if label in _WORDS else Label("constant", "generic_key", label)
    given = label if isinstance(label, dict) else {}
    if isinstance(given.get("generic_key"), str) and given.keys() <= {"generic_key", "v3Key"}:
        return Label("constant", str(given.get("v3Key") or "generic_key"), given["generic_key"])
    if len(given) != 1 or not isinstance(next(iter(given.values())), dict):
        text = f"{path} must be a text or a map of one name, not {in_words(label)}"
        raise MappingError(text, hint="write - name: {header: x-name}")
    ((key, value),) = given.items()
    _check(value, path, {"header"}, {"omit_if_not_present"})
    return Label("header", key, _header_name(value["header"], path))


def _label(label: Any, path: str, place: Place) -> Label:
    """A map of one of the kinds of `_LABELS`."""
    kind = next(iter(label), None) if isinstance(label, dict) and len(label) == 1 else None
    if kind not in _LABELS:
        raise MappingError(f"{path} must be a map of one of {', '.join(_LABELS)}, not {in_words(label)}")
    required, others = _LABELS[kind]
    value = label[kind]
    _check(value, f"{path}.{kind}", required, others)
    if kind == "generic_key":
        return Label("constant", value.get("key") or "generic_key", value["value"])
    if kind == "request_headers":
        return Label("header", value["key"], _header_name(value["header_name"], path))
    if value["key"] != kind:
        raise MappingError(f"{path}.{kind}.key must be the text '{kind}', not {in_words(value['key'])}")
    return _word(kind, place)


def _word(kind: str, place: Place) -> Label:
    if kind == "destination_cluster":
        return Label("constant", kind, place.cluster)
    return Label("remote_address" if kind == "remote_address" else "source_cluster", kind)


def _header_name(name: str, path: str) -> str:
    if name not in _PSEUDO and not is_header_name(name):
        raise MappingError(f"{path}: {quoted(name)} is not a header name")
    return name.lower()


def _check(value: Any, path: str, required: set[str], others: set[str]) -> None:
    if not isinstance(value, dict):
        raise MappingError(f"{path} must be a map, not {in_words(value)}")
    for name in sorted(required - value.keys()):
        raise MappingError(f"{path}.{name} is missing")
    for name, given in value.items():
        wanted = bool if name in ("omit_if_not_present", "v2Shorthand") else str
        if name in required | others and not isinstance(given, wanted):
            what = "true or false" if wanted is bool else "a text"
            raise MappingError(f"{path}.{name} must be {what}, not {in_words(given)}")


def cluster_name(service: str, namespace: str, *, tls: bool) -> str:
    """Envoy's name for the service of a Mapping, as Emissary makes it; a long one is cut, with a hash of the whole."""
    name = f"cluster_{_NOT_ALPHANUMERIC.sub('_', service)}{'_otls' if tls else ''}_{namespace}"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:16].upper()
    return f"{name[:40]}-{digest}-0"
