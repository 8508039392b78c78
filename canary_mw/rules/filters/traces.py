"""A TracingService as a value: which requests are traced, what a span says, and where spans are sent."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from canary_mw.rules.service import Service

Driver = Literal["zipkin", "opentelemetry", "datadog"]
# How the context of a trace is written into headers.
Mode = Literal["B3", "TRACE_CONTEXT"]
DEFAULT_MODES: dict[Driver, tuple[Mode, ...]] = {
    "zipkin": ("B3",),
    "opentelemetry": ("TRACE_CONTEXT",),
    "datadog": ("TRACE_CONTEXT",),
}


class Sampling(NamedTuple):
    """Which requests are traced, in percent, where no other service has decided that already.

    Attributes:
        client: of those with `x-client-trace-id`.
        random: of all others.
        overall: of what the other two leave.
    """

    client: float = 100.0
    random: float = 100.0
    overall: float = 100.0


ALWAYS = Sampling()


class CustomTag(NamedTuple):
    """A tag of all spans.

    Attributes:
        source: "literal", or where the value is read: a variable of the environment, or a header of the request.
        name: of the variable, or of the header in lower case.
        value: the literal, or the default; None for none.
    """

    tag: str
    source: Literal["literal", "environment", "request_header"]
    name: str = ""
    value: str | None = None


@dataclass(frozen=True, slots=True)
class TracePolicy:
    """A TracingService.

    Attributes:
        modes: the contexts that are read, the first that is there, and written, all of them.
        tags: of all spans.
        endpoint: the target to which spans are posted (zipkin).
        hostname: the `host` of that request, "" for that of the service.
        long_ids: new traces have ids of 128 bits, not 64.
        service_name: by which the spans are known, "" for none.
        node: who sends the spans, as Emissary names it.
        namespace: of the document.
        file, line: where it is written; not part of equality.
    """

    name: str
    service: Service
    driver: Driver
    sampling: Sampling = ALWAYS
    tags: tuple[CustomTag, ...] = ()
    modes: tuple[Mode, ...] = ("B3",)
    endpoint: str = "/api/v2/spans"
    hostname: str = ""
    long_ids: bool = True
    service_name: str = ""
    node: str = "default-default"
    namespace: str = "default"
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
