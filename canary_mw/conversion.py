"""One Mapping document, typed by `schema.py`, as a `Mapping`: Emissary's conversion to v3alpha1, its compiler's checks.

Each attribute has a reader; a reader gives a value or raises `MappingError`, and all that is wrong is told at once.
"""

import re
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from typing import Any, NamedTuple

from .exceptions import MappingError
from .mapping import HeaderChange, Mapping, PrefixKind, Redirect, RegexRewrite, Variant, is_header_name
from .matchers import ANY_HOST, Condition, HostPattern, compile_regex
from .messages import Severity
from .schema import NO_EFFECT_YET, AddedHeader, LegacyMapping, MappingV3, RegexSubstitution
from .service import Service, parse_service

Model = MappingV3 | LegacyMapping
DEFAULT_TIMEOUT_MS = 3000
_NOT_VISIBLE = re.compile(r"[^\x21-\x7e]")
_NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_FRAMING = frozenset((b"connection", b"content-length", b"transfer-encoding", b"upgrade"))
_OPERATOR = re.compile(r"%[^%]*%?")


class Note(NamedTuple):
    """A finding about one attribute."""

    severity: Severity
    attribute: str
    code: str
    message: str
    hint: str | None = None


class Origin(NamedTuple):
    """Where a document comes from."""

    name: str
    namespace: str
    labels: Dict[str, str]
    file: str
    line: int


def to_mapping(model: Model, origin: Origin) -> tuple[Mapping | None, list[Note]]:
    """Build the Mapping of a document.

    Returns:
        The Mapping, or None when an error is among the notes.
    """
    values: dict[str, Any] = {}
    notes: list[Note] = []
    for attributes, (argument, read) in _READERS.items():
        try:
            values[argument] = read(model, origin)
        except MappingError as exc:
            notes.append(Note("error", _first_given(model, attributes), "bad-value", exc.message, exc.hint))
    if notes:
        return None, notes
    mapping = Mapping(name=origin.name, namespace=origin.namespace, file=origin.file, line=origin.line, **values)
    return mapping, [*_notes(model, mapping)]


def _first_given(model: Model, attributes: str) -> str:
    names = attributes.split()
    return next((name for name in names if name in model.model_fields_set), names[0])


def _prefix(model: Model, _: Origin) -> str:
    if model.prefix_regex:
        compile_regex(model.prefix)
    return model.prefix


def _kind(model: Model, _: Origin) -> PrefixKind:
    return "regex" if model.prefix_regex else "exact" if model.prefix_exact else "plain"


def _service(model: Model, origin: Origin) -> Service:
    service, _ = parse_service(model.service, origin.namespace)
    if model.tls is True and service.origin.scheme == "http":
        service, _ = parse_service("https://" + (model.service.partition("://")[2] or model.service), origin.namespace)
    return service


def _host(model: Model, _: Origin) -> HostPattern:
    if isinstance(model, LegacyMapping):
        # `host` of v1 and v2 is a glob, called `hostname` since v3alpha1.
        return HostPattern(model.host, model.host_regex) if model.host else ANY_HOST
    if model.hostname:
        return HostPattern(model.hostname)
    if model.host:
        if "*" in model.host and not model.host_regex:
            raise MappingError(f"host {model.host!r} is an exact match, no glob", hint="write hostname: instead")
        return HostPattern(model.host, model.host_regex)
    authority = next((value for name, value in model.headers.items() if name.lower() == ":authority"), None)
    return HostPattern(authority) if authority else ANY_HOST


def _method(model: Model, _: Origin) -> Condition | None:
    return None if model.method is None else Condition(":method", model.method, model.method_regex)


def _headers(model: Model, _: Origin) -> tuple[Condition, ...]:
    # An exact :authority is the host (see `_host`); v1 and v2 have a host always, and it wins.
    exact = {name: value for name, value in model.headers.items() if name.lower() != ":authority"}
    conditions = _conditions(exact, model.regex_headers)
    for condition in conditions:
        if not is_header_name(condition.name.removeprefix(":")):
            raise MappingError(f"{condition.name!r} is not a header name")
    return conditions


def _query(model: Model, _: Origin) -> tuple[Condition, ...]:
    return _conditions(model.query_parameters, model.regex_query_parameters)


def _conditions(exact: Dict[str, Any], regex: Dict[str, str]) -> tuple[Condition, ...]:
    """Sorted by name, exact ones first; `true` of v1 and v2 is a regex for anything, `false` is no condition."""
    present = {name: ".*" for name, value in exact.items() if value is True}
    patterns = {**present, **regex}
    texts = sorted((name, value) for name, value in exact.items() if isinstance(value, str))
    return (*(Condition(*item) for item in texts), *(Condition(*item, regex=True) for item in sorted(patterns.items())))


def _rewrite(model: Model, _: Origin) -> str | None:
    if model.rewrite is None:
        return "/"
    return _visible(model.rewrite) or None


def _regex_rewrite(model: Model, _: Origin) -> RegexRewrite | None:
    return _substitution(model.regex_rewrite)


def _substitution(value: RegexSubstitution | None) -> RegexRewrite | None:
    if value is None:
        return None
    if not value.pattern:
        raise MappingError("the pattern is missing")
    pattern = compile_regex(value.pattern)
    return RegexRewrite(pattern, _visible(value.substitution).encode())


def _visible(text: str) -> str:
    found = _NOT_VISIBLE.search(text)
    if found:
        raise MappingError(f"{text!r} holds {found[0]!r}, which may not stand in a URL", hint="percent-encode it")
    return text


def _host_rewrite(model: Model, _: Origin) -> str | None:
    if model.host_rewrite and model.auto_host_rewrite:
        raise MappingError("host_rewrite and auto_host_rewrite exclude each other", hint="leave one of them out")
    return _visible(model.host_rewrite) if model.host_rewrite else None


def _timeout(model: Model, _: Origin) -> int:
    return DEFAULT_TIMEOUT_MS if model.timeout_ms is None else _millis(model.timeout_ms)


def _connect_timeout(model: Model, _: Origin) -> int:
    return DEFAULT_TIMEOUT_MS if model.connect_timeout_ms is None else _millis(model.connect_timeout_ms)


def _millis(value: int) -> int:
    if value < 0:
        raise MappingError(f"{value} ms is negative", hint="0 means no limit")
    return value


def _added(headers: Dict[str, str | AddedHeader]) -> tuple[HeaderChange, ...]:
    return tuple(change for item in sorted(headers.items()) if (change := _change(*item)) is not None)


def _change(name: str, added: str | AddedHeader) -> HeaderChange | None:
    value, append = (added, True) if isinstance(added, str) else (added.value, added.append)
    if _changeable(name) in _FRAMING:
        raise MappingError(f"{name} frames the message and cannot be added", hint="leave it out")
    if _NOT_IN_VALUE.search(value):
        raise MappingError(f"the value of {name} holds a control character")
    literal = value.replace("%%", "")
    if "%" not in literal:
        return HeaderChange(name.lower().encode(), value.replace("%%", "%").encode(), append)
    if literal.count("%") % 2:
        raise MappingError(f"the value of {name} holds a bare %", hint="write %% for a percent sign")
    return None


def _changeable(name: str) -> bytes:
    if not is_header_name(name):
        raise MappingError(f"{name!r} is not a header name")
    if name.lower() in ("host", ":authority"):
        raise MappingError("the Host header cannot be added or removed", hint="use host_rewrite")
    return name.lower().encode()


def _removed(names: str | list[str]) -> tuple[bytes, ...]:
    return tuple(_changeable(name) for name in ([names] if isinstance(names, str) else names))


def _redirect(model: Model, origin: Origin) -> Redirect | None:
    if not model.host_redirect or model.shadow:
        return None
    service = _service(model, origin)
    return Redirect(
        host=service.text,
        path=model.path_redirect and _visible(model.path_redirect),
        prefix=model.prefix_redirect and _visible(model.prefix_redirect),
        regex=_substitution(model.regex_redirect),
        status=model.redirect_response_code,
    )


def _upgrades(model: Model, _: Origin) -> tuple[str, ...]:
    if model.allow_upgrade:
        return tuple(token.lower() for token in model.allow_upgrade)
    return ("websocket",) if model.use_websocket else ()


def _variant(_: Model, origin: Origin) -> Variant | None:
    named = origin.labels.get("variant")
    return "gray" if named == "gray" else "stable" if named == "stable" else None


def _extras(model: Model, _: Origin) -> dict[str, Any]:
    return {name: getattr(model, name) for name in sorted(NO_EFFECT_YET & model.model_fields_set)}


# Attributes as they are written, those with a regex first -> field of Mapping, and who reads it.
_READERS: dict[str, tuple[str, Callable[[Model, Origin], Any]]] = {
    "prefix": ("prefix", _prefix),
    "prefix_regex": ("kind", _kind),
    "case_sensitive": ("case_sensitive", lambda model, _: model.case_sensitive),
    "service": ("service", _service),
    "host": ("host", _host),
    "method": ("method", _method),
    "regex_headers headers": ("conditions", _headers),
    "regex_query_parameters query_parameters": ("query", _query),
    "precedence": ("precedence", lambda model, _: model.precedence),
    "weight": ("weight", lambda model, _: model.weight),
    "rewrite": ("rewrite", _rewrite),
    "regex_rewrite": ("regex_rewrite", _regex_rewrite),
    "host_rewrite": ("host_rewrite", _host_rewrite),
    "auto_host_rewrite": ("auto_host_rewrite", lambda model, _: model.auto_host_rewrite),
    "timeout_ms": ("timeout_ms", _timeout),
    "connect_timeout_ms": ("connect_timeout_ms", _connect_timeout),
    "add_request_headers": ("add_request_headers", lambda model, _: _added(model.add_request_headers)),
    "add_response_headers": ("add_response_headers", lambda model, _: _added(model.add_response_headers)),
    "remove_request_headers": ("remove_request_headers", lambda model, _: _removed(model.remove_request_headers)),
    "remove_response_headers": ("remove_response_headers", lambda model, _: _removed(model.remove_response_headers)),
    "regex_redirect path_redirect prefix_redirect": ("redirect", _redirect),
    "shadow": ("shadow", lambda model, _: model.shadow),
    "allow_upgrade": ("upgrades", _upgrades),
    "metadata_labels": ("variant", _variant),
    "labels": ("extras", _extras),
}


def _notes(model: Model, mapping: Mapping) -> Iterator[Note]:
    """What to say about a Mapping that works."""
    for name in mapping.extras:
        yield Note("notice", name, "no-effect-yet", f"{name} is read and has no effect yet")
    _, problem = parse_service(model.service, mapping.namespace)
    if problem:
        yield Note("warning", "service", "service-text", problem)
    if isinstance(model, MappingV3) and mapping.host is ANY_HOST:
        yield Note("notice", "service", "no-hostname", "no hostname: matches every host (Emissary: none)")
    if mapping.regex_rewrite and "rewrite" in model.model_fields_set:
        yield Note("notice", "rewrite", "rewrite-overridden", "regex_rewrite is used, rewrite is not")
    if mapping.regex_rewrite and not mapping.regex_rewrite.usable:
        text = "the substitution names a group that the pattern does not have: the path stays as it is"
        yield Note("warning", "regex_rewrite", "bad-reference", text)
    if mapping.weight is not None and not 0 <= mapping.weight <= 100:
        yield Note("warning", "weight", "weight-range", f"weight {mapping.weight} is not in 0..100")
    given = [name for name in ("path_redirect", "prefix_redirect", "regex_redirect") if getattr(model, name)]
    if mapping.redirect and len(given) > 1:
        yield Note("error", given[1], "two-redirects", f"{given[0]} is used, {' and '.join(given[1:])} not")
    if given and not mapping.redirect:
        yield Note("warning", given[0], "no-redirect", f"{given[0]} without host_redirect: true does nothing")
    yield from _operator_notes(model)


def _operator_notes(model: Model) -> Iterator[Note]:
    for attribute in ("add_request_headers", "add_response_headers"):
        for name, added in getattr(model, attribute).items():
            value = added if isinstance(added, str) else added.value
            found = _OPERATOR.search(value.replace("%%", ""))
            if found:
                text = f"{found[0]} is not evaluated yet: {name} is not added"
                yield Note("notice", f"{attribute}.{name}", "no-effect-yet", text)
