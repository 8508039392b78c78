"""Headers of forwarded requests and responses, built from parsed headers.

Order of changes to a request: hop-by-hop headers are removed (RFC 9110, section 7.6.1), `x-forwarded-*` and
`x-request-id` are set, then the Mapping removes and adds headers. `host` and `via` come last: no rule can remove them.
"""

from collections.abc import Iterable

from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.headers import FORWARDED_HEADERS, HOP_BY_HOP_HEADERS, fold_underscores
from canary_mw.http.messages import NO_BODY_STATUSES, RawHeaders, RequestHead, ResponseHead
from canary_mw.rules.cors import with_cors_headers
from canary_mw.rules.header_templates import TemplateContext
from canary_mw.rules.mapping import HeaderChange, Mapping

Headers = list[tuple[bytes, bytes]]

# Never copied from the client: framing and Host are set anew, and the server answers Expect.
_NEVER_COPIED = HOP_BY_HOP_HEADERS | {b"host", b"content-length", b"expect"}
# Those of a request that are not forwarded as they are: those of any peer, and of a trusted one.
DROPPED = _NEVER_COPIED | FORWARDED_HEADERS | {b"via"}
DROPPED_TRUSTED = _NEVER_COPIED | {b"x-forwarded-for", b"via"}
_NOMINATES_NOTHING = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))
# Headers that a Connection header cannot remove.
_NOT_NOMINATED = _NEVER_COPIED | FORWARDED_HEADERS | {b"via", b"x-request-id"}
# Headers whose meaning is settled here, so that no other spelling of their names may pass.
_SETTLED = _NOT_NOMINATED | {b"x-shadow"}


def request_headers(mapping: Mapping, head: RequestHead, by_name: dict[bytes, bytes], hop: HopContext) -> Headers:
    """All headers of the request to the upstream except `host`, `via` and framing.

    Args:
        by_name: the same headers as a dictionary, for look-ups.
    """
    drop = DROPPED_TRUSTED if hop.trusted else DROPPED
    # The dictionary holds only the last Connection header; earlier ones may name more headers.
    if b"connection" in by_name:
        drop = drop | _nominated(head.headers)
    headers = [pair for pair in head.headers if pair[0] not in drop]
    # The names are searched as one text, so that a request without underscores costs one search.
    if b"_" in b"".join(by_name):
        headers = _without_aliases(headers, mapping)
    client = (head.client or "unknown").encode("latin-1")
    if hop.trusted:
        previous = [value for name, value in head.headers if name == b"x-forwarded-for"]
        headers.append((b"x-forwarded-for", b", ".join((*previous, client))))
        if b"x-forwarded-proto" not in by_name:
            headers.append((b"x-forwarded-proto", head.scheme.encode()))
        if b"x-forwarded-host" not in by_name and b"host" in by_name:
            headers.append((b"x-forwarded-host", by_name[b"host"]))
    else:
        headers.append((b"x-forwarded-for", client))
        headers.append((b"x-forwarded-proto", head.scheme.encode()))
        if b"host" in by_name:
            headers.append((b"x-forwarded-host", by_name[b"host"]))
    if b"proxy-authorization" in by_name and _is_authorized(head):
        # An auth service has seen it, as the proxy that it is for.
        headers += [pair for pair in head.headers if pair[0] == b"proxy-authorization"]
    if b"proxy-authenticate" in by_name and _is_authorized(head):
        # Only in a request because the service has put it there.
        headers += [pair for pair in head.headers if pair[0] == b"proxy-authenticate"]
    if b"x-request-id" not in by_name:
        headers.append((b"x-request-id", hop.new_id()))
    elif not mapping.keep_request_id:
        headers = [pair for pair in headers if pair[0] != b"x-request-id"]
        headers.append((b"x-request-id", hop.new_id()))
    if mapping.remove_request_headers or mapping.add_request_headers:
        context = TemplateContext(head, None, hop.now())
        return apply_header_changes(headers, mapping.remove_request_headers, mapping.add_request_headers, context)
    return headers


def _is_authorized(head: RequestHead) -> bool:
    """Whether an auth service has allowed a request."""
    asked = getattr(head, "asked", None)
    return asked is not None and asked.auth == "allowed"


def _without_aliases(headers: Headers, mapping: Mapping) -> Headers:
    """The headers without those that an upstream behind CGI or WSGI takes for one that is set or removed here.

    It reads `X_Forwarded-For` as `X-Forwarded-For`, and joins the two. A trusted peer may hand on one of its client.
    """
    replaced = {name for name, _, append in mapping.add_request_headers if not append}
    settled = _SETTLED.union(map(fold_underscores, replaced.union(mapping.remove_request_headers)))
    return [pair for pair in headers if b"_" not in pair[0] or fold_underscores(pair[0]) not in settled]


def _nominated(headers: RawHeaders) -> frozenset[bytes]:
    """Names of headers that Connection marks as hop-by-hop."""
    options = b",".join(value for name, value in headers if name == b"connection").lower().split(b",")
    return frozenset(option.strip(b" \t") for option in options) - _NOT_NOMINATED


def response_head(mapping: Mapping, response: ResponseHead, head: RequestHead, hop: HopContext) -> ResponseHead:
    """The upstream's response head as it is sent to the client."""
    drop = HOP_BY_HOP_HEADERS
    by_name = dict(response.headers)
    # The dictionary holds only the last Connection header; earlier ones may name more headers.
    if b"connection" in by_name and (
        by_name[b"connection"] not in _NOMINATES_NOTHING or len(by_name) < len(response.headers)
    ):
        drop = drop | _nominated(response.headers)
    if response.status in NO_BODY_STATUSES:
        drop = drop | {b"content-length"}
    headers = [pair for pair in response.headers if pair[0] not in drop]
    if response.status == 426 and b"upgrade" in by_name and head.http_version == "1.1":
        # Such a response has to name the protocols (RFC 9110, section 15.5.22), and Connection has to name the header.
        headers += [pair for pair in response.headers if pair[0] == b"upgrade"]
        headers.append((b"connection", b"upgrade"))
    if mapping.remove_response_headers or mapping.add_response_headers:
        context = TemplateContext(head, response, hop.now())
        headers = apply_header_changes(headers, mapping.remove_response_headers, mapping.add_response_headers, context)
    if mapping.cors is not None:
        headers = with_cors_headers(mapping.cors, head, headers)
    return ResponseHead(response.status, headers)


def is_event_stream(headers: Headers) -> bool:
    """Whether a response is an event stream; then the deadline of the exchange ends with the response head."""
    return any(name == b"content-type" and value[:17].lower() == b"text/event-stream" for name, value in headers)


def apply_header_changes(
    headers: Headers, remove: Iterable[bytes], add: Iterable[HeaderChange], context: TemplateContext
) -> Headers:
    """Headers after a Mapping's removals and additions, in that order; a template that renders empty adds nothing."""
    removed = frozenset(remove)
    headers = [pair for pair in headers if pair[0] not in removed]
    for name, value, append in add:
        text = value if isinstance(value, bytes) else value.render(context)
        if not text and not isinstance(value, bytes):
            continue
        if not append:
            headers = [pair for pair in headers if pair[0] != name]
        headers.append((name, text))
    return headers


def framed_headers(request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
    """The headers of a request, with `content-length` or `transfer-encoding` by its body."""
    if request.body is None:
        return request.headers
    length = request.body.length
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    return [*request.headers, framing]
