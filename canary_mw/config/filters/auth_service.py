"""AuthService documents -> AuthPolicy, with the checks of Emissary's compiler (`irauth.py`)."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from canary_mw.config.ambassador import traffic_policies
from canary_mw.config.ambassador.schema import Strict
from canary_mw.config.filters.auth_schema import AUTH_MODELS, AuthModel, AuthServiceV0, AuthServiceV1, AuthServiceV2
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report, validate
from canary_mw.config.wording import closest_to
from canary_mw.exceptions import MappingError
from canary_mw.http.headers import has_control, is_header_name
from canary_mw.rules.filters.auth import NEVER_SET, AuthPolicy, IncludeBody
from canary_mw.rules.module import ModuleSettings
from canary_mw.rules.service import Service, parse_service
from canary_mw.rules.upstream import UpstreamOptions, UpstreamTLS
from canary_mw.rules.wording import quoted

# What v0 sends besides.
_V0_REQUEST_HEADERS = (
    "forwarded proxy-authenticate set-cookie www-authenticate x-b3-flags x-b3-parentspanid x-b3-sampled x-b3-spanid"
    " x-b3-traceid x-gateway-proto x-ot-span-context".split()
)
_GROUP = "getambassador.io/"
_LARGE = 1 << 20
_CLOSED = ("v0", "v1")


@dataclass(frozen=True, slots=True)
class AuthSurroundings:
    """What an AuthService document is read with."""

    settings: ModuleSettings
    tls_contexts: Dict[str, UpstreamTLS] = field(default_factory=dict)
    ambassador_id: str = "default"


def auth_policy(resource: Resource, surroundings: AuthSurroundings, report: Report) -> AuthPolicy | None:
    """The policy of a document; None if it cannot be used, with a finding reported for each reason."""
    if not resource.name:
        report("error", "no-name", "the AuthService has no name: every request that it guards is answered with 500")
        return None
    version, spec = version_and_spec(resource)
    if version not in AUTH_MODELS:
        # Reported with the other documents.
        return None
    kind: type[Strict] = AUTH_MODELS[version]
    model: Any = validate(kind, spec, report, misspelt=lambda name: _misspelt(kind, version, name))
    if model is None or not _report_unread(kind, version, model, report):
        return None
    values: dict[str, Any] = {}
    failed = False
    for attributes, (argument, read) in _READERS.items():
        try:
            values[argument] = read(model, resource, surroundings)
        except MappingError as exc:
            failed = True
            report("error", "bad-value", exc.message, attribute=attributes.split()[0], hint=exc.hint)
    if failed:
        return None
    _report_notices(model, report)
    return AuthPolicy(resource.name, **values)


def version_and_spec(resource: Resource) -> tuple[str, dict[str, Any]]:
    """The version by which a document is read, and its attributes; the Module `authentication` is one of v0."""
    if resource.kind == "Module":
        config = resource.spec.get("config")
        return "v0", dict(config) if isinstance(config, dict) else {}
    return (resource.api_version or "v2").removeprefix(_GROUP), dict(resource.spec)


def _misspelt(kind: type[Strict], version: str, name: str) -> str | None:
    """The attribute that an unknown one is an error for: without it, more might pass than is meant."""
    known = {each for model in AUTH_MODELS.values() for each in model.model_fields}
    return None if name in known else closest_to(name, sorted(kind.model_fields))


def _report_unread(kind: type[Strict], version: str, model: Strict, report: Report) -> bool:
    """Report attributes of other versions where a schema is closed; returns whether there are none."""
    others = sorted(model.model_extra or {}) if version in _CLOSED else []
    for name in others:
        report("error", "unknown-field", f"{name} is no attribute of {version}", attribute=name, hint="use v3alpha1")
    return not others


def _service(model: AuthModel, resource: Resource, surroundings: AuthSurroundings) -> tuple[Service, ...]:
    service, _ = parse_service(model.auth_service, resource.namespace)
    if (model.tls is True or isinstance(model.tls, str)) and service.origin.scheme == "http":
        rest = model.auth_service.partition("://")[2] or model.auth_service
        service, _ = parse_service("https://" + rest, resource.namespace)
    return (service,)


def _options(model: AuthModel, _: Resource, surroundings: AuthSurroundings) -> UpstreamOptions:
    tls = None
    if isinstance(model.tls, str):
        tls = surroundings.tls_contexts.get(model.tls)
        if tls is None:
            raise MappingError(f"TLSContext {model.tls} is not defined, or in error itself", hint="define it")
    own = getattr(model, "circuit_breakers", None) or getattr(model, "v3CircuitBreakers", None)
    breakers = own if own is not None else surroundings.settings.attributes.get("circuit_breakers") or []
    return UpstreamOptions(
        tls=tls,
        circuit_breakers=traffic_policies.circuit_breakers(breakers),
        keepalive_expiry=traffic_policies.seconds_from_ms(getattr(model, "cluster_idle_timeout_ms", None)),
        max_connection_lifetime=traffic_policies.seconds_from_ms(
            getattr(model, "cluster_max_connection_lifetime_ms", None)
        ),
    )


def _path_prefix(model: AuthModel, *_: object) -> bytes:
    text = model.path_prefix
    if not text.isascii() or has_control(text) or any(char in text for char in " ?#"):
        raise MappingError(f"path_prefix {quoted(text)} is not the beginning of a path", hint="write /auth")
    # Emissary puts the slash there.
    return b"" if not text else text.encode() if text.startswith("/") else b"/" + text.encode()


def _names(names: list[str]) -> frozenset[bytes]:
    for name in names:
        if name != "*" and not is_header_name(name):
            raise MappingError(f"{quoted(name)} is not a header name")
    return frozenset(name.lower().encode() for name in names if name != "*") - NEVER_SET


def _request_names(model: AuthModel, *_: object) -> frozenset[bytes]:
    if isinstance(model, AuthServiceV0):
        return _names([*model.allowed_headers, *_V0_REQUEST_HEADERS])
    return _names(model.allowed_request_headers)


def _all_requested(model: AuthModel, *_: object) -> bool:
    return isinstance(model, AuthServiceV1) and "*" in model.allowed_request_headers


def _granted(model: AuthModel, *_: object) -> frozenset[bytes]:
    names = model.allowed_headers if isinstance(model, AuthServiceV0) else model.allowed_authorization_headers
    if "*" in names and not isinstance(model, AuthServiceV0):
        raise MappingError("the headers that a service may grant are named", hint="name each: x-user")
    return _names(names)


def _added(model: AuthModel, *_: object) -> tuple[tuple[bytes, bytes], ...]:
    given = model.add_auth_headers if isinstance(model, AuthServiceV2) else {}
    for name, value in given.items():
        if not is_header_name(name) or name.lower().encode() in NEVER_SET:
            raise MappingError(f"{quoted(name)} is not the name of a header that can be added")
        if has_control(value) or any(ord(char) > 255 for char in value):
            # Without the value, which may be a secret.
            raise MappingError(f"the value of {name} holds what no header may hold")
    return tuple((name.lower().encode(), value.encode("latin-1")) for name, value in sorted(given.items()))


def _body(model: AuthModel, *_: object) -> IncludeBody | None:
    if not isinstance(model, AuthServiceV1):
        return None
    if model.include_body is not None:
        return IncludeBody(model.include_body.max_bytes, model.include_body.allow_partial)
    return IncludeBody(4096, True) if model.allow_request_body else None


def _proto(model: AuthModel, *_: object) -> str:
    if not isinstance(model, AuthServiceV1) or model.proto == "http":
        return "http"
    if isinstance(model, AuthServiceV2) and model.protocol_version == "v2":
        raise MappingError("protocol_version v2 exists no more", hint="write protocol_version: v3")
    if find_spec("h2") is None:
        raise MappingError(
            "proto grpc needs the extra `grpc`", hint="pip install 'canary-mw[grpc]', or write proto: http"
        )
    return "grpc"


def _linkerd(model: AuthModel, _: Resource, surroundings: AuthSurroundings) -> bool:
    own = getattr(model, "add_linkerd_headers", None)
    return bool(surroundings.settings.attributes.get("add_linkerd_headers") if own is None else own)


def _report_notices(model: AuthModel, report: Report) -> None:
    for name in ("stats_name", "v3StatsName"):
        if getattr(model, name, None):
            report("notice", "no-effect", f"{name} has no effect: figures have the name of the service", attribute=name)
    if not isinstance(model, AuthServiceV1):
        return
    if model.proto == "grpc" and getattr(model, "protocol_version", None) is None:
        text = "no protocol_version: v3 is spoken (in Emissary v2, which it refuses)"
        report("notice", "protocol-version", text, attribute="proto")
    body = model.include_body
    if body is not None and model.allow_request_body:
        text = "allow_request_body is ignored beside include_body"
        report("notice", "no-effect", text, attribute="allow_request_body")
    if body is not None and body.max_bytes > _LARGE:
        text = f"max_bytes {body.max_bytes}: so much is kept of each request in flight"
        report("notice", "large-body", text, attribute="include_body.max_bytes")
    if model.failure_mode_allow:
        text = "failure_mode_allow: a request goes on unchecked while the service is down"
        report("notice", "fails-open", text, attribute="failure_mode_allow")


def _milliseconds(name: str, default: int) -> Callable[[AuthModel, Resource, AuthSurroundings], float]:
    def read(model: AuthModel, *_: object) -> float:
        return traffic_policies.milliseconds(getattr(model, name, default)) / 1000

    return read


_timeout = _milliseconds("timeout_ms", 5000)
_connect_timeout = _milliseconds("connect_timeout_ms", 3000)
_Reader = Callable[[Any, Resource, AuthSurroundings], Any]
# Attributes of the document -> field of AuthPolicy, and the function that reads it.
_READERS: dict[str, tuple[str, _Reader]] = {
    "auth_service": ("services", _service),
    "proto protocol_version": ("proto", _proto),
    "path_prefix": ("path_prefix", _path_prefix),
    "timeout_ms": ("timeout", lambda *given: _timeout(*given) or None),
    "connect_timeout_ms": ("connect_timeout", lambda *given: _connect_timeout(*given) or float("inf")),
    "allowed_request_headers allowed_headers": ("request_headers", _request_names),
    "allowed_request_headers *": ("all_request_headers", _all_requested),
    "allowed_authorization_headers allowed_headers": ("granted_headers", _granted),
    "add_auth_headers": ("added_headers", _added),
    "include_body allow_request_body": ("include_body", _body),
    "failure_mode_allow": ("failure_mode_allow", lambda model, *_: getattr(model, "failure_mode_allow", False)),
    "status_on_error": (
        "status_on_error",
        lambda model, *_: model.status_on_error.code if isinstance(model, AuthServiceV1) else 403,
    ),
    "add_linkerd_headers": ("linkerd", _linkerd),
    "tls circuit_breakers": ("options", _options),
}
