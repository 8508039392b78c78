"""Requests and answers as they leave us: built afresh from parsed parts, nothing copied because it was there.

Order of the changes to a request: hop-by-hop headers go (RFC 9110, section 7.6.1), what we assert about the client is
set, then the Mapping removes and adds, and last come `host` and `via`, which nothing can take away.
"""

from collections.abc import Iterable

from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.headers import HOP_BY_HOP_HEADERS
from canary_mw.http.messages import NO_BODY_STATUSES, RawHeaders, RequestHead, ResponseHead
from canary_mw.rules.cors import with_cors_headers
from canary_mw.rules.header_templates import TemplateContext
from canary_mw.rules.mapping import HeaderChange, Mapping

Headers = list[tuple[bytes, bytes]]

# Never copied from the client: framing and Host are ours, and the server has answered Expect.
_OURS = HOP_BY_HOP_HEADERS | {b"host", b"content-length", b"expect"}
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


def request_headers(mapping: Mapping, head: RequestHead, known: dict[bytes, bytes], hop: HopContext) -> Headers:
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
        facts = TemplateContext(head, None, hop.now())
        return apply_header_changes(headers, mapping.remove_request_headers, mapping.add_request_headers, facts)
    return headers


def _nominated(headers: RawHeaders) -> frozenset[bytes]:
    """Names that Connection declares to be for this hop only."""
    options = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    return frozenset(option.strip(b" \t") for option in options) - _NOT_NOMINATED


def response_head(mapping: Mapping, response: ResponseHead, head: RequestHead, hop: HopContext) -> ResponseHead:
    """The upstream's head as the client gets it."""
    drop = HOP_BY_HOP_HEADERS
    known = dict(response.headers)
    # A dictionary keeps the last of several lines only: those before it may name more.
    if b"connection" in known and (
        known[b"connection"] not in _NOMINATES_NOTHING or len(known) < len(response.headers)
    ):
        drop = drop | _nominated(response.headers)
    if response.status in NO_BODY_STATUSES:
        drop = drop | {b"content-length"}
    headers = [pair for pair in response.headers if pair[0] not in drop]
    if mapping.remove_response_headers or mapping.add_response_headers:
        facts = TemplateContext(head, response, hop.now())
        headers = apply_header_changes(headers, mapping.remove_response_headers, mapping.add_response_headers, facts)
    if mapping.cors is not None:
        headers = with_cors_headers(mapping.cors, head, headers)
    return ResponseHead(response.status, headers)


def is_event_stream(headers: Headers) -> bool:
    """Whether an answer lasts as long as it wants: its deadline ends at its head."""
    return any(name == b"content-type" and value[:17].lower() == b"text/event-stream" for name, value in headers)


def apply_header_changes(
    headers: Headers, remove: Iterable[bytes], add: Iterable[HeaderChange], facts: TemplateContext
) -> Headers:
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


def framed_headers(request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
    """The headers of a request with those of its framing."""
    if request.body is None:
        return request.headers
    length = request.body.length
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    return [*request.headers, framing]
