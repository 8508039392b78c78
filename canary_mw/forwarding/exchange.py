"""The conversation that a decision leads to: a generator, so that ASGI and WSGI drive the same one.

It yields what is to be sent, is sent the head of the answer or thrown an `UpstreamError`, and returns the outcome. What
is yielded a second time is a retry: the driver drops the answer that it has.
"""

from collections.abc import Callable, Generator

from canary_mw.exceptions import UpstreamError, UpstreamOverloaded
from canary_mw.forwarding.hash_policy import hash_key
from canary_mw.forwarding.headers import response_head
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.replies import text_reply
from canary_mw.forwarding.requests import upstream_request
from canary_mw.forwarding.retries import should_retry_error, should_retry_status
from canary_mw.forwarding.rewrite import redirect_location
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.routing.group import Decision
from canary_mw.rules.cors import preflight_headers
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.upstream import EndpointOptions

Exchange = Generator[UpstreamRequest, ResponseHead, Relay | Reply]
_REASONS = {502: "did not answer as HTTP", 503: "is not reachable", 504: "did not answer in time"}
# Envoy's base interval and cap between tries; its jitter needs no copy where each process has few retries under way.
_FIRST_DELAY = 0.025
_LONGEST_DELAY = 0.25


def _always() -> bool:
    return True


def exchange(
    decision: Decision, head: RequestHead, hop: HopContext, repeatable: Callable[[], bool] = _always
) -> Exchange:
    """Converse with the upstream of a decision.

    Args:
        repeatable: whether what was sent of the body can be sent again.

    Raises:
        ClientError: the request cannot be forwarded as it is; `LoopDetected` is one.
    """
    mapping = decision.mapping
    answer = direct_response(mapping, head)
    if answer is not None:
        return answer
    request = upstream_request(decision, head, hop)
    cookie = None if mapping.options.endpoints is None else set_hash_key(request, mapping.options.endpoints, head, hop)
    left = mapping.retry.times if mapping.retry else 0
    while True:
        try:
            response = yield request
        except UpstreamError as exc:
            if not left or not should_retry_error(mapping.retry, exc) or not repeatable():
                return upstream_error_reply(mapping, exc)
        else:
            if not left or not should_retry_status(mapping.retry, response.status) or not repeatable():
                relay = Relay(response_head(mapping, response, head, hop))
                if cookie is not None:
                    relay.head.headers.append((b"set-cookie", cookie))
                return relay
        left -= 1
        request.delay = min(max(request.delay * 2, _FIRST_DELAY), _LONGEST_DELAY)


def finish_with_response(conversation: Exchange, head: ResponseHead) -> Relay | Reply:
    """End a conversation that allows one try with the head of the answer."""
    try:
        conversation.send(head)
    except StopIteration as stop:
        outcome: Relay | Reply = stop.value
        return outcome
    raise RuntimeError("the upstream cannot be asked a second time")


def finish_with_error(conversation: Exchange, error: UpstreamError) -> Reply:
    """End a conversation that allows one try with an error."""
    try:
        conversation.throw(error)
    except StopIteration as stop:
        outcome: Reply = stop.value
        return outcome
    raise RuntimeError("the upstream cannot be asked a second time")


def set_hash_key(
    request: UpstreamRequest, balancing: EndpointOptions, head: RequestHead, hop: HopContext
) -> bytes | None:
    """Give a request what its endpoint is chosen by; returns the cookie that its client is to get, if any."""
    request.key, cookie = hash_key(balancing.load_balancer, head, hop.new_id)
    return cookie


def direct_response(mapping: Mapping, head: RequestHead) -> Reply | None:
    """What a Mapping answers without its upstream: a preflight, a redirect, a refused upgrade; None for the rest."""
    if mapping.cors is not None and head.method == "OPTIONS":
        allowed = preflight_headers(mapping.cors, head)
        if allowed is not None:
            return _named(mapping, Reply(200, headers=[*allowed, (b"content-length", b"0")]))
    if mapping.redirect is not None:
        target = redirect_location(mapping.redirect, mapping, head)
        reply = Reply(mapping.redirect.status, headers=[(b"location", target), (b"content-length", b"0")])
        return _named(mapping, reply)
    return _named(mapping, text_reply(403)) if is_refused_upgrade(mapping, head) else None


def _named(mapping: Mapping, reply: Reply) -> Reply:
    """With the `server` that the Mapping, or else the Module, gives to all answers; Envoy's own ones have it too."""
    named = [
        (b"server", v) for name, v, _ in mapping.add_response_headers if name == b"server" and isinstance(v, bytes)
    ]
    if named:
        reply.headers = [*(reply.headers or ()), named[-1]]
    return reply


def upstream_error_reply(mapping: Mapping, exc: UpstreamError) -> Reply:
    """What the client hears of an upstream that failed: its name and the kind of failure, no more."""
    reply = text_reply(exc.status_hint, f"upstream {mapping.service.origin.host} {_REASONS[exc.status_hint]}\n")
    if isinstance(exc, UpstreamOverloaded):
        reply = text_reply(503, f"upstream {mapping.service.origin.host} is overloaded\n")
        reply.headers = [*(reply.headers or ()), (b"x-envoy-overloaded", b"true")]
    return _named(mapping, reply)


def is_refused_upgrade(mapping: Mapping, head: RequestHead) -> bool:
    """Whether the request asks for an upgrade that its Mapping does not allow (Envoy: 403, but h2c is overlooked)."""
    if b"upgrade" not in head.headers_by_name:
        return False
    token = head.header(b"upgrade")
    if token is None or b"upgrade" not in (head.header(b"connection") or b"").lower():
        return False
    name = token.decode("latin-1").strip().lower()
    return name != "h2c" and name not in mapping.upgrades
