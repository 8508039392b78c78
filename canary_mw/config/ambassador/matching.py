"""Matching attributes of a Mapping: prefix, host, method, headers and query parameters.

Each function raises `MappingError` if its attribute is not valid.
"""

import re
from collections.abc import Mapping as Dict
from typing import Any

from canary_mw.config.ambassador.origin import DocumentOrigin, compile_limited
from canary_mw.config.ambassador.schema import CONVERTED_WITHOUT_HOST, LegacyMapping, Model
from canary_mw.exceptions import MappingError
from canary_mw.http.headers import is_header_name
from canary_mw.rules.mapping import PrefixKind
from canary_mw.rules.matchers import ANY_HOST, Condition, HostPattern
from canary_mw.rules.wording import quoted


def prefix(model: Model, origin: DocumentOrigin) -> str:
    """`prefix`, checked if it is a regex."""
    if model.prefix_regex:
        compile_limited(model.prefix, origin)
    return model.prefix


def prefix_kind(model: Model, _: DocumentOrigin) -> PrefixKind:
    """How the prefix is compared; `prefix_regex` overrides `prefix_exact`."""
    return "regex" if model.prefix_regex else "exact" if model.prefix_exact else "plain"


def host(model: Model, origin: DocumentOrigin) -> HostPattern:
    """The host pattern of `hostname`, `host` or an exact `:authority` header, in this order."""
    if isinstance(model, LegacyMapping):
        # `host` of v1 and v2 is a glob; v3alpha1 calls it `hostname`.
        if not model.host or was_written_without_host(model):
            return ANY_HOST
        return _host_pattern(model.host, model.host_regex, origin)
    if model.hostname:
        return HostPattern(model.hostname)
    if model.host:
        if "*" in model.host and not model.host_regex:
            raise MappingError(f"host {quoted(model.host)} is an exact match, no glob", hint="write hostname: instead")
        return _host_pattern(model.host, model.host_regex, origin)
    authority = next((value for name, value in model.headers.items() if name.lower() == ":authority"), None)
    return HostPattern(authority) if authority else ANY_HOST


def was_written_without_host(model: Model) -> bool:
    """Whether a v2 document was converted from a v3alpha1 document without any host."""
    return isinstance(model, LegacyMapping) and model.host == CONVERTED_WITHOUT_HOST and not model.host_regex


def _host_pattern(text: str, regex: bool, origin: DocumentOrigin) -> HostPattern:
    if regex:
        compile_limited(text, origin)
    return HostPattern(text, regex)


def method(model: Model, origin: DocumentOrigin) -> Condition | None:
    """The condition of `method`."""
    if model.method is None:
        return None
    if model.method_regex:
        compile_limited(model.method, origin)
    elif not is_header_name(model.method):
        raise MappingError(f"{quoted(model.method)} is no method", hint="with method_regex: true it is a regex")
    return Condition(":method", model.method, model.method_regex)


def headers(model: Model, origin: DocumentOrigin) -> tuple[Condition, ...]:
    """The conditions of `headers` and `regex_headers`."""
    # An exact :authority is the host (see `host`); in v1 and v2 `host` takes precedence.
    exact = {name: value for name, value in model.headers.items() if name.lower() != ":authority"}
    conditions = _conditions(exact, model.regex_headers, origin)
    for condition in conditions:
        if not is_header_name(condition.name.removeprefix(":")):
            raise MappingError(f"{quoted(condition.name)} is not a header name")
        if condition.key[:1] == b":" and condition.key not in _PSEUDO_HEADERS:
            text = f"{quoted(condition.name)} is no pseudo header of a request"
            raise MappingError(text, hint=f"known are {', '.join(sorted(key.decode() for key in _PSEUDO_HEADERS))}")
    for key in {condition.key for condition in conditions} & _PSEUDO_HEADERS.keys():
        _check_satisfiable([each for each in (*conditions, *_method(model)) if each.key == key])
    return conditions


# The pseudo headers of a request (RFC 9113, section 8.3.1), and what the value of each is like.
_PSEUDO_HEADERS = {
    b":method": re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
    b":path": re.compile(rb"/.*|\*"),
    b":scheme": re.compile(rb".*"),
    b":authority": re.compile(rb".*"),
}


def _method(model: Model) -> list[Condition]:
    """The condition of `method`, unless it has an error of its own."""
    try:
        return [] if model.method is None else [Condition(":method", model.method, model.method_regex)]
    except MappingError:
        return []


def _check_satisfiable(conditions: list[Condition]) -> None:
    """Refuse conditions that no value of a pseudo header meets; it has exactly one, unlike other headers."""
    values = {each.expected: each for each in conditions if not each.regex}
    if len(values) > 1:
        texts = " and ".join(quoted(each.value) for each in values.values())
        raise MappingError(f"{conditions[0].name} cannot be {texts} at once", hint="write a regex, or two Mappings")
    for condition in conditions:
        if condition.key == b":scheme" and not (condition.accepts(b"http") or condition.accepts(b"https")):
            raise MappingError(f":scheme is http or https, never {quoted(condition.value)}")
        if condition.expected in values and not condition.regex:
            if not _PSEUDO_HEADERS[condition.key].fullmatch(condition.expected):
                raise MappingError(f"{condition.name} is never {quoted(condition.value)}")
        elif any(not condition.accepts(value) for value in values):
            (value,) = values.values()
            raise MappingError(f"{condition.name} cannot be {quoted(value.value)} and match {quoted(condition.value)}")


def query(model: Model, origin: DocumentOrigin) -> tuple[Condition, ...]:
    """The conditions of `query_parameters` and `regex_query_parameters`."""
    conditions = _conditions(model.query_parameters, model.regex_query_parameters, origin)
    if any(not condition.name for condition in conditions):
        raise MappingError("a query parameter has no name")
    return conditions


def _conditions(exact: Dict[str, Any], regex: Dict[str, str], origin: DocumentOrigin) -> tuple[Condition, ...]:
    """Conditions by name, exact ones first; in v1 and v2 `true` is a regex for any value, `false` is no condition."""
    present = {name: ".*" for name, value in exact.items() if value is True}
    patterns = {**present, **regex}
    for name, pattern in regex.items():
        if not pattern:
            raise MappingError(f"the regex for {name} is empty", hint="write .* for any value")
        compile_limited(pattern, origin)
    texts = sorted((name, value) for name, value in exact.items() if isinstance(value, str))
    return (*(Condition(*item) for item in texts), *(Condition(*item, regex=True) for item in sorted(patterns.items())))
