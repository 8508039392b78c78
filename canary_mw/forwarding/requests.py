"""The request to the service of a decision, and its copy for a shadow."""

from dataclasses import replace

from canary_mw.forwarding.headers import Headers, request_headers
from canary_mw.forwarding.hop import HopContext, comment_for, via_prefix
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.forwarding.rewrite import request_host, rewrite_path, shadow_host
from canary_mw.http.framing import body_framing
from canary_mw.http.lanes import Lane, with_lane_headers
from canary_mw.http.messages import RequestHead
from canary_mw.routing.assignment import Assigned
from canary_mw.routing.decided import Decision
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import STABLE

_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


def upstream_request(decision: Decision, head: RequestHead, hop: HopContext) -> UpstreamRequest:
    """The request that a Mapping sends to its service.

    Raises:
        LoopDetected: this deployment forwarded the request before.
        BadTarget: the rewritten path holds a dot segment.
        ClientError: the body framing is invalid.
    """
    mapping = decision.mapping
    by_name = head.headers_by_name
    chain = via_prefix(head.headers, hop.via) if b"via" in by_name else b""
    host = request_host(mapping, by_name.get(b"host", b""))
    body = body_framing(by_name)
    headers = [(b"host", host), *request_headers(mapping, head, by_name, hop)]
    if decision.lane is not None and decision.release is not None:
        headers = with_lane(headers, decision.lane, decision.release, mapping)
    headers.append(
        (b"via", b"%b1.1 %b %b" % (chain, hop.via, comment_for(mapping.via_comment, headers, hop.comment_key)))
    )
    request = UpstreamRequest(
        mapping.service.text,
        head.method,
        head.mount.sent + rewrite_path(mapping, head.path) + head.query,
        headers,
        body,
        mapping.timeout,
        mapping.connect_timeout,
        head.method in _IDEMPOTENT and not (body and body != (0,)),
        mapping.options,
        mapping=mapping.name,
        timeout_ends_at_head=decision.middleware and mapping.timeout_ms is None,
    )
    if decision.shadow is not None:
        request.shadow = shadow_request(decision, decision.shadow, head, hop, request)
    return request


def with_lane(headers: Headers, lane: Lane, assigned: Assigned, mapping: Mapping) -> Headers:
    """The headers of a request with the decision about it, unless the Mapping removes that."""
    if lane.header in mapping.remove_request_headers:
        return headers
    origin = mapping.service.origin
    listed = lane.baggage and lane.hosts(origin.host, origin.port)
    return with_lane_headers(headers, lane, (assigned.variant or STABLE).encode(), STABLE.encode(), listed=listed)


def shadow_request(
    decision: Decision, shadow: Mapping, head: RequestHead, hop: HopContext, request: UpstreamRequest
) -> UpstreamRequest | None:
    """The copy of a request for the shadow of its group, or None when the request is not copied.

    Path and headers are those of the main request, and the Host ends in `-shadow`, as in Envoy's request mirroring.
    """
    if not (head.method in _SAFE or hop.shadow_writes or shadow.shadow_writes):
        return None
    if shadow.weight is not None and hop.roll() >= shadow.weight:
        return None
    headers = [(b"host", shadow_host(request_host(decision.mapping, head.host or b"", shadow=True)))]
    headers.append((b"x-shadow", b"true"))
    headers += [pair for pair in request.headers if pair[0] not in (b"host", b"via", b"x-shadow")]
    via = dict(request.headers)[b"via"]
    comment = comment_for(shadow.via_comment, request.headers, hop.comment_key)
    headers.append((b"via", via[: via.rindex(b"(")] + comment))
    return replace(
        request,
        service=shadow.service.text,
        headers=headers,
        replayable=False,
        timeout_ends_at_head=False,
        connect_timeout=shadow.connect_timeout,
        options=shadow.options,
        shadow=None,
        mapping=shadow.name,
    )
