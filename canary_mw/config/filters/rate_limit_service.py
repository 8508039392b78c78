"""RateLimitService documents -> RateLimitPolicy (Emissary's `irratelimit.py`)."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from canary_mw.config.ambassador import traffic_policies
from canary_mw.config.ambassador.schema import Flag, Strict
from canary_mw.config.filters.auth_service import AuthSurroundings
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report, validate
from canary_mw.config.wording import closest_to
from canary_mw.exceptions import MappingError
from canary_mw.rules.filters.limits import RateLimitPolicy
from canary_mw.rules.service import Service, parse_service
from canary_mw.rules.upstream import UpstreamOptions


class LimitGrpc(Strict):
    """`grpc`."""

    use_resource_exhausted_code: Flag = False


class RateLimitServiceV0(Strict):
    """`getambassador.io/v0`."""

    service: str
    timeout_ms: int = Field(default=20, ge=0)
    ambassador_id: str | list[str] | None = None


class RateLimitServiceV1(RateLimitServiceV0):
    """`getambassador.io/v1`."""

    domain: str = ""
    tls: bool | str | None = None


class RateLimitServiceV2(RateLimitServiceV1):
    """`getambassador.io/v2`."""

    protocol_version: Literal["v2", "v3"] | None = None
    failure_mode_deny: Flag = False
    v3GRPC: LimitGrpc = Field(default_factory=LimitGrpc)
    v3StatsName: str | None = None


class RateLimitServiceV3(RateLimitServiceV2):
    """`getambassador.io/v3alpha1`."""

    tls: str | None = None
    grpc: LimitGrpc = Field(default_factory=LimitGrpc)
    stats_name: str | None = None
    v2ExplicitTLS: dict[str, object] | None = None


LIMIT_MODELS: dict[str, type[RateLimitServiceV0]] = {
    "v0": RateLimitServiceV0,
    "v1": RateLimitServiceV1,
    "v2": RateLimitServiceV2,
    "v3alpha1": RateLimitServiceV3,
}
_CLOSED = ("v0", "v1")


def rate_limit_policy(resource: Resource, surroundings: AuthSurroundings, report: Report) -> RateLimitPolicy | None:
    """The policy of a document; None if it cannot be used, with a finding reported for each reason."""
    if not resource.name:
        report("error", "no-name", "the RateLimitService has no name: it is left out")
        return None
    version = (resource.api_version or "v2").removeprefix("getambassador.io/")
    kind = LIMIT_MODELS.get(version)
    if kind is None:
        # Reported with the other documents.
        return None
    known = {name for each in LIMIT_MODELS.values() for name in each.model_fields}
    model: Any = validate(
        kind,
        dict(resource.spec),
        report,
        misspelt=lambda name: None if name in known else closest_to(name, sorted(kind.model_fields)),
    )
    others = sorted(model.model_extra or {}) if model is not None and version in _CLOSED else []
    for name in others:
        report("error", "unknown-field", f"{name} is no attribute of {version}", attribute=name, hint="use v3alpha1")
    if model is None or others:
        return None
    try:
        policy = replace(_policy(model, resource, surroundings), file=report.file, line=resource.line)
    except MappingError as exc:
        report("error", "bad-value", exc.message, attribute=exc.message.partition(" ")[0], hint=exc.hint)
        return None
    for name in ("stats_name", "v3StatsName"):
        if getattr(model, name, None):
            report("notice", "no-effect", f"{name} has no effect: figures have the name of the service", attribute=name)
    if isinstance(model, RateLimitServiceV2) and model.protocol_version is None:
        report("notice", "protocol-version", "no protocol_version: v3 is spoken (in Emissary v2, which it refuses)")
    return policy


def _policy(model: RateLimitServiceV0, resource: Resource, surroundings: AuthSurroundings) -> RateLimitPolicy:
    settings = surroundings.settings
    if isinstance(model, RateLimitServiceV2) and model.protocol_version == "v2":
        raise MappingError("protocol_version v2 exists no more", hint="write protocol_version: v3")
    if find_spec("h2") is None:
        raise MappingError(
            "service is asked by gRPC: that needs the extra `grpc`", hint="pip install 'canary-mw[grpc]'"
        )
    own_domain = model.domain if isinstance(model, RateLimitServiceV1) else ""
    domain = own_domain or settings.label_domain or "ambassador"
    tls = model.tls if isinstance(model, RateLimitServiceV1) else None
    if isinstance(tls, str) and tls not in surroundings.tls_contexts:
        raise MappingError(f"tls: TLSContext {tls} is not defined, or in error itself", hint="define it")
    grpc = (getattr(model, "grpc", None), getattr(model, "v3GRPC", None))
    return RateLimitPolicy(
        resource.name or "",
        _service(model.service, resource.namespace, secure=bool(tls)),
        domain,
        traffic_policies.milliseconds(model.timeout_ms) / 1000 or None,
        isinstance(model, RateLimitServiceV2) and model.failure_mode_deny,
        any(each is not None and each.use_resource_exhausted_code for each in grpc),
        f"{surroundings.ambassador_id}-{resource.namespace}",
        settings.default_labels.get(domain, ()),
        options=UpstreamOptions(tls=surroundings.tls_contexts[tls] if isinstance(tls, str) else None),
    )


def _service(text: str, namespace: str, *, secure: bool) -> Service:
    service, _ = parse_service(text, namespace)
    if secure and service.origin.scheme == "http":
        service, _ = parse_service("https://" + (text.partition("://")[2] or text), namespace)
    return service
