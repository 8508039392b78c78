"""Targets of the fast path: what its recognisers take, the parsers read in the same way, and the same bytes go out."""

from dataclasses import replace
from functools import cache

import httptools

from canary_mw.config.document import Document
from canary_mw.config.parser import parse
from canary_mw.exceptions import ClientError
from canary_mw.forwarding.headers import response_head
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.requests import upstream_request
from canary_mw.http.framing import check_head
from canary_mw.http.lanes import Lane, lane_headers
from canary_mw.http.messages import RequestHead
from canary_mw.http.request_writer import encode_head
from canary_mw.http.response_parser import ResponseParser
from canary_mw.http.response_writer import encode_chunk, render_head
from canary_mw.routing.assignment import Assigned
from canary_mw.routing.decided import Decision
from canary_mw.server.fast_path.answers import encode_plain, headers_of, plain_response
from canary_mw.server.fast_path.plans import Plan, Sender
from canary_mw.server.fast_path.requests import plain_request

RULES = """\
name: plain
prefix: /svc/
service: a
---
name: kept
prefix: /
rewrite: ""
service: b
---
name: joined
prefix: /svc
rewrite: /join
host_rewrite: else.example
service: c
---
name: regex
prefix: /
regex_rewrite:
  pattern: '/([^/]*)'
  substitution: '/x\\1'
service: d
---
name: headers
prefix: /svc/
service: e
auto_host_rewrite: true
add_request_headers:
  x-given: one
  x-more: {value: two, append: false}
remove_request_headers: [cookie, x-request-id]
add_response_headers:
  x-given: three
  server: {value: ours, append: false}
remove_response_headers: [set-cookie]
"""
VIA = b"canary-mw-fuzz"
PEER = ("192.0.2.7", "http", "1.1", 4711, 8080)
# What each release tells of its decision.
LANES = {
    "list": Lane(b"r"),
    "tag": Lane(b"r", b"x-tag", is_tag=True),
    "baggage": Lane(b"r", baggage=True, hosts=lambda host, port: host == "a"),
    "both": Lane(b"r", b"x-tag", is_tag=True, baggage=True, hosts=lambda host, port: True),
}


@cache
def plans() -> tuple[Plan, ...]:
    """A plan for each way in which a Mapping changes what passes."""
    kind = "apiVersion: getambassador.io/v2\nkind: Mapping\n"
    found = parse([Document(kind + f"---\n{kind}".join(RULES.split("---\n")), "rules")], middleware=False)
    assert not [each for each in found.diagnostics if each.severity == "error"], found.diagnostics
    fresh = replace(found.mappings[0], name="fresh", keep_request_id=False)
    made = tuple(Plan(each, VIA) for each in (*found.mappings, fresh))
    assert all(each.simple for each in made)
    return made


class _Parsed:
    """What the parser of the server reads."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.heads = self.ends = 0
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.heads += 1

    def on_body(self, body: bytes) -> None:
        raise AssertionError("a body")

    def on_message_complete(self) -> None:
        self.ends += 1


def plain_requests(data: bytes) -> None:
    """What is taken for a request is one to the parser and to `check_head`, and is sent on as the long way sends it."""
    found = plain_request(data)
    if found is None:
        return
    parsed = _Parsed(data)
    parser = parsed.parser
    assert (parsed.heads, parsed.ends) == (1, 1), "not one request"
    assert parser.get_http_version() == "1.1"
    assert parser.should_keep_alive()
    assert not parser.should_upgrade()
    method = parser.get_method().decode("ascii")
    by_name = check_head(method, parsed.url, parsed.headers, "1.1")
    path, _, query = parsed.url.partition(b"?")
    head = RequestHead.from_wire(method, path, query, parsed.headers, *PEER, by_name)
    ours = RequestHead.from_fields(*found, PEER)
    for name in ("method", "path", "query", "headers", "client", "scheme", "http_version", "client_port", "mount"):
        assert getattr(ours, name) == getattr(head, name), name
    assert ours.headers_by_name == head.headers_by_name
    for plan in plans():
        for trusted in (False, True):
            same_bytes(plan, ours, head, trusted=trusted)


def same_bytes(plan: Plan, ours: RequestHead, head: RequestHead, *, trusted: bool) -> None:
    """Raise unless the fast path sends what the exchange would."""
    hop = HopContext(VIA, trusted, lambda: b"an-id")
    try:
        target = plan.target(ours.path) + ours.query
    except ClientError:
        # Whether it is refused is for the long way to say.
        return
    sender = Sender(PEER[0], PEER[1], trusted=trusted, person=None)
    for decision in decisions(plan, ours):
        written, request_id = plan.head(ours, target, sender, hop, decision)
        assert written == encode_head(upstream_request(decision, head, hop))
        assert request_id == next((value for name, value in lines_of(written) if name == b"x-request-id"), None)


def decisions(plan: Plan, request: RequestHead) -> tuple[Decision, ...]:
    """One without a release, and one by a release that tells of it, where the request holds no lanes."""
    plain = Decision(plan.mapping, "group", "stable", local=False)
    given = request.headers_by_name
    if b"baggage" in given or not lane_headers(LANES.values()).isdisjoint(given):
        return (plain,)
    # Each release has one lane.
    made = [(lane, Assigned(name, v, "sticky")) for name, lane in LANES.items() for v in ("gray", None)]
    # One of them, since all would take nine times as long.
    lane, assigned = made[(len(request.path) + len(given)) % len(made)]
    return plain, plain.with_release(assigned, lane)


def lines_of(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a head."""
    pairs = [line.partition(b": ") for line in head.split(b"\r\n")[1:-2]]
    return [(name, value) for name, _, value in pairs]


def plain_responses(data: bytes) -> None:
    """What is taken for a response is one to the parser, on a kept connection, and is relayed as by the long way."""
    found = plain_response(data)
    if found is None:
        return
    parser = ResponseParser("up:80", 102400)
    parser._start_response(head_only=False)
    assert parser._feed(data) is None
    assert parser.complete
    assert parser._keep_alive
    assert parser.head is not None
    status, found_lines, found_body, chunked = found
    body = b"".join(parser._chunks)
    assert found_body == body
    request, hop = RequestHead("GET", "/svc/a", {"host": "shop"}), HopContext(VIA, trusted=False, new_id=lambda: b"id")
    for plan in plans():
        relayed = response_head(plan.mapping, parser.head, request, hop)
        head = render_head(relayed.status, relayed.headers, "GET", "1.1", closes=False)
        assert not head.closes
        assert not head.empty
        sent = head.data + (encode_chunk(body, last=True) if head.chunked else body)
        lines = list(found_lines)
        if plan.changes_answer:
            headers = plan.answer_headers(status, headers_of(lines), request)
            lines[1:] = map(b": ".join, headers)
        assert encode_plain(lines, body, chunked=chunked) == sent
