"""AuthService documents with their types, by apiVersion: as in Emissary's CRDs, and what its compiler reads besides."""

from typing import Literal

from pydantic import Field

from canary_mw.config.ambassador.schema import CircuitBreaker, Flag, Strict


class IncludeBodyModel(Strict):
    """`include_body`: both are required."""

    max_bytes: int = Field(ge=0)
    allow_partial: Flag


class StatusOnError(Strict):
    """`status_on_error`."""

    code: int = Field(default=403, ge=200, le=599)


class AuthServiceV0(Strict):
    """`getambassador.io/v0`, and the Module `authentication`."""

    auth_service: str
    path_prefix: str = ""
    tls: bool | str | None = None
    allowed_headers: list[str] = Field(default_factory=list)
    ambassador_id: str | list[str] | None = None


class AuthServiceV1(Strict):
    """`getambassador.io/v1`."""

    auth_service: str
    path_prefix: str = ""
    tls: bool | str | None = None
    proto: Literal["http", "grpc"] = "http"
    timeout_ms: int = Field(default=5000, ge=0)
    allowed_request_headers: list[str] = Field(default_factory=list)
    allowed_authorization_headers: list[str] = Field(default_factory=list)
    include_body: IncludeBodyModel | None = None
    allow_request_body: Flag = False
    add_linkerd_headers: Flag | None = None
    failure_mode_allow: Flag = False
    status_on_error: StatusOnError = Field(default_factory=StatusOnError)
    ambassador_id: str | list[str] | None = None


class AuthServiceV2(AuthServiceV1):
    """`getambassador.io/v2`."""

    protocol_version: Literal["v2", "v3"] | None = None
    add_auth_headers: dict[str, str] = Field(default_factory=dict)
    v3CircuitBreakers: list[CircuitBreaker] | None = None
    v3StatsName: str | None = None
    connect_timeout_ms: int = Field(default=3000, ge=0)
    cluster_idle_timeout_ms: int | None = Field(default=None, ge=0)
    cluster_max_connection_lifetime_ms: int | None = Field(default=None, ge=0)


class AuthServiceV3(AuthServiceV2):
    """`getambassador.io/v3alpha1`."""

    tls: str | None = None
    circuit_breakers: list[CircuitBreaker] | None = None
    stats_name: str | None = None
    v2ExplicitTLS: dict[str, object] | None = None


AuthModel = AuthServiceV0 | AuthServiceV1
AUTH_MODELS: dict[str, type[AuthServiceV0] | type[AuthServiceV1]] = {
    "v0": AuthServiceV0,
    "v1": AuthServiceV1,
    "v2": AuthServiceV2,
    "v3alpha1": AuthServiceV3,
}
