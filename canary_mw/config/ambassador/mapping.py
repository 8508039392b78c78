"""One Mapping document, typed by `schema.py`, as a `Mapping`: Emissary's conversion to v3alpha1, its compiler's checks.

Each attribute has a reader; a reader gives a value or raises `MappingError`, and all that is wrong is told at once.
"""

import re
from collections.abc import Callable
from collections.abc import Mapping as Dict
from functools import lru_cache
from typing import Any, NamedTuple

from canary_mw.config.ambassador import endpoint_policies as endpointpolicies
from canary_mw.config.ambassador import traffic_policies as policies
from canary_mw.config.ambassador.notices import AttributeDiagnostic, notices
from canary_mw.config.ambassador.schema import KEPT, LegacyMapping, Model, RegexSubstitution
from canary_mw.exceptions import MappingError
from canary_mw.http.headers import is_header_name
from canary_mw.rules.mapping import HeaderChange, Mapping, PrefixKind, Redirect, RegexRewrite, Variant
from canary_mw.rules.matchers import ANY_HOST, Condition, HostPattern, Regex, compile_regex
from canary_mw.rules.module import DEFAULT_SETTINGS, ModuleSettings
from canary_mw.rules.service import Service, parse_service
from canary_mw.rules.upstream import DEFAULT_OPTIONS, EndpointOptions, UpstreamOptions, UpstreamTLS

DEFAULT_TIMEOUT_MS = 3000
_NOTHING: Dict[str, Any] = {}
_NOT_VISIBLE = re.compile(r"[^\x21-\x7e]")


class DocumentOrigin(NamedTuple):
    """Where a document comes from, and the globals that it lives under."""

    name: str
    namespace: str
    labels: Dict[str, str]
    file: str
    line: int
    settings: ModuleSettings = DEFAULT_SETTINGS
    tls_contexts: Dict[str, UpstreamTLS] = {}


def to_mapping(model: Model, origin: DocumentOrigin) -> tuple[Mapping | None, list[AttributeDiagnostic]]:
    """Build the Mapping of a document.

    Returns:
        The Mapping, or None when an error is among the notes.
    """
    given = model.model_fields_set
    model = with_defaults(model, origin.settings)
    values: dict[str, Any] = {}
    notes: list[AttributeDiagnostic] = []
    for attributes, (argument, read) in _ALL.items():
        try:
            values[argument] = read(model, origin)
        except MappingError as exc:
            notes.append(
                AttributeDiagnostic("error", _first_given(model, attributes), "bad-value", exc.message, exc.hint)
            )
    if notes:
        return None, notes
    limits = {limit: values.pop(limit) for limit, _ in _LIMITS.values()}
    of_endpoints = EndpointOptions(**{name: limits.pop(name) for name in EndpointOptions._fields})
    options = UpstreamOptions(**limits, endpoints=None if of_endpoints == EndpointOptions() else of_endpoints)
    values |= {"name": origin.name, "namespace": origin.namespace, "file": origin.file, "line": origin.line}
    mapping = Mapping(options=DEFAULT_OPTIONS if options == DEFAULT_OPTIONS else options, **values)
    return mapping, [*notices(model, mapping, given)]


def with_defaults(model: Model, settings: ModuleSettings) -> Model:
    """The document with the Module's values for what it does not name; an own value, even `{}`, replaces them."""
    missing = {name: value for name, value in settings.attributes.items() if name not in model.model_fields_set}
    return model.model_copy(update=missing) if missing else model


def _first_given(model: Model, attributes: str) -> str:
    names = attributes.split()
    return next((name for name in names if name in model.model_fields_set), names[0])


def _compiled(pattern: str, origin: DocumentOrigin) -> Regex:
    """A regex of a rule, under the limit that the Module sets; what matches compiles it again, out of RE2's cache."""
    return compile_regex(pattern, max_size=origin.settings.regex_max_size)


def _prefix(model: Model, origin: DocumentOrigin) -> str:
    if model.prefix_regex:
        _compiled(model.prefix, origin)
    return model.prefix


def _kind(model: Model, _: DocumentOrigin) -> PrefixKind:
    return "regex" if model.prefix_regex else "exact" if model.prefix_exact else "plain"


def _service(model: Model, origin: DocumentOrigin) -> Service:
    service = _parsed(model.service, origin.namespace)
    secure = model.tls is True or (isinstance(model.tls, str) and not model.host_redirect)
    if secure and service.origin.scheme == "http":
        service = _parsed("https://" + (model.service.partition("://")[2] or model.service), origin.namespace)
    return service


@lru_cache(maxsize=1024)
def _parsed(text: str, namespace: str) -> Service:
    """Thousands of Mappings lead to a few services."""
    return parse_service(text, namespace)[0]


def _host(model: Model, origin: DocumentOrigin) -> HostPattern:
    if isinstance(model, LegacyMapping):
        # `host` of v1 and v2 is a glob, called `hostname` since v3alpha1.
        return _host_text(model.host, model.host_regex, origin) if model.host else ANY_HOST
    if model.hostname:
        return HostPattern(model.hostname)
    if model.host:
        if "*" in model.host and not model.host_regex:
            raise MappingError(f"host {model.host!r} is an exact match, no glob", hint="write hostname: instead")
        return _host_text(model.host, model.host_regex, origin)
    authority = next((value for name, value in model.headers.items() if name.lower() == ":authority"), None)
    return HostPattern(authority) if authority else ANY_HOST


def _host_text(text: str, regex: bool, origin: DocumentOrigin) -> HostPattern:
    if regex:
        _compiled(text, origin)
    return HostPattern(text, regex)


def _method(model: Model, origin: DocumentOrigin) -> Condition | None:
    if model.method is None:
        return None
    if model.method_regex:
        _compiled(model.method, origin)
    return Condition(":method", model.method, model.method_regex)


def _headers(model: Model, origin: DocumentOrigin) -> tuple[Condition, ...]:
    # An exact :authority is the host (see `_host`); v1 and v2 have a host always, and it wins.
    exact = {name: value for name, value in model.headers.items() if name.lower() != ":authority"}
    conditions = _conditions(exact, model.regex_headers, origin)
    for condition in conditions:
        if not is_header_name(condition.name.removeprefix(":")):
            raise MappingError(f"{condition.name!r} is not a header name")
    return conditions


def _query(model: Model, origin: DocumentOrigin) -> tuple[Condition, ...]:
    return _conditions(model.query_parameters, model.regex_query_parameters, origin)


def _conditions(exact: Dict[str, Any], regex: Dict[str, str], origin: DocumentOrigin) -> tuple[Condition, ...]:
    """Sorted by name, exact ones first; `true` of v1 and v2 is a regex for anything, `false` is no condition."""
    present = {name: ".*" for name, value in exact.items() if value is True}
    patterns = {**present, **regex}
    for pattern in regex.values():
        _compiled(pattern, origin)
    texts = sorted((name, value) for name, value in exact.items() if isinstance(value, str))
    return (*(Condition(*item) for item in texts), *(Condition(*item, regex=True) for item in sorted(patterns.items())))


def _rewrite(model: Model, _: DocumentOrigin) -> str | None:
    if model.rewrite is None:
        return "/"
    return _visible(model.rewrite) or None


def _regex_rewrite(model: Model, origin: DocumentOrigin) -> RegexRewrite | None:
    return _substitution(model.regex_rewrite, origin)


def _substitution(value: RegexSubstitution | None, origin: DocumentOrigin) -> RegexRewrite | None:
    if value is None:
        return None
    if not value.pattern:
        raise MappingError("the pattern is missing")
    return RegexRewrite(_compiled(value.pattern, origin), _visible(value.substitution).encode())


def _visible(text: str) -> str:
    found = _NOT_VISIBLE.search(text)
    if found:
        raise MappingError(f"{text!r} holds {found[0]!r}, which may not stand in a URL", hint="percent-encode it")
    return text


def _host_rewrite(model: Model, _: DocumentOrigin) -> str | None:
    if model.host_rewrite and model.auto_host_rewrite:
        raise MappingError("host_rewrite and auto_host_rewrite exclude each other", hint="leave one of them out")
    return _visible(model.host_rewrite) if model.host_rewrite else None


def _tls(model: Model, origin: DocumentOrigin) -> UpstreamTLS | None:
    return origin.tls_contexts.get(model.tls) if isinstance(model.tls, str) else None


def _timeout(model: Model, _: DocumentOrigin) -> int:
    return DEFAULT_TIMEOUT_MS if model.timeout_ms is None else policies.milliseconds(model.timeout_ms)


def _connect_timeout(model: Model, _: DocumentOrigin) -> int:
    return DEFAULT_TIMEOUT_MS if model.connect_timeout_ms is None else policies.milliseconds(model.connect_timeout_ms)


def _added_to_request(model: Model, origin: DocumentOrigin) -> tuple[HeaderChange, ...]:
    changes = policies.added_headers(model.add_request_headers)
    if not model.add_linkerd_headers:
        return changes
    service = _service(model, origin).origin
    return (*changes, HeaderChange(b"l5d-dst-override", service.authority.encode(), append=False))


def _added_to_response(model: Model, origin: DocumentOrigin) -> tuple[HeaderChange, ...]:
    changes = policies.added_headers(model.add_response_headers)
    name = origin.settings.server_name
    return changes if name is None else (HeaderChange(b"server", name.encode(), append=False), *changes)


def _redirect(model: Model, origin: DocumentOrigin) -> Redirect | None:
    if not model.host_redirect or model.shadow:
        return None
    service = _service(model, origin)
    return Redirect(
        host=service.text,
        path=model.path_redirect and _visible(model.path_redirect),
        prefix=model.prefix_redirect and _visible(model.prefix_redirect),
        regex=_substitution(model.regex_redirect, origin),
        status=model.redirect_response_code,
    )


def _upgrades(model: Model, _: DocumentOrigin) -> tuple[str, ...]:
    if model.allow_upgrade:
        return tuple(token.lower() for token in model.allow_upgrade)
    return ("websocket",) if model.use_websocket else ()


def _variant(_: Model, origin: DocumentOrigin) -> Variant | None:
    named = origin.labels.get("variant")
    return "gray" if named == "gray" else "stable" if named == "stable" else None


def _extras(model: Model, _: DocumentOrigin) -> Dict[str, Any]:
    kept = {*KEPT & model.model_fields_set}
    return dict(sorted(model.model_dump(include=kept, exclude_unset=True).items())) if kept else _NOTHING


# Attributes as they are written, those with a regex first -> field of Mapping, and who reads it.
_READERS: dict[str, tuple[str, Callable[[Model, DocumentOrigin], Any]]] = {
    "prefix": ("prefix", _prefix),
    "prefix_regex": ("prefix_kind", _kind),
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
    "retry_policy": ("retry", lambda model, _: policies.retry_policy(model.retry_policy)),
    "cors": ("cors", lambda model, _: policies.cors(model.cors)),
    "preserve_external_request_id": ("keep_request_id", lambda _, origin: origin.settings.keep_request_id),
    "add_request_headers": ("add_request_headers", _added_to_request),
    "add_response_headers": ("add_response_headers", _added_to_response),
    "remove_request_headers": (
        "remove_request_headers",
        lambda model, _: policies.removed_headers(model.remove_request_headers),
    ),
    "remove_response_headers": (
        "remove_response_headers",
        lambda model, _: policies.removed_headers(model.remove_response_headers),
    ),
    "regex_redirect path_redirect prefix_redirect": ("redirect", _redirect),
    "shadow": ("shadow", lambda model, _: model.shadow),
    "shadow_writes": ("shadow_writes", lambda _, origin: origin.labels.get("shadow_writes") == "allow"),
    "allow_upgrade": ("upgrades", _upgrades),
    "metadata_labels": ("variant", _variant),
    "labels": ("extras", _extras),
}
# The same for the fields of UpstreamOptions.
_LIMITS: dict[str, tuple[str, Callable[[Model, DocumentOrigin], Any]]] = {
    "retry_policy.per_try_timeout": ("try_timeout", lambda model, _: policies.try_timeout(model.retry_policy)),
    "idle_timeout_ms": ("idle_timeout", lambda model, _: policies.limit(model.idle_timeout_ms)),
    "cluster_idle_timeout_ms": ("keepalive_idle", lambda model, _: policies.limit(model.cluster_idle_timeout_ms)),
    "cluster_max_connection_lifetime_ms": (
        "lifetime",
        lambda model, _: policies.limit(model.cluster_max_connection_lifetime_ms),
    ),
    "tls": ("tls", _tls),
    "load_balancer": ("load_balancer", lambda model, _: endpointpolicies.load_balancer(model.load_balancer)),
    "health_checks": ("health_checks", lambda model, _: endpointpolicies.health_checks(model.health_checks or [])),
    "outlier_detection": (
        "outlier_detection",
        lambda model, _: endpointpolicies.outlier_detection(model.outlier_detection)[0],
    ),
    "circuit_breakers": (
        "circuit_breakers",
        lambda model, _: policies.circuit_breakers(model.circuit_breakers or [], model.priority),
    ),
}
_ALL = _READERS | _LIMITS
