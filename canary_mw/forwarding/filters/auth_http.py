"""AuthService over HTTP: the request that it gets, and what its answer means (Envoy's ext_authz)."""

from collections.abc import Iterable

from canary_mw.forwarding.filters.calls import AskHttp, BodyStart, HttpAnswer
from canary_mw.forwarding.headers import request_headers
from canary_mw.forwarding.hop import HopContext, via_prefix
from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.http.framing import well_formed
from canary_mw.http.headers import HOP_BY_HOP_HEADERS, fold_underscores
from canary_mw.http.messages import NO_BODY_STATUSES, BodyFraming, RawHeaders, RequestHead
from canary_mw.routing.governed import APP
from canary_mw.rules.filters.auth import ANSWER_HEADERS, NEVER_SET, REQUEST_HEADERS, AuthPolicy
from canary_mw.rules.service import Service

Headers = list[tuple[bytes, bytes]]

PARTIAL_BODY = b"x-envoy-auth-partial-body"
_TO_REMOVE = b"x-envoy-auth-headers-to-remove"
FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"))
# Headers of the client that no service gets: of its connection, its body and its handshake, and what is set here.
_NEVER_SENT = (
    (HOP_BY_HOP_HEADERS - {b"proxy-authorization"})
    | FORWARDED
    | frozenset((b"host", b"content-length", b"expect", b"via", PARTIAL_BODY))
)
# Headers of a refusal that reach the client though nobody names them.
_KEPT_OF_DENIED = frozenset((b"content-type", b"retry-after", b"cache-control"))


def ask(policy: AuthPolicy, service: Service, head: RequestHead, hop: HopContext, body: BodyStart | None) -> AskHttp:
    """The call about a request.

    Args:
        body: the beginning of its body, None for no body.

    Raises:
        LoopDetected: this deployment has sent the request before.
    """
    headers = [(b"host", head.host or b""), *_headers(policy, service, head, hop)]
    data = body.data if body is not None else b""
    if data and body is not None:
        headers.append((PARTIAL_BODY, b"true" if body.more else b"false"))
    path = b"" if head.path == b"*" and policy.path_prefix else head.mount.sent + head.path
    request = UpstreamRequest(
        service.text,
        head.method,
        policy.path_prefix + path + head.query,
        headers,
        BodyFraming(len(data)),
        policy.timeout,
        policy.connect_timeout,
        # A check may be repeated, so a connection that was closed meanwhile is replaced.
        True,
        policy.options,
        mapping=f"AuthService {policy.name}",
    )
    return AskHttp(request, data or None)


def _headers(policy: AuthPolicy, service: Service, head: RequestHead, hop: HopContext) -> Headers:
    added = dict(policy.added_headers)
    if policy.linkerd:
        added[b"l5d-dst-override"] = service.text.encode()
    forwarded = request_headers(APP, head, head.headers_by_name, hop)
    pairs = [pair for pair in head.headers if _is_sent(policy, pair[0])]
    pairs += [pair for pair in forwarded if pair[0] in FORWARDED]
    chain = via_prefix(head.headers, hop.via) if head.has(b"via") else b""
    via = (b"via", b"%b1.1 %b" % (chain, hop.via))
    return [*(pair for pair in joined(pairs) if fold_underscores(pair[0]) not in added), *added.items(), via]


def _is_sent(policy: AuthPolicy, name: bytes) -> bool:
    plain = fold_underscores(name)
    if plain in _NEVER_SENT or name.startswith(b"sec-websocket-"):
        return False
    if name in REQUEST_HEADERS or name in policy.request_headers:
        return True
    # A service behind CGI or WSGI takes `user_agent` for `user-agent`.
    return policy.all_request_headers and (name == plain or plain not in REQUEST_HEADERS)


def joined(pairs: RawHeaders, by: bytes = b", ") -> Headers:
    """Repeated headers as one (RFC 9110, section 5.3); cookies by semicolons (RFC 6265, section 4.2.1)."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return [(name, (b"; " if name == b"cookie" else by).join(each)) for name, each in values.items()]


def granted(policy: AuthPolicy, head: RequestHead, answer: HttpAnswer) -> RequestHead:
    """The request that a service has allowed, with the headers of its answer in place of the client's."""
    # Our own client checks what it reads; transports of others may not.
    found = {n: value for n, value in answer.headers if _counts(policy, n) and well_formed((n,), (value,))}
    removed = _names_to_remove(answer)
    kept = [pair for pair in head.headers if _stays(policy, fold_underscores(pair[0]), found)]
    pairs = unnominated([*kept, *found.items()], found)
    headers = [pair for pair in pairs if fold_underscores(pair[0]) not in removed]
    return head if headers == list(head.headers) else head.replace(headers=headers)


def unnominated(headers: RawHeaders, names: Iterable[bytes]) -> RawHeaders:
    """Headers of which Connection names none that a service has set.

    A client names headers of its own. What a service sets has to arrive, or the upstream knows less than was granted.
    """
    known = frozenset(names)
    if not known or not any(name == b"connection" for name, _ in headers):
        return headers
    return [pair for pair in (_without_options(pair, known) for pair in headers) if pair is not None]


def _without_options(pair: tuple[bytes, bytes], names: frozenset[bytes]) -> tuple[bytes, bytes] | None:
    if pair[0] != b"connection":
        return pair
    options = pair[1].split(b",")
    kept = [option for option in options if option.strip(b" \t").lower() not in names]
    return pair if len(kept) == len(options) else (b"connection", b",".join(kept)) if kept else None


def _stays(policy: AuthPolicy, name: bytes, found: dict[bytes, bytes]) -> bool:
    return name not in found and not policy.is_granted(name)


def ungranted(policy: AuthPolicy, head: RequestHead) -> RequestHead:
    """The request without headers that only the service may give."""
    headers = [pair for pair in head.headers if not policy.is_granted(pair[0])]
    return head if len(headers) == len(head.headers) else head.replace(headers=headers)


def _counts(policy: AuthPolicy, name: bytes) -> bool:
    return (name in ANSWER_HEADERS or name in policy.granted_headers) and name not in NEVER_SET


def _names_to_remove(answer: HttpAnswer) -> frozenset[bytes]:
    text = b",".join(value for name, value in answer.headers if name == _TO_REMOVE).lower()
    return frozenset(fold_underscores(name.strip(b" \t")) for name in text.split(b",")) - NEVER_SET


def refusal(policy: AuthPolicy, head: RequestHead, answer: HttpAnswer) -> Reply:
    """The answer of a service that refuses, as the client gets it."""
    headers = [pair for pair in answer.headers if _counts(policy, pair[0]) or pair[0] in _KEPT_OF_DENIED]
    return refusal_reply(head, answer.status, headers, answer.body)


def refusal_reply(head: RequestHead, status: int, headers: Headers, body: bytes) -> Reply:
    """A refusal with these headers; its body is text unless they say otherwise."""
    body = b"" if status in NO_BODY_STATUSES else body
    if body and not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"text/plain"))
    if status not in NO_BODY_STATUSES and head.method != "HEAD":
        headers.append((b"content-length", b"%d" % len(body)))
    return Reply(status, body, headers)
