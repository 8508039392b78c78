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
from canary_mw.forwarding.exchange import direct_response, exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.replies import text_reply
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.rules.mapping import HeaderChange, Mapping, Redirect, Retry
from canary_mw.rules.upstream import UpstreamOptions


def run_exchange(
    rule: Mapping, head: RequestHead, result: ResponseHead | UpstreamError
) -> tuple[list[UpstreamRequest], Relay | Reply]:
    """Drive an exchange as the middlewares do; return the requests sent and the outcome."""
    running = exchange(decision_of(rule), head, HOP)
    sent = []
    try:
        request = next(running)
        while True:
            sent.append(request)
            request = running.throw(result) if isinstance(result, UpstreamError) else running.send(result)
    except StopIteration as stop:
        outcome: Relay | Reply = stop.value
        return sent, outcome


def test_the_upstreams_response_is_relayed() -> None:
    rule = mapping(add_response_headers=(HeaderChange(b"x-a", b"1"),))
    sent, outcome = run_exchange(rule, get("/svc/b"), ResponseHead(418, [(b"x-b", b"2"), (b"connection", b"close")]))
    assert [request.target for request in sent] == [b"/b"]
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
    sent, outcome = run_exchange(mapping(service="https://shop:8080"), get(), error)
    assert len(sent) == 1
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.body) == (status, text)
    headers = dict(outcome.headers or ())
    assert headers[b"content-type"].startswith(b"text/plain")
    assert headers[b"content-length"] == b"%d" % len(text)


def test_a_redirect_sends_no_request_to_an_upstream() -> None:
    rule = mapping(redirect=Redirect(host="new.com", status=308))
    sent, outcome = run_exchange(rule, get("/svc/a"), ResponseHead(200, []))
    assert sent == []
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
    sent, outcome = run_exchange(mapping(upgrades=upgrades), get(headers=headers), ResponseHead(200, []))
    assert (isinstance(outcome, Reply) and outcome.status == 403) is refused
    assert len(sent) == (not refused)


@pytest.mark.parametrize("protocol", ["websocket", "foo/2"])
def test_a_middleware_allows_every_upgrade_that_the_mapping_does_not_forbid(protocol: str) -> None:
    head = get(headers={"connection": "upgrade", "upgrade": protocol})
    rules = mapping("silent", "/svc/"), mapping("strict", "/strict/", upgrades=()), mapping("proxy", "/proxy/")
    silent, strict = (decision_of(rule, middleware=True) for rule in rules[:2])
    assert direct_response(silent, head) is None
    for decision in (strict, decision_of(rules[2])):
        reply = direct_response(decision, head)
        assert reply is not None
        assert reply.status == 403


Step = ResponseHead | UpstreamError


def status(code: int) -> ResponseHead:
    return ResponseHead(code, [(b"x-status", b"%d" % code)])


def refused() -> UpstreamError:
    return UpstreamConnectError("refused")


def reset() -> UpstreamError:
    return UpstreamConnectError("reset", sent=True)


def attempt_timed_out() -> UpstreamError:
    error = UpstreamTimeout("one attempt", sent=True)
    error.deadline_exceeded = False
    return error


def exchange_timed_out() -> UpstreamError:
    return UpstreamTimeout("all attempts", sent=True)


def overloaded() -> UpstreamError:
    return UpstreamOverloaded("max_requests")


def retried(on: str | None, times: int, *steps: Step, can_replay: bool = True, method: str = "GET") -> tuple[int, int]:
    """(status for the client, number of attempts) when attempts end as in `steps`, the last one repeatedly."""
    rule = mapping(retry=None if on is None else Retry(on, times))
    running = exchange(decision_of(rule), RequestHead(method, "/svc/"), HOP, lambda: can_replay)
    attempts = 0
    try:
        next(running)
        while True:
            step = steps[min(attempts, len(steps) - 1)]
            attempts += 1
            if isinstance(step, UpstreamError):
                running.throw(step)
            else:
                running.send(step)
    except StopIteration as stop:
        outcome: Relay | Reply = stop.value
        return (outcome.head if isinstance(outcome, Relay) else outcome).status, attempts


@pytest.mark.parametrize(
    ("retry_on", "num_retries", "steps", "status_code", "attempts"),
    [
        # Recorded with Envoy: responses.
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
        # Recorded with Envoy: errors.
        (None, 0, [reset()], 503, 1),
        ("5xx", 1, [reset()], 503, 2),
        ("gateway-error", 2, [reset()], 503, 3),
        ("connect-failure", 1, [reset()], 503, 1),
        ("connect-failure", 2, [refused()], 503, 3),
        ("5xx", 2, [attempt_timed_out()], 504, 3),
        ("5xx", 5, [attempt_timed_out(), attempt_timed_out(), exchange_timed_out()], 504, 3),
        # Not recorded; by the same rules.
        (None, 0, [refused()], 503, 1),
        ("5xx", 2, [refused(), reset(), status(200)], 200, 3),
        ("5xx", 2, [refused(), status(500)], 500, 3),
        ("5xx", 3, [exchange_timed_out()], 504, 1),
        ("gateway-error", 1, [attempt_timed_out()], 504, 2),
        ("connect-failure", 1, [attempt_timed_out()], 504, 1),
        ("connect-failure", 3, [refused(), reset()], 503, 2),
        ("retriable-4xx", 1, [refused()], 503, 1),
        ("retriable-status-codes", 1, [reset()], 503, 1),
        ("refused-stream", 1, [reset()], 503, 1),
        ("5xx", 1, [UpstreamProtocolError("garbage", sent=True)], 502, 2),
        # Over a circuit breaker's limit: a retry would add to the overload.
        ("5xx", 3, [overloaded()], 503, 1),
        ("gateway-error", 3, [overloaded()], 503, 1),
        ("connect-failure", 3, [overloaded()], 503, 1),
        ("5xx", 3, [status(500), overloaded()], 503, 2),
    ],
)
def test_a_failed_attempt_is_retried_as_envoy_does(
    retry_on: str | None, num_retries: int, steps: list[Step], status_code: int, attempts: int
) -> None:
    assert retried(retry_on, num_retries, *steps) == (status_code, attempts)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_every_method_is_retried(method: str) -> None:
    assert retried("5xx", 1, status(503), status(200), method=method) == (200, 2)


@pytest.mark.parametrize("step", [status(503), reset(), refused()])
def test_a_request_that_cannot_be_replayed_is_not_retried(step: Step) -> None:
    assert retried("5xx", 3, step, can_replay=False) == (503, 1)


def test_can_replay_is_called_only_before_a_retry() -> None:
    calls: list[str] = []

    def can_replay() -> bool:
        calls.append("called")
        return True

    for rule, response in ((mapping(), status(503)), (mapping(retry=Retry("5xx")), status(200))):
        running = exchange(decision_of(rule), get(), HOP, can_replay)
        next(running)
        with pytest.raises(StopIteration):
            running.send(response)
    assert calls == []


def test_the_last_response_of_the_upstream_is_relayed() -> None:
    running = exchange(decision_of(mapping(retry=Retry("5xx"))), get(), HOP)
    next(running)
    running.send(ResponseHead(503, [(b"x-n", b"1")]))
    with pytest.raises(StopIteration) as ended:
        running.send(ResponseHead(500, [(b"x-n", b"2")]))
    assert ended.value.value == Relay(ResponseHead(500, [(b"x-n", b"2")]))


def test_the_interval_between_retries_doubles_up_to_a_maximum() -> None:
    running = exchange(decision_of(mapping(retry=Retry("5xx", 6))), get(), HOP)
    delays = [next(running).delay]
    delays += [running.send(status(500)).delay for _ in range(6)]
    assert delays == [0, 0.025, 0.05, 0.1, 0.2, 0.25, 0.25]


def test_each_attempt_sends_the_same_request() -> None:
    running = exchange(decision_of(mapping(retry=Retry("5xx", 2))), get("/svc/a?b", {"x-a": "1"}), HOP)
    first = next(running)
    sent = (first.target, list(first.headers), first.service)
    second = running.send(status(500))
    assert (second.target, second.headers, second.service) == sent


def test_the_reply_for_an_overloaded_upstream_has_its_header() -> None:
    sent, outcome = run_exchange(mapping(service="shop"), get(), overloaded())
    assert len(sent) == 1
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.body) == (503, b"upstream shop is overloaded\n")
    headers = dict(outcome.headers or ())
    assert headers[b"x-envoy-overloaded"] == b"true"
    assert headers[b"content-length"] == b"%d" % len(outcome.body)


def test_the_per_try_timeout_is_passed_with_the_timeout_of_the_exchange() -> None:
    rule = mapping(timeout_ms=2000, options=UpstreamOptions(per_try_timeout=0.2))
    request = next(exchange(decision_of(rule), get(), HOP))
    assert (request.timeout, request.options.per_try_timeout) == (2.0, 0.2)


def test_a_loop_is_raised_before_anything_is_sent() -> None:
    running = exchange(decision_of(mapping()), get(headers={"via": "1.1 canary-mw-test"}), HOP)
    with pytest.raises(LoopDetected):
        next(running)


def test_an_error_that_is_not_the_upstreams_is_raised() -> None:
    running = exchange(decision_of(mapping()), get(), HOP)
    next(running)
    with pytest.raises(ClientDisconnected):
        running.throw(ClientDisconnected())


def test_a_short_reply_may_be_empty() -> None:
    reply = text_reply(403)
    assert (reply.status, reply.body, dict(reply.headers or ())[b"content-length"]) == (403, b"", b"0")
