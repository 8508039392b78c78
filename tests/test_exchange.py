import pytest
from rules import HOP, decision_of, get, mapping

from canary_mw.exceptions import (
    ClientDisconnected,
    LoopDetected,
    UpstreamConnectError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from canary_mw.exchange import exchange, plain_reply
from canary_mw.mapping import HeaderChange, Mapping, Redirect
from canary_mw.messages import Relay, Reply, RequestHead, ResponseHead, UpstreamRequest


def converse(
    rule: Mapping, head: RequestHead, answer: ResponseHead | UpstreamError
) -> tuple[list[UpstreamRequest], Relay | Reply]:
    """Drive a conversation as the shells do: what was sent, and the outcome."""
    conversation = exchange(decision_of(rule), head, HOP)
    asked = []
    try:
        request = next(conversation)
        while True:
            asked.append(request)
            request = conversation.throw(answer) if isinstance(answer, UpstreamError) else conversation.send(answer)
    except StopIteration as stop:
        outcome: Relay | Reply = stop.value
        return asked, outcome


def test_the_upstreams_answer_is_relayed() -> None:
    rule = mapping(add_response_headers=(HeaderChange(b"x-a", b"1"),))
    asked, outcome = converse(rule, get("/svc/b"), ResponseHead(418, [(b"x-b", b"2"), (b"connection", b"close")]))
    assert [request.target for request in asked] == [b"/b"]
    assert outcome == Relay(ResponseHead(418, [(b"x-b", b"2"), (b"x-a", b"1")]))


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UpstreamConnectError("10.0.0.1 refused"), 503, b"upstream shop is not reachable\n"),
        (UpstreamTimeout("10.0.0.1 late"), 504, b"upstream shop did not answer in time\n"),
        (UpstreamProtocolError("10.0.0.1 garbage"), 502, b"upstream shop did not answer as HTTP\n"),
    ],
)
def test_a_failing_upstream_is_answered_with_its_name_and_nothing_from_inside(
    error: UpstreamError, status: int, text: bytes
) -> None:
    asked, outcome = converse(mapping(service="https://shop:8080"), get(), error)
    assert len(asked) == 1
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.body) == (status, text)
    headers = dict(outcome.headers or ())
    assert headers[b"content-type"].startswith(b"text/plain")
    assert headers[b"content-length"] == b"%d" % len(text)


def test_a_redirect_asks_no_upstream() -> None:
    rule = mapping(redirect=Redirect(host="new.com", status=308))
    asked, outcome = converse(rule, get("/svc/a"), ResponseHead(200, []))
    assert asked == []
    assert outcome == Reply(308, headers=[(b"location", b"http://new.com/svc/a"), (b"content-length", b"0")])


@pytest.mark.parametrize(
    ("headers", "upgrades", "refused"),
    [
        ({"connection": "Upgrade", "upgrade": "websocket"}, (), True),
        ({"connection": "keep-alive, Upgrade", "upgrade": "h2c"}, ("websocket",), True),
        ({"connection": "Upgrade", "upgrade": "WebSocket"}, ("websocket",), False),
        ({"upgrade": "websocket"}, (), False),
        ({"connection": "close", "upgrade": "websocket"}, (), False),
        ({"connection": "upgrade"}, (), False),
    ],
)
def test_an_upgrade_that_the_mapping_does_not_allow_is_refused(
    headers: dict[str, str], upgrades: tuple[str, ...], refused: bool
) -> None:
    asked, outcome = converse(mapping(upgrades=upgrades), get(headers=headers), ResponseHead(200, []))
    assert (isinstance(outcome, Reply) and outcome.status == 403) is refused
    assert len(asked) == (not refused)


def test_a_loop_is_raised_before_anything_is_sent() -> None:
    conversation = exchange(decision_of(mapping()), get(headers={"via": "1.1 canary-mw-test"}), HOP)
    with pytest.raises(LoopDetected):
        next(conversation)


def test_what_is_no_upstreams_fault_passes_through() -> None:
    conversation = exchange(decision_of(mapping()), get(), HOP)
    next(conversation)
    with pytest.raises(ClientDisconnected):
        conversation.throw(ClientDisconnected())


def test_a_short_reply_may_be_empty() -> None:
    reply = plain_reply(403)
    assert (reply.status, reply.body, dict(reply.headers or ())[b"content-length"]) == (403, b"", b"0")
