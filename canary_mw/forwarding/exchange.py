"""The exchange with an upstream that a decision leads to: a generator without I/O, driven from ASGI, WSGI and threads.

It yields the request to send. The driver sends the response head into it, or throws an `UpstreamError`. It returns the
outcome. When it yields again, that is a retry, and the driver discards the response that it has.
"""

from collections.abc import Callable, Generator
from functools import partial

from canary_mw.exceptions import UpstreamError, UpstreamOverloaded
from canary_mw.forwarding.fallback import Failure, SafetyNet, failure_of_error, failure_of_status, with_fallback_header
from canary_mw.forwarding.hash_policy import hash_key
from canary_mw.forwarding.headers import response_head
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.replies import text_reply
from canary_mw.forwarding.requests import upstream_request
from canary_mw.forwarding.retries import should_retry_error, should_retry_status
from canary_mw.forwarding.rewrite import redirect_location
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.routing.decided import Decision
from canary_mw.rules.cors import preflight_headers
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.upstream import EndpointOptions

Exchange = Generator[UpstreamRequest, ResponseHead, Relay | Reply]
# Whether a request may be sent again, to the service of a Mapping.
CanReplay = Callable[[Mapping], bool]
_REASONS = {502: "did not answer as HTTP", 503: "is not reachable", 504: "did not answer in time"}
# Envoy's base and maximum interval between retries, in seconds. Its jitter is left out: one process has few retries in
# flight.
_BASE_INTERVAL = 0.025
_MAX_INTERVAL = 0.25


def _always() -> bool:
    return True


def _may_replay(mapping: Mapping) -> bool:
    return True


def exchange(
    decision: Decision, head: RequestHead, hop: HopContext, can_replay: Callable[[], bool] = _always
) -> Exchange:
    """Run the exchange with the upstream of a decision, with retries by the Mapping's `retry_policy`.

    Args:
        can_replay: whether the part of the request body that was sent can be sent again.

    Raises:
        ClientError: the request cannot be forwarded; `LoopDetected` is one.
    """
    mapping = decision.mapping
    reply = direct_response(decision, head)
    if reply is not None:
        return reply
    request = head.forwarded = upstream_request(decision, head, hop)
    trace = None if head.trace is None else head.trace.tries(mapping.namespace)
    request.trace = trace
    cookie = None if mapping.options.endpoints is None else set_hash_key(request, mapping.options.endpoints, head, hop)
    retries_left = mapping.retry.num_retries if mapping.retry else 0
    while True:
        try:
            response = yield request
        except UpstreamError as exc:
            if trace is not None:
                trace.failed(exc)
            if not retries_left or not should_retry_error(mapping.retry, exc) or not can_replay():
                head.failed = exc.reason, exc.sent
                return upstream_error_reply(mapping, exc)
        else:
            if trace is not None:
                trace.answered(response.status)
            if not retries_left or not should_retry_status(mapping.retry, response.status) or not can_replay():
                relay = Relay(response_head(mapping, response, head, hop))
                if cookie is not None:
                    relay.head.headers.append((b"set-cookie", cookie))
                return relay
        retries_left -= 1
        request.delay = min(max(request.delay * 2, _BASE_INTERVAL), _MAX_INTERVAL)


def exchange_with_gray(
    decision: Decision, head: RequestHead, hop: HopContext, net: SafetyNet, can_replay: CanReplay = _may_replay
) -> Exchange:
    """Run the exchange with a gray variant. Where it fails and `net.stable` is set, stable has to answer.

    Retries of gray come first. The response of gray is then closed like one that is retried: its outcome is a reply
    that nobody gets.

    Args:
        can_replay: as in `exchange`, for retries by the `retry_policy` of a Mapping.

    Raises:
        ClientError: see `exchange`.
    """
    steps = exchange(decision, head, hop, partial(can_replay, decision.mapping))
    failure, outcome = yield from _run_gray(steps, net, decision.mapping)
    return text_reply(503) if failure is not None and net.ask_stable(failure) else outcome


def exchange_above_net(decision: Decision, head: RequestHead, hop: HopContext, net: SafetyNet) -> Exchange:
    """Run the exchange with a gray variant, and then that with stable, unless an app of this process answers for it."""
    outcome = yield from exchange_with_gray(decision, head, hop, net)
    if net.stable is None or net.app is not None:
        return outcome
    return (yield from exchange_with_stable(head, hop, net))


def exchange_with_stable(
    head: RequestHead, hop: HopContext, net: SafetyNet, can_replay: CanReplay = _may_replay
) -> Exchange:
    """Run the exchange with stable after gray has failed; the arguments are those of `exchange_with_gray`."""
    stable = net.stable_decision
    outcome = yield from exchange(stable, head, _same_id(hop, net.request), partial(can_replay, stable.mapping))
    net.finish_with(outcome)
    return with_fallback_header(outcome, net.kind or "") if hop.trusted else outcome


def _run_gray(
    steps: Exchange, net: SafetyNet, mapping: Mapping
) -> Generator[UpstreamRequest, ResponseHead, tuple[Failure | None, Relay | Reply]]:
    """Run the exchange with gray to its end; returns how it failed, and the outcome."""
    failure: Failure | None = None
    sent = False
    try:
        request = next(steps)
        net.begin(request, mapping)
        while True:
            try:
                response = yield request
            except UpstreamError as exc:
                failure = failure_of_error(net.settings, exc, sent_before=sent)
                sent = failure.sent
                request = steps.throw(exc)
            else:
                failure, sent = failure_of_status(net.settings, response.status), True
                request = steps.send(response)
    except StopIteration as stop:
        return failure, stop.value


def _same_id(hop: HopContext, request: UpstreamRequest | None) -> HopContext:
    """The hop context for a second request with the `x-request-id` of the first one."""
    request_id = dict(request.headers).get(b"x-request-id") if request is not None else None
    return hop if request_id is None else hop._replace(new_id=lambda: request_id)


def finish_with_response(exchange: Exchange, head: ResponseHead) -> Relay | Reply:
    """End an exchange that allows a single attempt, with the head of the response."""
    try:
        exchange.send(head)
    except StopIteration as stop:
        outcome: Relay | Reply = stop.value
        return outcome
    raise RuntimeError("this exchange cannot be retried")


def finish_with_error(exchange: Exchange, error: UpstreamError) -> Reply:
    """End an exchange that allows a single attempt, with an error."""
    try:
        exchange.throw(error)
    except StopIteration as stop:
        outcome: Reply = stop.value
        return outcome
    raise RuntimeError("this exchange cannot be retried")


def set_hash_key(
    request: UpstreamRequest, endpoints: EndpointOptions, head: RequestHead, hop: HopContext
) -> bytes | None:
    """Set the key that chooses the endpoint of a request; return the Set-Cookie value for the client, if any."""
    request.hash_key, cookie = hash_key(endpoints.load_balancer, head, hop.new_id)
    return cookie


def direct_response(decision: Decision, head: RequestHead) -> Reply | None:
    """The reply of a Mapping without its upstream (CORS preflight, redirect, refused upgrade), or None."""
    mapping = decision.mapping
    if mapping.cors is not None and head.method == "OPTIONS":
        allowed = preflight_headers(mapping.cors, head)
        if allowed is not None:
            return _with_server_header(mapping, Reply(200, headers=[*allowed, (b"content-length", b"0")]))
    if mapping.redirect is not None:
        target = redirect_location(mapping.redirect, mapping, head)
        reply = Reply(mapping.redirect.status, headers=[(b"location", target), (b"content-length", b"0")])
        return _with_server_header(mapping, reply)
    return _with_server_header(mapping, text_reply(403)) if is_refused_upgrade(decision, head) else None


def _with_server_header(mapping: Mapping, reply: Reply) -> Reply:
    """A reply with the `server` header that the Mapping, or else the Module, adds to all responses, as Envoy does."""
    values = [
        value for name, value, _ in mapping.add_response_headers if name == b"server" and isinstance(value, bytes)
    ]
    if values:
        reply.headers = [*(reply.headers or ()), (b"server", values[-1])]
    return reply


def upstream_error_reply(mapping: Mapping, exc: UpstreamError) -> Reply:
    """The reply to the client for a failed upstream; it holds the upstream's host and the kind of failure, no more."""
    reply = text_reply(exc.status_hint, f"upstream {mapping.service.origin.host} {_REASONS[exc.status_hint]}\n")
    if isinstance(exc, UpstreamOverloaded):
        reply = text_reply(503, f"upstream {mapping.service.origin.host} is overloaded\n")
        reply.headers = [*(reply.headers or ()), (b"x-envoy-overloaded", b"true")]
    return _with_server_header(mapping, reply)


def is_refused_upgrade(decision: Decision, head: RequestHead) -> bool:
    """Whether the request asks for an upgrade that its Mapping does not allow (Envoy answers 403, but ignores h2c).

    An `Upgrade` of HTTP/1.0 is ignored (RFC 9110, section 7.8).
    """
    if b"upgrade" not in head.headers_by_name or head.http_version == "1.0":
        return False
    token = head.header(b"upgrade")
    if token is None or b"upgrade" not in (head.header(b"connection") or b"").lower():
        return False
    name = token.decode("latin-1").strip().lower()
    return name != "h2c" and not decision.allows_upgrade(name)
