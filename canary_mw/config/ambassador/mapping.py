"""A typed Mapping document -> `Mapping`, with the conversion to v3alpha1 and the checks of Emissary's compiler.

Each attribute has a function that returns its value or raises `MappingError`; all errors are reported at once.
"""

import re
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from functools import lru_cache
from typing import Any

from canary_mw.config.ambassador import endpoint_policies, matching, traffic_policies, unused_attributes
from canary_mw.config.ambassador.notices import AttributeDiagnostic, notices
from canary_mw.config.ambassador.origin import DocumentOrigin, compile_limited
from canary_mw.config.ambassador.schema import KEPT, Model, RegexSubstitution, health_checks_of
from canary_mw.config.ambassador.traffic_policies import seconds_from_ms
from canary_mw.config.filters.labels import labels_of
from canary_mw.config.services.consul_resolver import consul_name
from canary_mw.exceptions import MappingError
from canary_mw.http.headers import has_control
from canary_mw.rules.mapping import DEFAULT_TIMEOUT_MS, HeaderChange, Mapping, Redirect, RegexRewrite, Variant, percent
from canary_mw.rules.module import ModuleSettings
from canary_mw.rules.service import Service, kubernetes_service, parse_service
from canary_mw.rules.upstream import (
    DEFAULT_OPTIONS,
    ConsulService,
    EndpointOptions,
    KubernetesService,
    UpstreamOptions,
    UpstreamTLS,
)
from canary_mw.rules.wording import quoted

_NOTHING: Dict[str, Any] = {}
_NOT_PRINTABLE = re.compile(r"[^\x21-\x7e]")


def to_mapping(model: Model, origin: DocumentOrigin) -> tuple[Mapping | None, list[AttributeDiagnostic]]:
    """Build the Mapping of a document.

    Returns:
        The Mapping, or None if it has an error; and the findings about its attributes.
    """
    given = model.model_fields_set
    model = with_defaults(model, origin.settings)
    values: dict[str, Any] = {}
    diagnostics: list[AttributeDiagnostic] = []
    for attributes, (argument, read) in _ALL_READERS.items():
        try:
            values[argument] = read(model, origin)
        except MappingError as exc:
            diagnostics.append(
                AttributeDiagnostic("error", _first_given(model, attributes), "bad-value", exc.message, exc.hint)
            )
    diagnostics += _unused(model)
    if diagnostics:
        return None, diagnostics
    options = {name: values.pop(name) for name, _ in _OPTIONS.values()}
    endpoint_options = EndpointOptions(
        **{name: options.pop(name) for name in EndpointOptions._fields if name in options}
    )
    upstream_options = UpstreamOptions(
        **options, endpoints=None if endpoint_options == EndpointOptions() else endpoint_options
    )
    values |= {"name": origin.name, "namespace": origin.namespace, "file": origin.file, "line": origin.line}
    # One object for all Mappings without options of their own.
    shared = DEFAULT_OPTIONS if upstream_options == DEFAULT_OPTIONS else upstream_options
    mapping = Mapping(options=shared, **values)
    wrong = (
        AttributeDiagnostic("error", "labels", "bad-label", e.message, e.hint)
        for e in labels_of(model, origin, _service)[1]
    )
    return mapping, [*wrong, *notices(model, mapping, given)]


def _unused(model: Model) -> Iterator[AttributeDiagnostic]:
    for attribute, check in unused_attributes.CHECKS.items():
        try:
            check(model)
        except MappingError as exc:
            yield AttributeDiagnostic("error", attribute, "bad-value", exc.message, exc.hint)


def with_defaults(model: Model, settings: ModuleSettings) -> Model:
    """The document with the Module's defaults for missing attributes; a value of its own, even `{}`, has priority."""
    missing = {name: value for name, value in settings.attributes.items() if name not in model.model_fields_set}
    return model.model_copy(update=missing) if missing else model


def _first_given(model: Model, attributes: str) -> str:
    """The first of the attributes that the document names; an error is reported at its line."""
    names = attributes.split()
    return next((name for name in names if name in model.model_fields_set), names[0])


def _service(model: Model, origin: DocumentOrigin) -> Service:
    # A name in Consul has no namespace.
    namespace = "default" if origin.agent is not None else origin.namespace
    service = _parse_service(model.service, namespace)
    secure = model.tls is True or (isinstance(model.tls, str) and not model.host_redirect)
    if secure and service.origin.scheme == "http":
        service = _parse_service("https://" + (model.service.partition("://")[2] or model.service), namespace)
    return service


@lru_cache(maxsize=1024)
def _parse_service(text: str, namespace: str) -> Service:
    """Cached: thousands of Mappings name a few services."""
    return parse_service(text, namespace)[0]


def _weight(model: Model, _: DocumentOrigin) -> int | None:
    # Without its shadow a group works as well; what any other Mapping gets then is for its group (`config/weights.py`).
    if model.shadow and percent(model.weight) != model.weight:
        raise MappingError(f"weight {model.weight} of a shadow is no percentage", hint="write one from 0 to 100")
    return model.weight


def _rewrite(model: Model, _: DocumentOrigin) -> str | None:
    if model.rewrite is None:
        return "/"
    return _url_text(model.rewrite) or None


def _regex_rewrite(model: Model, origin: DocumentOrigin) -> RegexRewrite | None:
    return _substitution(model.regex_rewrite, origin)


def _substitution(value: RegexSubstitution | None, origin: DocumentOrigin) -> RegexRewrite | None:
    if value is None:
        return None
    if not value.pattern:
        raise MappingError("the pattern is missing")
    return RegexRewrite(compile_limited(value.pattern, origin), _url_text(value.substitution).encode())


def _url_text(text: str) -> str:
    match = _NOT_PRINTABLE.search(text)
    if match:
        raise MappingError(
            f"{quoted(text)} holds {quoted(match[0])}, which may not stand in a URL", hint="percent-encode it"
        )
    return text


def _host_rewrite(model: Model, _: DocumentOrigin) -> str | None:
    if model.host_rewrite and model.auto_host_rewrite:
        raise MappingError("host_rewrite and auto_host_rewrite exclude each other", hint="leave one of them out")
    return _url_text(model.host_rewrite) if model.host_rewrite else None


def _kubernetes_service(model: Model, origin: DocumentOrigin) -> KubernetesService | None:
    if origin.endpoints_in is None or model.host_redirect:
        return None
    return kubernetes_service(_service(model, origin).origin, origin.endpoints_in)


def _consul_service(model: Model, origin: DocumentOrigin) -> ConsulService | None:
    if origin.agent is None or model.host_redirect:
        return None
    name = consul_name(model.service)
    return None if name is None else ConsulService(origin.agent, name)


def _tls(model: Model, origin: DocumentOrigin) -> UpstreamTLS | None:
    return origin.tls_contexts.get(model.tls) if isinstance(model.tls, str) else None


def _timeout(model: Model, _: DocumentOrigin) -> int | None:
    return None if model.timeout_ms is None else traffic_policies.milliseconds(model.timeout_ms)


def _connect_timeout(model: Model, _: DocumentOrigin) -> int:
    return (
        DEFAULT_TIMEOUT_MS
        if model.connect_timeout_ms is None
        else traffic_policies.milliseconds(model.connect_timeout_ms)
    )


def _add_request_headers(model: Model, origin: DocumentOrigin) -> tuple[HeaderChange, ...]:
    changes = traffic_policies.added_headers(model.add_request_headers)
    if not model.add_linkerd_headers:
        return changes
    service = _service(model, origin).origin
    return (*changes, HeaderChange(b"l5d-dst-override", service.authority.encode(), append=False))


def _add_response_headers(model: Model, origin: DocumentOrigin) -> tuple[HeaderChange, ...]:
    changes = traffic_policies.added_headers(model.add_response_headers)
    name = origin.settings.server_name
    return changes if name is None else (HeaderChange(b"server", name.encode(), append=False), *changes)


def _redirect(model: Model, origin: DocumentOrigin) -> Redirect | None:
    if not model.host_redirect or model.shadow:
        return None
    service = _service(model, origin)
    return Redirect(
        host=service.text,
        path=model.path_redirect and _url_text(model.path_redirect),
        prefix=model.prefix_redirect and _url_text(model.prefix_redirect),
        regex=_substitution(model.regex_redirect, origin),
        status=model.redirect_response_code,
    )


def _upgrades(model: Model, _: DocumentOrigin) -> tuple[str, ...] | None:
    for token in model.allow_upgrade or ():
        if not token or has_control(token) or not token.isascii():
            raise MappingError(f"{quoted(token)} is no protocol", hint="write websocket")
    if model.allow_upgrade:
        return tuple(token.lower() for token in model.allow_upgrade)
    if model.use_websocket is None:
        return None if model.allow_upgrade is None else ()
    return ("websocket",) if model.use_websocket else ()


def _variant(_: Model, origin: DocumentOrigin) -> Variant | None:
    label = origin.labels.get("variant")
    return "gray" if label == "gray" else "stable" if label == "stable" else None


def _extras(model: Model, _: DocumentOrigin) -> Dict[str, Any]:
    kept = {*KEPT & model.model_fields_set}
    return dict(sorted(model.model_dump(include=kept, exclude_unset=True).items())) if kept else _NOTHING


# Attributes of the document, those with a regex first -> field of Mapping, and the function that reads it.
_READERS: dict[str, tuple[str, Callable[[Model, DocumentOrigin], Any]]] = {
    "prefix": ("prefix", matching.prefix),
    "prefix_regex": ("prefix_kind", matching.prefix_kind),
    "case_sensitive": ("case_sensitive", lambda model, _: model.case_sensitive),
    "service": ("service", _service),
    "host": ("host", matching.host),
    "method": ("method", matching.method),
    "regex_headers headers": ("conditions", matching.headers),
    "regex_query_parameters query_parameters": ("query", matching.query),
    "precedence": ("precedence", lambda model, _: model.precedence),
    "weight": ("weight", _weight),
    "rewrite": ("rewrite", _rewrite),
    "regex_rewrite": ("regex_rewrite", _regex_rewrite),
    "host_rewrite": ("host_rewrite", _host_rewrite),
    "auto_host_rewrite": ("auto_host_rewrite", lambda model, _: model.auto_host_rewrite),
    "timeout_ms": ("timeout_ms", _timeout),
    "connect_timeout_ms": ("connect_timeout_ms", _connect_timeout),
    "retry_policy": ("retry", lambda model, _: traffic_policies.retry_policy(model.retry_policy)),
    "cors": ("cors", lambda model, _: traffic_policies.cors(model.cors)),
    "preserve_external_request_id": ("keep_request_id", lambda _, origin: origin.settings.keep_request_id),
    "add_request_headers": ("add_request_headers", _add_request_headers),
    "add_response_headers": ("add_response_headers", _add_response_headers),
    "remove_request_headers": (
        "remove_request_headers",
        lambda model, _: traffic_policies.removed_headers(model.remove_request_headers),
    ),
    "remove_response_headers": (
        "remove_response_headers",
        lambda model, _: traffic_policies.removed_headers(model.remove_response_headers),
    ),
    "regex_redirect path_redirect prefix_redirect": ("redirect", _redirect),
    "shadow": ("shadow", lambda model, _: model.shadow),
    "shadow_writes": ("shadow_writes", lambda _, origin: origin.labels.get("shadow_writes") == "allow"),
    "allow_upgrade": ("upgrades", _upgrades),
    "metadata_labels": ("variant", _variant),
    "labels rate_limits": ("descriptors", lambda model, origin: labels_of(model, origin, _service)[0]),
    "bypass_auth": ("bypass_auth", lambda model, _: model.bypass_auth is True),
    "auth_context_extensions": ("context_extensions", lambda m, _: tuple((m.auth_context_extensions or {}).items())),
    "docs": ("extras", _extras),
}
# The same for the fields of UpstreamOptions.
_OPTIONS: dict[str, tuple[str, Callable[[Model, DocumentOrigin], Any]]] = {
    "retry_policy.per_try_timeout": (
        "per_try_timeout",
        lambda model, _: traffic_policies.per_try_timeout(model.retry_policy),
    ),
    "idle_timeout_ms": ("idle_timeout", lambda model, _: seconds_from_ms(model.idle_timeout_ms)),
    "cluster_idle_timeout_ms": ("keepalive_expiry", lambda model, _: seconds_from_ms(model.cluster_idle_timeout_ms)),
    "cluster_max_connection_lifetime_ms": (
        "max_connection_lifetime",
        lambda model, _: seconds_from_ms(model.cluster_max_connection_lifetime_ms),
    ),
    "tls": ("tls", _tls),
    "load_balancer": ("load_balancer", lambda model, _: endpoint_policies.load_balancer(model.load_balancer)),
    "resolver": ("kubernetes_service", _kubernetes_service),
    "service resolver": ("consul_service", _consul_service),
    "v3health_checks health_checks": (
        "health_checks",
        lambda m, _: endpoint_policies.health_checks(health_checks_of(m)),
    ),
    "outlier_detection": (
        "outlier_detection",
        lambda m, _: endpoint_policies.outlier_detection(m.outlier_detection)[0],
    ),
    "circuit_breakers": (
        "circuit_breakers",
        lambda model, _: traffic_policies.circuit_breakers(model.circuit_breakers or [], model.priority),
    ),
}
_ALL_READERS = _READERS | _OPTIONS
