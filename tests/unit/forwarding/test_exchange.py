import pytest
from rules import HOP, decision_of, get, mapping

from canary_mw.exceptions import (
    ClientDisconnected,
    LoopDetected,
    UpstreamConnectError,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from canary_mw.forwarding.exchange import exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.replies import text_reply
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.rules.mapping import HeaderChange, Mapping, Redirect, Retry
from canary_mw.rules.upstream import UpstreamOptions


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
        ({"connection": "keep-alive, Upgrade", "upgrade": "foo/2"}, ("websocket",), True),
        ({"connection": "Upgrade, HTTP2-Settings", "upgrade": "H2C"}, (), False),
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


Step = ResponseHead | UpstreamError


def status(code: int) -> ResponseHead:
    return ResponseHead(code, [(b"x-status", b"%d" % code)])


def refused() -> UpstreamError:
    return UpstreamConnectError("refused")


def reset() -> UpstreamError:
    return UpstreamConnectError("reset", sent=True)


def try_timed_out() -> UpstreamError:
    error = UpstreamTimeout("one try", sent=True)
    error.whole = False
    return error


def whole_timed_out() -> UpstreamError:
    return UpstreamTimeout("all tries", sent=True)


def overloaded() -> UpstreamError:
    return UpstreamOverloaded("max_requests")


def retried(on: str | None, times: int, *steps: Step, repeatable: bool = True, method: str = "GET") -> tuple[int, int]:
    """(status for the client, number of tries) when tries go as in `steps`, the last one again and again."""
    rule = mapping(retry=None if on is None else Retry(on, times))
    conversation = exchange(decision_of(rule), RequestHead(method, "/svc/"), HOP, lambda: repeatable)
    tries = 0
    try:
        next(conversation)
        while True:
            step = steps[min(tries, len(steps) - 1)]
            tries += 1
            if isinstance(step, UpstreamError):
                conversation.throw(step)
            else:
                conversation.send(step)
    except StopIteration as stop:
        outcome: Relay | Reply = stop.value
        return (outcome.head if isinstance(outcome, Relay) else outcome).status, tries


@pytest.mark.parametrize(
    ("on", "times", "steps", "client", "tries"),
    [
        # Recorded with Envoy: answers.
        (None, 0, [status(503)], 503, 1),
        ("5xx", 1, [status(503)], 503, 2),
        ("5xx", 1, [status(500)], 500, 2),
        ("5xx", 3, [status(500)], 500, 4),
        ("5xx", 0, [status(500)], 500, 1),
        ("5xx", 3, [status(503), status(503), status(200)], 200, 3),
        ("gateway-error", 1, [status(500)], 500, 1),
        ("gateway-error", 1, [status(502)], 502, 2),
        ("gateway-error", 1, [status(504)], 504, 2),
        ("retriable-4xx", 1, [status(409)], 409, 2),
        ("retriable-4xx", 1, [status(404)], 404, 1),
        ("retriable-4xx", 1, [status(500)], 500, 1),
        ("retriable-status-codes", 1, [status(500)], 500, 1),
        ("refused-stream", 1, [status(500)], 500, 1),
        ("connect-failure", 1, [status(503)], 503, 1),
        ("5xx", 1, [status(404)], 404, 1),
        # Recorded with Envoy: failures.
        (None, 0, [reset()], 503, 1),
        ("5xx", 1, [reset()], 503, 2),
        ("gateway-error", 2, [reset()], 503, 3),
        ("connect-failure", 1, [reset()], 503, 1),
        ("connect-failure", 2, [refused()], 503, 3),
        ("5xx", 2, [try_timed_out()], 504, 3),
        ("5xx", 5, [try_timed_out(), try_timed_out(), whole_timed_out()], 504, 3),
        # By the same reasons.
        (None, 0, [refused()], 503, 1),
        ("5xx", 2, [refused(), reset(), status(200)], 200, 3),
        ("5xx", 2, [refused(), status(500)], 500, 3),
        ("5xx", 3, [whole_timed_out()], 504, 1),
        ("gateway-error", 1, [try_timed_out()], 504, 2),
        ("connect-failure", 1, [try_timed_out()], 504, 1),
        ("connect-failure", 3, [refused(), reset()], 503, 2),
        ("retriable-4xx", 1, [refused()], 503, 1),
        ("retriable-status-codes", 1, [reset()], 503, 1),
        ("refused-stream", 1, [reset()], 503, 1),
        ("5xx", 1, [UpstreamProtocolError("garbage", sent=True)], 502, 2),
        # Over a limit: another try would only add to what is too much.
        ("5xx", 3, [overloaded()], 503, 1),
        ("gateway-error", 3, [overloaded()], 503, 1),
        ("connect-failure", 3, [overloaded()], 503, 1),
        ("5xx", 3, [status(500), overloaded()], 503, 2),
    ],
)
def test_a_failed_try_is_repeated_as_envoy_does(
    on: str | None, times: int, steps: list[Step], client: int, tries: int
) -> None:
    assert retried(on, times, *steps) == (client, tries)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_every_method_is_tried_again(method: str) -> None:
    assert retried("5xx", 1, status(503), status(200), method=method) == (200, 2)


@pytest.mark.parametrize("step", [status(503), reset(), refused()])
def test_what_cannot_be_sent_again_is_not(step: Step) -> None:
    assert retried("5xx", 3, step, repeatable=False) == (503, 1)


def test_whether_it_can_be_sent_again_is_asked_only_where_it_matters() -> None:
    asked: list[str] = []

    def repeatable() -> bool:
        asked.append("asked")
        return True

    for rule, answer in ((mapping(), status(503)), (mapping(retry=Retry("5xx")), status(200))):
        conversation = exchange(decision_of(rule), get(), HOP, repeatable)
        next(conversation)
        with pytest.raises(StopIteration):
            conversation.send(answer)
    assert asked == []


def test_the_last_answer_of_the_upstream_is_passed_on() -> None:
    conversation = exchange(decision_of(mapping(retry=Retry("5xx"))), get(), HOP)
    next(conversation)
    conversation.send(ResponseHead(503, [(b"x-n", b"1")]))
    with pytest.raises(StopIteration) as ended:
        conversation.send(ResponseHead(500, [(b"x-n", b"2")]))
    assert ended.value.value == Relay(ResponseHead(500, [(b"x-n", b"2")]))


def test_tries_wait_longer_and_longer_up_to_a_cap() -> None:
    conversation = exchange(decision_of(mapping(retry=Retry("5xx", 6))), get(), HOP)
    delays = [next(conversation).delay]
    delays += [conversation.send(status(500)).delay for _ in range(6)]
    assert delays == [0, 0.025, 0.05, 0.1, 0.2, 0.25, 0.25]


def test_each_try_is_the_same_request() -> None:
    conversation = exchange(decision_of(mapping(retry=Retry("5xx", 2))), get("/svc/a?b", {"x-a": "1"}), HOP)
    first = next(conversation)
    sent = (first.target, list(first.headers), first.service)
    second = conversation.send(status(500))
    assert (second.target, second.headers, second.service) == sent


def test_an_overloaded_upstream_is_told_by_a_header() -> None:
    asked, outcome = converse(mapping(service="shop"), get(), overloaded())
    assert len(asked) == 1
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.body) == (503, b"upstream shop is overloaded\n")
    headers = dict(outcome.headers or ())
    assert headers[b"x-envoy-overloaded"] == b"true"
    assert headers[b"content-length"] == b"%d" % len(outcome.body)


def test_the_time_of_a_try_goes_along_with_the_time_of_all() -> None:
    rule = mapping(timeout_ms=2000, options=UpstreamOptions(try_timeout=0.2))
    request = next(exchange(decision_of(rule), get(), HOP))
    assert (request.timeout, request.options.try_timeout) == (2.0, 0.2)


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
    reply = text_reply(403)
    assert (reply.status, reply.body, dict(reply.headers or ())[b"content-length"]) == (403, b"", b"0")
