"""The headers of a release on the answers of an ASGI app."""

from collections.abc import Awaitable

from canary_mw.forwarding.release_headers import ReleaseHeaders
from canary_mw.http.messages import RequestHead
from canary_mw.routing.table import RouteTable
from canary_mw.types import Message, Send

# The messages that begin an answer, with the status of those that do not carry it.
_STARTS = {"http.response.start": None, "websocket.http.response.start": None, "websocket.accept": 101}


def with_headers(send: Send, headers: ReleaseHeaders | None) -> Send:
    """A `send` that adds the headers of a release to the head of the answer; without any, the given one."""
    if headers is None:
        return send

    # No coroutine, because every message passes here.
    def release_send(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            status = _STARTS[message["type"]] or message["status"]
            pairs = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
            message = {**message, "headers": headers.add(status, pairs)}
        return send(message)

    return release_send


def noting(send: Send, head: RequestHead, table: RouteTable) -> Send:
    """A `send` that notes the headers of the answer for the LogServices of a table; without any, the given one."""
    if not table.settings.logs:
        return send

    def noting_send(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            head.answered = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
        return send(message)

    return noting_send
