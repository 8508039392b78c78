"""A span as it waits for its encoding."""

from collections.abc import Mapping as Dict
from typing import NamedTuple

from canary_mw.forwarding.tracing.context import TraceContext
from canary_mw.observability.logs.entries import Logged
from canary_mw.routing.decided import Decision


class Served(NamedTuple):
    """What a server span is about: a request that has ended.

    Attributes:
        generation: number of the rules that were in force.
    """

    logged: Logged
    decision: Decision | None
    generation: int


class Called(NamedTuple):
    """What a client span is about: an attempt at an upstream, or the call of a service of a filter.

    Attributes:
        call: kind and name of the document that names the service; "" for an upstream.
        namespace: of the Mapping.
        url: without the values of the query.
        host, port: of the endpoint by its name.
        address: of the endpoint, with its port.
        resent: attempts before this one.
        status: None where there is no answer.
        error: the reason of the error; None where there is an answer.
        verdict: what an AuthService has said, as Envoy names it.
        is_grpc: the service is called by gRPC.
    """

    method: str
    service: str
    mapping: str
    namespace: str
    call: str
    url: str
    host: str
    port: int
    address: str
    resent: int
    status: int | None
    error: str | None
    verdict: str | None
    is_grpc: bool = False


class Span(NamedTuple):
    """A span that has ended.

    Attributes:
        start: seconds since the epoch.
        tags: those of the document.
    """

    context: TraceContext
    start: float
    seconds: float
    about: Served | Called
    tags: Dict[str, str]
