"""Requests and answers as they leave us: built afresh from parsed parts, nothing copied because it was there.

Order of the changes to a request: hop-by-hop headers go (RFC 9110, section 7.6.1), what we assert about the client is
set, then the Mapping removes and adds, and last come `host` and `via`, which nothing can take away.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from .cors import marked
from .exceptions import BadTarget, LoopDetected
from .framing import request_body
from .group import Decision
from .headervalues import Facts
from .mapping import HeaderChange, Mapping, Redirect
from .messages import RawHeaders, RequestHead, ResponseHead, UpstreamRequest

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings"
    b" proxy-authenticate proxy-authorization".split()
)
# Never copied from the client: framing and Host are ours, and the server has answered Expect.
_OURS = _HOP_BY_HOP | {b"host", b"content-length", b"expect"}
_FORWARDED = frozenset(
    b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-server"
    b" x-forwarded-scheme x-forwarded-ssl x-forwarded-by forwarded x-real-ip".split()
)
# An upstream that speaks WSGI cannot tell X_Forwarded_For from X-Forwarded-For.
_ALIASES = frozenset(name.replace(b"-", b"_") for name in _OURS | _FORWARDED if b"-" in name)
_DROP = _OURS | _FORWARDED | _ALIASES | {b"via"}
_DROP_OF_TRUSTED = _OURS | _ALIASES | {b"x-forwarded-for", b"via"}
_NOMINATES_NOTHING = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))
# No Connection header can take these away from the upstream.
_NOT_NOMINATED = _OURS | _FORWARDED | {b"via", b"x-request-id"}
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_NO_LENGTH = frozenset((204, 304))
# More hops through any canary-mw than a sane chain has: a loop between deployments that do not know each other.
MAX_HOPS = 10


class Hop(NamedTuple):
    """What a request passes through here.

    Attributes:
        via: name of this deployment in `via`; a request that carries it was here before.
        trusted: the peer's X-Forwarded-* headers are believed and continued, not replaced.
        new_id: gives an `x-request-id` for a request that has none.
        now: gives the seconds since the epoch.
        roll: draws a percent in [0, 100), for shadows.
        shadow_writes: other methods than GET, HEAD and OPTIONS are copied too.
    """

    via: bytes
    trusted: bool
    new_id: Callable[[], bytes]
    now: Callable[[], float] = lambda: 0.0
    roll: Callable[[], float] = lambda: 0.0
    shadow_writes: bool = False


def upstream_request(decision: Decision, head: RequestHead, hop: Hop) -> UpstreamRequest:
    """The request that a Mapping sends to its service.

    Raises:
        LoopDetected: it was forwarded by this deployment before.
        BadTarget: the rewrite would let the path climb out of where it points.
        ClientError: the framing of the body cannot be read.
    """
    mapping = decision.mapping
    known = head.known
    chain = _passed(head.headers, hop.via) if b"via" in known else b""
    via = b"%b1.1 %b %b" % (chain, hop.via, mapping.mark)
    host = request_host(mapping, known.get(b"host", b""))
    body = request_body(known)
    request = UpstreamRequest(
        mapping.service.text,
        head.method,
        rewritten(mapping, head.path) + head.query,
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


def request_headers(mapping: Mapping, head: RequestHead, known: dict[bytes, bytes], hop: Hop) -> Headers:
    """All headers of the request to the upstream but `host`, `via` and framing.

    Args:
        known: the request's headers as a dictionary, to ask what is there.
    """
    drop = _DROP_OF_TRUSTED if hop.trusted else _DROP
    # A dictionary keeps the last of several lines only: those before it may name more.
    if b"connection" in known:
        drop = drop | _nominated(head.headers)
    headers = [pair for pair in head.headers if pair[0] not in drop]
    client = (head.client or "unknown").encode("latin-1")
    if hop.trusted:
        before = [value for name, value in head.headers if name == b"x-forwarded-for"]
        headers.append((b"x-forwarded-for", b", ".join((*before, client))))
        if b"x-forwarded-proto" not in known:
            headers.append((b"x-forwarded-proto", head.scheme.encode()))
        if b"x-forwarded-host" not in known and b"host" in known:
            headers.append((b"x-forwarded-host", known[b"host"]))
    else:
        headers.append((b"x-forwarded-for", client))
        headers.append((b"x-forwarded-proto", head.scheme.encode()))
        if b"host" in known:
            headers.append((b"x-forwarded-host", known[b"host"]))
    if b"x-request-id" not in known:
        headers.append((b"x-request-id", hop.new_id()))
    elif not mapping.keep_request_id:
        headers = [pair for pair in headers if pair[0] != b"x-request-id"]
        headers.append((b"x-request-id", hop.new_id()))
    if mapping.remove_request_headers or mapping.add_request_headers:
        facts = Facts(head, None, hop.now())
        return changed(headers, mapping.remove_request_headers, mapping.add_request_headers, facts)
    return headers


def _nominated(headers: RawHeaders) -> frozenset[bytes]:
    """Names that Connection declares to be for this hop only."""
    options = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    return frozenset(option.strip(b" \t") for option in options) - _NOT_NOMINATED


def _passed(headers: RawHeaders, own: bytes) -> bytes:
    """The `via` chain so far, ready to be continued."""
    chain = b", ".join(value for name, value in headers if name == b"via")
    entries = [entry.split() for entry in chain.split(b",")]
    if any(own in entry for entry in entries):
        raise LoopDetected("the request was forwarded by this deployment before")
    if sum(any(word.startswith(b"canary-mw") for word in entry) for entry in entries) >= MAX_HOPS:
        raise LoopDetected(f"the request was forwarded {MAX_HOPS} times")
    return chain + b", "


def request_host(mapping: Mapping, host: bytes, *, shadow: bool = False) -> bytes:
    """The Host that the upstream sees: the client's, unless the Mapping rewrites it.

    Args:
        shadow: for the copy, which `auto_host_rewrite` does not reach.
    """
    if mapping.host_rewrite:
        return mapping.host_rewrite.encode()
    return mapping.service.origin.host.encode() if mapping.auto_host_rewrite and not shadow else host


def rewritten(mapping: Mapping, path: bytes) -> bytes:
    """The path that the upstream sees (Envoy `prefix_rewrite` and `regex_rewrite`).

    Raises:
        BadTarget: a dot segment came out of joining, `/svc../x` under `/svc` -> `/api/` for one.
    """
    if mapping.regex_rewrite is not None:
        new = mapping.regex_rewrite.apply(path)
    elif not mapping.rewrite:
        return path
    elif mapping.kind == "plain":
        new = mapping.rewrite.encode() + path[len(mapping.prefix_bytes) :]
    else:
        new = mapping.rewrite.encode()
    new = _rooted(new)
    if b"/." in new and not {b".", b".."}.isdisjoint(new.partition(b"?")[0].split(b"/")):
        raise BadTarget("the rewritten path would climb out of the rewrite")
    return new


def _rooted(target: bytes) -> bytes:
    """With a slash before it: else what a client put into the path could name a host, as in `http://...`."""
    return target if target[:1] == b"/" else b"/" + target


def location(redirect: Redirect, mapping: Mapping, head: RequestHead) -> bytes:
    """Where a redirect leads; the query is kept, unless `path_redirect` brings one."""
    query = head.query
    if redirect.path is not None:
        target = redirect.path.encode()
        query = b"" if b"?" in target else query
    elif redirect.prefix is not None:
        rest = head.path[len(mapping.prefix_bytes) :] if mapping.kind == "plain" else b""
        target = redirect.prefix.encode() + rest
    elif redirect.regex is not None:
        target = redirect.regex.apply(head.path)
    else:
        target = head.path
    return head.scheme.encode() + b"://" + redirect.host.encode() + _rooted(target) + query


def client_head(mapping: Mapping, response: ResponseHead, head: RequestHead, hop: Hop) -> ResponseHead:
    """The upstream's head as the client gets it."""
    drop = _HOP_BY_HOP
    known = dict(response.headers)
    # A dictionary keeps the last of several lines only: those before it may name more.
    if b"connection" in known and (
        known[b"connection"] not in _NOMINATES_NOTHING or len(known) < len(response.headers)
    ):
        drop = drop | _nominated(response.headers)
    if response.status in _NO_LENGTH:
        drop = drop | {b"content-length"}
    headers = [pair for pair in response.headers if pair[0] not in drop]
    if mapping.remove_response_headers or mapping.add_response_headers:
        facts = Facts(head, response, hop.now())
        headers = changed(headers, mapping.remove_response_headers, mapping.add_response_headers, facts)
    if mapping.cors is not None:
        headers = marked(mapping.cors, head, headers)
    return ResponseHead(response.status, headers)


def is_event_stream(headers: Headers) -> bool:
    """Whether an answer lasts as long as it wants: its deadline ends at its head."""
    return any(name == b"content-type" and value[:17].lower() == b"text/event-stream" for name, value in headers)


def changed(headers: Headers, remove: Iterable[bytes], add: Iterable[HeaderChange], facts: Facts) -> Headers:
    """Headers after a Mapping's removals and additions, in that order; an operator without a value adds nothing."""
    gone = frozenset(remove)
    headers = [pair for pair in headers if pair[0] not in gone]
    for name, value, append in add:
        text = value if isinstance(value, bytes) else value.render(facts)
        if not text and not isinstance(value, bytes):
            continue
        if not append:
            headers = [pair for pair in headers if pair[0] != name]
        headers.append((name, text))
    return headers


def _shadow_host(host: bytes) -> bytes:
    """`-shadow` behind the name; an address in brackets stays, since with anything behind it it would be no Host."""
    name, colon, port = host.partition(b":")
    return host if host[:1] == b"[" else b"%b-shadow%b%b" % (name, colon, port)


def shadow_request(
    decision: Decision, shadow: Mapping, head: RequestHead, hop: Hop, request: UpstreamRequest
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
    via = dict(request.headers)[b"via"].removesuffix(decision.mapping.mark) + shadow.mark
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
