"""Replies of the proxy itself: short fixed texts, without anything from the request or internal details."""

from http import HTTPStatus

from canary_mw.exceptions import ClientError
from canary_mw.forwarding.messages import Reply

_PLAIN_TEXT = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
_ERROR_TEXTS = {
    400: "the request is not one that can be forwarded\n",
    403: "the request is not allowed\n",
    411: "the length of the request body is not known, and this server tells no end of it\n",
    413: "the request body is too large\n",
    431: "the head of the request is too large\n",
    508: "the request came back to where it was: a loop\n",
}


_REASONS = {status.value: status.phrase.lower() for status in HTTPStatus}


def reason_of(reply: Reply) -> str:
    """The reason of a reply for the access log, such as "not found"; services may answer with any status."""
    return _REASONS.get(reply.status, "unknown status")


def text_reply(status: int, text: str = "") -> Reply:
    """A reply with a short text; the text must hold nothing from the request and no internal details."""
    body = text.encode()
    return Reply(status, body, [*_PLAIN_TEXT, (b"content-length", b"%d" % len(body))])


def client_error_reply(exc: ClientError, version: str = "2") -> Reply:
    """The reply for a request that cannot be served; it repeats nothing of the request.

    Args:
        version: HTTP version; before "2", 400 and 431 close the connection, since the end of the request is unknown.
    """
    reply = text_reply(exc.status_hint, _ERROR_TEXTS[exc.status_hint])
    if exc.status_hint in (400, 431) and version not in ("2", "3") and reply.headers is not None:
        reply.headers.append((b"connection", b"close"))
    return reply
