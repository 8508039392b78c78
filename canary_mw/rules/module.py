"""The settings of the Module `ambassador` that hold for all Mappings."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import Any

from canary_mw.rules.filters.asked import NO_FILTERS, Filters
from canary_mw.rules.filters.limits import Descriptor
from canary_mw.rules.filters.logs import LogPolicy
from canary_mw.rules.filters.traces import TracePolicy
from canary_mw.rules.matchers import REGEX_MAX_SIZE
from canary_mw.rules.request_policy import RequestPolicy
from canary_mw.rules.tcp.mapping import TCPMapping


@dataclass(frozen=True, slots=True)
class ModuleSettings:
    """A Module as a value.

    Attributes:
        attributes: defaults for the attributes of Mappings, by name; types as in `schema.py`.
        request_policy: None when requests need no checks.
        keep_request_id: a client's `x-request-id` is kept; Emissary's default is to replace it.
        trusted_hops: proxies in front whose X-Forwarded-* headers are continued, whatever their address.
        server_name: value of `server` in all responses, None to leave it to the upstream.
        filters: what services are asked about every request.
        label_domain: of a RateLimitService that names none.
        default_labels: put before the labels of Mappings, by domain.
        tcp: where the connections of ports lead that a proxy opens besides its own.
        logs: what is told of every request.
        tracing: where spans of requests are sent, or None.
    """

    attributes: Dict[str, Any] = field(default_factory=dict)
    regex_max_size: int = REGEX_MAX_SIZE
    request_policy: RequestPolicy | None = None
    keep_request_id: bool = True
    trusted_hops: int = 0
    server_name: str | None = None
    filters: Filters = NO_FILTERS
    label_domain: str = ""
    default_labels: Dict[str, Descriptor] = field(default_factory=dict)
    tcp: tuple[TCPMapping, ...] = ()
    logs: tuple[LogPolicy, ...] = ()
    tracing: TracePolicy | None = None


DEFAULT_SETTINGS = ModuleSettings()
