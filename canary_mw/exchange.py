"""The conversation that a decision leads to: a generator, so that ASGI and WSGI drive the same one.

It yields what is to be sent, is sent the head of the answer or thrown an `UpstreamError`, and returns the outcome. What
is yielded a second time is a retry: the driver drops the answer that it has.
"""

from collections.abc import Callable, Generator

from .balancers import Balancing, hash_key
from .cors import preflight_headers
from .exceptions import ClientError, UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from .forwarding import Hop, client_head, location, upstream_request
from .group import Decision
from .mapping import Mapping, Retry
from .messages import Relay, Reply, RequestHead, ResponseHead, UpstreamRequest

Conversation = Generator[UpstreamRequest, ResponseHead, Relay | Reply]

_PLAIN_TEXT = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
_REASONS = {502: "did not answer as HTTP", 503: "is not reachable", 504: "did not answer in time"}
_REFUSALS = {
    400: "the request is not one that can be forwarded\n",
    403: "the request is not allowed\n",
    411: "the length of the request body is not known, and this server tells no end of it\n",
    413: "the request body is too large\n",
    431: "the head of the request is too large\n",
    508: "the request came back to where it was: a loop\n",
}
_RETRIED = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset((502, 503, 504)),
    "retriable-4xx": frozenset((409,)),
}
# Envoy's base interval and cap between tries; its jitter needs no copy where each process has few retries under way.
_FIRST_DELAY = 0.025
_LONGEST_DELAY = 0.25


def _always() -> bool:
    return True


def exchange(decision: Decision, head: RequestHead, hop: Hop, repeatable: Callable[[], bool] = _always) -> Conversation:
    """Converse with the upstream of a decision.

    Args:
        repeatable: whether what was sent of the body can be sent again.

    Raises:
        ClientError: the request cannot be forwarded as it is; `LoopDetected` is one.
    """
    mapping = decision.mapping
    answer = own_answer(mapping, head)
    if answer is not None:
        return answer
    request = upstream_request(decision, head, hop)
    cookie = None if mapping.options.balancing is None else keyed(request, mapping.options.balancing, head, hop)
    left = mapping.retry.times if mapping.retry else 0
    while True:
        try:
            response = yield request
        except UpstreamError as exc:
            if not left or not fails_again(mapping.retry, exc) or not repeatable():
                return failure(mapping, exc)
        else:
            if not left or not is_retried(mapping.retry, response.status) or not repeatable():
                relay = Relay(client_head(mapping, response, head, hop))
                if cookie is not None:
                    relay.head.headers.append((b"set-cookie", cookie))
                return relay
        left -= 1
        request.delay = min(max(request.delay * 2, _FIRST_DELAY), _LONGEST_DELAY)


def answered(conversation: Conversation, head: ResponseHead) -> Relay | Reply:
    """End a conversation that allows one try with the head of the answer."""
    try:
        conversation.send(head)
    except StopIteration as stop:
        outcome: Relay | Reply = stop.value
        return outcome
    raise RuntimeError("the upstream cannot be asked a second time")


def failed(conversation: Conversation, error: UpstreamError) -> Reply:
    """End a conversation that allows one try with an error."""
    try:
        conversation.throw(error)
    except StopIteration as stop:
        outcome: Reply = stop.value
        return outcome
    raise RuntimeError("the upstream cannot be asked a second time")


def keyed(request: UpstreamRequest, balancing: Balancing, head: RequestHead, hop: Hop) -> bytes | None:
    """Give a request what its endpoint is chosen by; returns the cookie that its client is to get, if any."""
    request.key, cookie = hash_key(balancing.load_balancer, head, hop.new_id)
    return cookie


def own_answer(mapping: Mapping, head: RequestHead) -> Reply | None:
    """What a Mapping answers without its upstream: a preflight, a redirect, a refused upgrade; None for the rest."""
    if mapping.cors is not None and head.method == "OPTIONS":
        allowed = preflight_headers(mapping.cors, head)
        if allowed is not None:
            return _named(mapping, Reply(200, headers=[*allowed, (b"content-length", b"0")]))
    if mapping.redirect is not None:
        target = location(mapping.redirect, mapping, head)
        reply = Reply(mapping.redirect.status, headers=[(b"location", target), (b"content-length", b"0")])
        return _named(mapping, reply)
    return _named(mapping, plain_reply(403)) if refused_upgrade(mapping, head) else None


def _named(mapping: Mapping, reply: Reply) -> Reply:
    """With the `server` that the Mapping, or else the Module, gives to all answers; Envoy's own ones have it too."""
    named = [
        (b"server", v) for name, v, _ in mapping.add_response_headers if name == b"server" and isinstance(v, bytes)
    ]
    if named:
        reply.headers = [*(reply.headers or ()), named[-1]]
    return reply


def is_retried(policy: Retry | None, status: int) -> bool:
    """Whether an answer is tried again; `refused-stream` and `retriable-status-codes` never fire on HTTP/1.1."""
    return policy is not None and status in _RETRIED.get(policy.on, ())


def fails_again(policy: Retry | None, exc: UpstreamError) -> bool:
    """Whether a failure is tried again, as Envoy does: 5xx and gateway-error cover resets and the timeout of a try."""
    if policy is None or isinstance(exc, UpstreamOverloaded):
        return False
    if isinstance(exc, UpstreamTimeout) and exc.whole:
        return False
    if policy.on == "connect-failure":
        return isinstance(exc, UpstreamConnectError) and not exc.sent
    return policy.on in ("5xx", "gateway-error")


def failure(mapping: Mapping, exc: UpstreamError) -> Reply:
    """What the client hears of an upstream that failed: its name and the kind of failure, no more."""
    reply = plain_reply(exc.status_hint, f"upstream {mapping.service.origin.host} {_REASONS[exc.status_hint]}\n")
    if isinstance(exc, UpstreamOverloaded):
        reply = plain_reply(503, f"upstream {mapping.service.origin.host} is overloaded\n")
        reply.headers = [*(reply.headers or ()), (b"x-envoy-overloaded", b"true")]
    return _named(mapping, reply)


def refused_upgrade(mapping: Mapping, head: RequestHead) -> bool:
    """Whether the request asks for an upgrade that its Mapping does not allow (Envoy: 403, but h2c is overlooked)."""
    if b"upgrade" not in head.known:
        return False
    token = head.header(b"upgrade")
    if token is None or b"upgrade" not in (head.header(b"connection") or b"").lower():
        return False
    name = token.decode("latin-1").strip().lower()
    return name != "h2c" and name not in mapping.upgrades


def plain_reply(status: int, text: str = "") -> Reply:
    """A short text of our own; never anything that came from the client or from inside."""
    body = text.encode()
    return Reply(status, body, [*_PLAIN_TEXT, (b"content-length", b"%d" % len(body))])


def refusal(exc: ClientError, version: str = "2") -> Reply:
    """What a client hears of a request that cannot be served: nothing that it sent.

    Args:
        version: of HTTP; before "2" the connection ends with it when nobody is sure where the request does.
    """
    reply = plain_reply(exc.status_hint, _REFUSALS[exc.status_hint])
    if exc.status_hint in (400, 431) and version not in ("2", "3") and reply.headers is not None:
        reply.headers.append((b"connection", b"close"))
    return reply
