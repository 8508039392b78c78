"""The request that a decision sends to its service, and the copy for a shadow."""

from dataclasses import replace

from canary_mw.forwarding.headers import request_headers
from canary_mw.forwarding.hop import HopContext, _passed
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.forwarding.rewrite import _shadow_host, request_host, rewrite_path
from canary_mw.http.framing import body_framing
from canary_mw.http.messages import RequestHead
from canary_mw.routing.group import Decision
from canary_mw.rules.mapping import Mapping

_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))


def upstream_request(decision: Decision, head: RequestHead, hop: HopContext) -> UpstreamRequest:
    """The request that a Mapping sends to its service.

    Raises:
        LoopDetected: it was forwarded by this deployment before.
        BadTarget: the rewrite would let the path climb out of where it points.
        ClientError: the framing of the body cannot be read.
    """
    mapping = decision.mapping
    known = head.headers_by_name
    chain = _passed(head.headers, hop.via) if b"via" in known else b""
    via = b"%b1.1 %b %b" % (chain, hop.via, mapping.via_mark)
    host = request_host(mapping, known.get(b"host", b""))
    body = body_framing(known)
    request = UpstreamRequest(
        mapping.service.text,
        head.method,
        rewrite_path(mapping, head.path) + head.query,
        [(b"host", host), *request_headers(mapping, head, known, hop), (b"via", via)],
        body,
        mapping.timeout_ms / 1000 if mapping.timeout_ms else None,
        mapping.connect_timeout,
        head.method in _IDEMPOTENT and not (body and body != (0,)),
        mapping.options,
    )
    if decision.shadow is not None:
        request.shadow = shadow_request(decision, decision.shadow, head, hop, request)
    return request


def shadow_request(
    decision: Decision, shadow: Mapping, head: RequestHead, hop: HopContext, request: UpstreamRequest
) -> UpstreamRequest | None:
    """The copy of a request for the shadow of its group, or None when this one is not copied.

    Path and headers are those of the main request, as in Envoy's mirroring; the Host tells the copy by `-shadow`.
    """
    if not (head.method in _SAFE or hop.shadow_writes or shadow.shadow_writes):
        return None
    if shadow.weight is not None and hop.roll() >= shadow.weight:
        return None
    headers = [(b"host", _shadow_host(request_host(decision.mapping, head.host or b"", shadow=True)))]
    headers.append((b"x-shadow", b"true"))
    headers += [pair for pair in request.headers if pair[0] not in (b"host", b"via", b"x-shadow")]
    via = dict(request.headers)[b"via"].removesuffix(decision.mapping.via_mark) + shadow.via_mark
    headers.append((b"via", via))
    return replace(
        request,
        service=shadow.service.text,
        headers=headers,
        replayable=False,
        connect_timeout=shadow.connect_timeout,
        options=shadow.options,
        shadow=None,
    )
