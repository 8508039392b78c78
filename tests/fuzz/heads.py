"""Targets that forward: a request head, the head that is sent, and a response head that is relayed.

The first byte says how (its four low bits), the second nothing. What follows is a head as a person writes it: a request
line, then `name: value` to a line. Lines end with LF and nothing is checked, so that a value may hold what no parser
would hand over.
"""

from contextlib import suppress
from functools import cache
from typing import NamedTuple

from websockets.datastructures import Headers as WebSocketHeaders

from canary_mw.client.aio.websocket import _Protocol as WebSocketProtocol
from canary_mw.config.document import Document
from canary_mw.config.parser import parse
from canary_mw.exceptions import ClientError
from canary_mw.forwarding.exchange import direct_response, exchange
from canary_mw.forwarding.headers import response_head
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.http.authority import check_host
from canary_mw.http.framing import check_head, well_formed
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.http.request_writer import encode_head
from canary_mw.middleware.asgi.scope import request_head, websocket_request
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.types import Scope

from . import strict

RULES = """\
---
apiVersion: getambassador.io/v3alpha1
kind: Module
name: ambassador
config: {strip_matching_host_port: true, merge_slashes: true, server_name: fuzz}
---
{apiVersion: getambassador.io/v2, kind: Mapping, name: plain, prefix: /, service: plain}
---
{apiVersion: getambassador.io/v2, kind: Mapping, name: joined, prefix: /join, rewrite: /api/, service: joined}
---
{apiVersion: getambassador.io/v2, kind: Mapping, name: bare, prefix: /bare/, rewrite: "", service: bare.ns:8080}
---
apiVersion: getambassador.io/v2
kind: Mapping
name: regex
prefix: /re/.*
prefix_regex: true
service: regex
regex_rewrite: {pattern: "/re/([^/]*)/?(.*)", substitution: "\\\\2//\\\\1"}
host_rewrite: rewritten.example
cors: {origins: "*", credentials: true, methods: "GET, PUT", max_age: "600"}
---
apiVersion: getambassador.io/v2
kind: Mapping
name: headers
prefix: /headers/
service: headers
auto_host_rewrite: true
use_websocket: true
add_request_headers:
  x-copy: "%REQ(x-given)%"
  x-both: {value: "a %REQ(:path)% %REQ(host?x-given):20% b", append: false}
  x-peer: "%DOWNSTREAM_REMOTE_ADDRESS% %PROTOCOL%"
  x-when: "%START_TIME%"
remove_request_headers: [x-secret, authorization]
add_response_headers:
  x-answer: "%RESP(x-given)% %REQ(x-given)%"
  x-code: {value: "%RESPONSE_CODE%", append: false}
remove_response_headers: x-powered-by
load_balancer: {policy: ring_hash, cookie: {name: sticky, ttl: 60s}}
---
{apiVersion: getambassador.io/v2, kind: Mapping, name: copy, prefix: /headers/, service: copy, shadow: true, weight: 50}
---
apiVersion: getambassador.io/v2
kind: Mapping
name: away
prefix: /away/
service: away.example
host_redirect: true
prefix_redirect: /there/
"""
HOP_BY_HOP = frozenset(
    b"keep-alive proxy-connection te trailer upgrade http2-settings proxy-authenticate proxy-authorization"
    b" connection".split()
)
HOPS = [
    HopContext(b"canary-mw-fuzz", trusted, lambda: b"new-id", lambda: 1.7e9, lambda: 0.0, shadow_writes=True)
    for trusted in (False, True)
]
_CLIENTS = (("192.0.2.7", 4711), None, ("fe80::1%eth0", 1), ("", 0))


class Given(NamedTuple):
    """A head as it was written, unchecked."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]


@cache
def rules() -> RouteTable:
    """A table with a Mapping for every kind of change to a request."""
    read = parse([Document(RULES, "rules.yaml")])
    assert not [found for found in read.diagnostics if found.severity == "error"], read.diagnostics
    return RouteTable.build(read.mappings, settings=read.shared.settings)


def given_head(data: bytes) -> Given:
    """A head from the text of one; what is missing is filled in."""
    first, *lines = data.split(b"\n")
    parts = [*first.split(b" "), b"", b""]
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    return Given(parts[0].decode("latin-1"), parts[1], parts[2].decode("latin-1") or "1.1", headers)


def scope_of(given: Given, flags: int) -> Scope:
    """The scope that a server would make of it."""
    raw_path, _, query = given.target.partition(b"?")
    return {
        "type": "http",
        "method": given.method,
        "path": raw_path.decode("latin-1"),
        "raw_path": raw_path,
        "query_string": query,
        "headers": given.headers,
        "client": _CLIENTS[flags >> 2],
        "server": ("127.0.0.1", 8080),
        "scheme": "https" if flags & 2 else "http",
        "http_version": given.version,
    }


def forwarding(data: bytes) -> None:
    """The head of any request, through all of the core.

    It is refused by a `ClientError`, or what leaves is exactly one request with one Host, one framing, nothing that was
    for one hop only, and no byte that ends a line early.
    """
    flags, given = data[0] & 15 if data else 0, given_head(data[2:])
    try:
        head, decision = _decided(scope_of(given, flags), given)
    except ClientError:
        return
    hop = HOPS[flags & 1]
    for roll in (0.0, 60.0):
        decision = decide(rules(), head, roll)
        if decision is None:
            assert head.path == b"*", "the rules leave out no path"
            return
        _run_exchange(decision, head, hop)


def _decided(scope: Scope, given: Given) -> tuple[RequestHead, Decision | None]:
    """As `CanaryMiddleware` does it."""
    head = rules().admit(request_head(scope))
    check_head(scope["method"], scope.get("raw_path") or b"/", given.headers, scope["http_version"])
    check_admitted(given, scope)
    return head, decide(rules(), head, 0.0)


def check_admitted(given: Given, scope: Scope) -> None:
    """Raise unless a head that was let in is one that a strict parser reads, and as the same."""
    version = b"1.0" if given.version == "1.0" else b"1.1"
    line = b"%b %b HTTP/%b" % (scope.get("method", "GET").encode(), scope["raw_path"] or b"/", version)
    raw = b"\r\n".join([line, *(b"%b: %b" % pair for pair in given.headers), b"", b""])
    with suppress(strict.Incomplete):
        assert strict.request(raw).headers == tuple(given.headers)


def _run_exchange(decision: Decision, head: RequestHead, hop: HopContext) -> None:
    running = exchange(decision, head, hop)
    try:
        request = next(running)
    except StopIteration as stop:
        check_reply(stop.value)
        return
    except ClientError:
        return
    check_leaving(request, head)
    if request.shadow is not None:
        check_leaving(request.shadow, head)
    outcome: Relay | Reply | None = None
    try:
        running.send(ResponseHead(200, [(b"x-given", b"1"), (b"connection", b"x-gone"), (b"x-gone", b"2")]))
    except StopIteration as stop:
        outcome = stop.value
    assert isinstance(outcome, Relay)
    check_answer(outcome.head)


def check_leaving(request: UpstreamRequest, head: RequestHead) -> None:
    """Raise unless what goes out is one clean request that says what the head said."""
    raw = encode_head(request)
    body = b"" if request.body is None or not request.body.length else b"b" * min(request.body.length, 64)
    closing = b"0\r\n\r\n" if request.body is not None and request.body.length is None else body
    try:
        message = strict.request(raw + closing)
    except strict.Incomplete:
        assert request.body is not None
        assert (request.body.length or 0) > 64
        return
    assert message.end == len(raw + closing)
    assert message.line == (head.method.encode(), request.target, b"1.1")
    assert request.target.startswith(b"/") or (request.target, head.method) == (b"*", "OPTIONS")
    hosts = message.values(b"host")
    assert len(hosts) == 1
    if hosts[0]:
        check_host(hosts[0])
    names = [name for name, _ in message.headers]
    assert (HOP_BY_HOP | {b"expect"}).isdisjoint(names)
    assert names.count(b"via") == 1
    assert names.count(b"x-forwarded-for") == 1
    sized = [name for name in names if name in (b"content-length", b"transfer-encoding")]
    assert len(sized) == (request.body is not None)


def check_reply(reply: Reply) -> None:
    """Raise unless an answer of our own can be written."""
    headers = reply.headers or []
    assert well_formed(*zip(*headers, strict=True)) if headers else True
    assert all(value == b"%d" % len(reply.body) for name, value in headers if name == b"content-length")


def check_answer(head: ResponseHead) -> None:
    """Raise unless the head of an answer can be written, and holds nothing that was for one hop only."""
    assert well_formed(*zip(*head.headers, strict=True)) if head.headers else True
    assert (HOP_BY_HOP | {b"transfer-encoding"}).isdisjoint(name for name, _ in head.headers)


def answer_heads(data: bytes) -> None:
    """The head of any clean answer, as relayed to the client: nothing was for one hop only, no line ends early."""
    flags, given = data[0] & 15 if data else 0, given_head(data[2:])
    status = 100 + int.from_bytes(given.method.encode("latin-1")[:2], "big") % 500
    if given.headers and not well_formed(*zip(*given.headers, strict=True)):
        return
    headers = [pair for pair in given.headers if pair[0]]
    request = RequestHead("GET", "/", {"x-given": "g", "origin": "http://a.example"})
    for mapping in rules().mappings:
        head = response_head(mapping, ResponseHead(status, list(headers)), request, HOPS[flags & 1])
        assert head.status == status
        check_answer(head)
        nominated = {
            option.strip().lower() for name, value in headers if name == b"connection" for option in value.split(b",")
        }
        own = {change.name for change in mapping.add_response_headers} | {b"content-length"}
        end_to_end = {name for name, _ in head.headers} - own
        assert not {name for name in nominated & end_to_end if name.startswith(b"x-private")}


def websockets(data: bytes) -> None:
    """The request for a websocket, any scope of it: what asks the upstream is one request for one upgrade."""
    flags, given = data[0] & 15 if data else 0, given_head(data[2:])
    scope: Scope = {**scope_of(given, flags), "type": "websocket", "scheme": "wss" if flags & 2 else "ws"}
    del scope["method"], scope["http_version"]
    try:
        head, decision = _decided(websocket_request(scope), given)
        if decision is None or direct_response(decision, head) is not None:
            return
        request = next(exchange(decision, head, HOPS[flags & 1]))
    except ClientError:
        return
    encode_head(request)
    asking = WebSocketProtocol(request, ["chat"] if flags & 4 else []).connect()
    assert isinstance(asking.headers, WebSocketHeaders)
    raw = asking.serialize()
    message = strict.request(raw)
    assert message.end == len(raw)
    assert message.line[:2] == (b"GET", request.target)
    for once in (b"host", b"upgrade", b"connection", b"sec-websocket-key", b"sec-websocket-version"):
        assert len(message.values(once)) == 1, once
    assert len(message.values(b"sec-websocket-protocol")) == bool(flags & 4)
