"""The conversation that a decision leads to: a generator, so that ASGI and WSGI drive the same one.

It yields what is to be sent, is sent the head of the answer or thrown an `UpstreamError`, and returns the outcome.
"""

from collections.abc import Generator

from .exceptions import UpstreamError
from .forwarding import Hop, client_head, location, upstream_request
from .group import Decision
from .messages import Relay, Reply, RequestHead, ResponseHead, UpstreamRequest

Conversation = Generator[UpstreamRequest, ResponseHead, Relay | Reply]

_PLAIN_TEXT = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
_REASONS = {502: "did not answer as HTTP", 503: "is not reachable", 504: "did not answer in time"}


def exchange(decision: Decision, head: RequestHead, hop: Hop) -> Conversation:
    """Converse with the upstream of a decision.

    Raises:
        ClientError: the request cannot be forwarded as it is; `LoopDetected` is one.
    """
    mapping = decision.mapping
    if mapping.redirect is not None:
        target = location(mapping.redirect, mapping, head)
        return Reply(mapping.redirect.status, headers=[(b"location", target), (b"content-length", b"0")])
    if refused_upgrade(decision, head):
        return plain_reply(403)
    try:
        response = yield upstream_request(decision, head, hop)
    except UpstreamError as exc:
        return plain_reply(exc.status_hint, f"upstream {mapping.service.origin.host} {_REASONS[exc.status_hint]}\n")
    return Relay(client_head(mapping, response))


def refused_upgrade(decision: Decision, head: RequestHead) -> bool:
    """Whether the request asks for an upgrade that its Mapping does not allow (Envoy answers 403)."""
    token = head.header(b"upgrade")
    if token is None or b"upgrade" not in (head.header(b"connection") or b"").lower():
        return False
    return token.decode("latin-1").strip().lower() not in decision.mapping.upgrades


def plain_reply(status: int, text: str = "") -> Reply:
    """A short text of our own; never anything that came from the client or from inside."""
    body = text.encode()
    return Reply(status, body, [*_PLAIN_TEXT, (b"content-length", b"%d" % len(body))])
