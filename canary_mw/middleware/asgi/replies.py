"""Responses as ASGI messages: replies of the middleware itself, and those of upstreams as they come."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import perf_counter

from canary_mw.client.interfaces import UpstreamResponse
from canary_mw.client.limits import CLOSE_TIMEOUT
from canary_mw.forwarding.headers import is_event_stream
from canary_mw.forwarding.messages import Relay, Reply
from canary_mw.forwarding.replies import reason_of
from canary_mw.http.messages import NO_BODY_STATUSES, RequestHead
from canary_mw.middleware.asgi.receive import RequestStream
from canary_mw.types import Message, Receive, Scope, Send

# The status of the handshake response, by messages that do not carry it.
_HANDSHAKE_STATUSES = {"websocket.accept": 101, "websocket.close": 403}


class ObservedSend:
    """A `send` that notes what passes.

    Args:
        count: called before the last message of a response below 400 is passed on.

    Attributes:
        counted: whether it was called.
        status: of the response, None before it has one.
        first_byte: the `perf_counter` time of its head.
        body: bytes of its body.
    """

    __slots__ = ("_count", "_send", "body", "counted", "first_byte", "status")

    def __init__(self, send: Send, count: Callable[["ObservedSend"], object]) -> None:
        self._send = send
        self._count = count
        self.counted = False
        self.status: int | None = None
        self.first_byte: float | None = None
        self.body = 0

    # No coroutine, because every message passes here.
    def __call__(self, message: Message) -> Awaitable[None]:
        """Pass a message on."""
        if self.status is None:
            self.status = message.get("status") or _HANDSHAKE_STATUSES.get(message["type"])
            self.first_byte = perf_counter()
        else:
            self.body += len(message.get("body", b""))
            if self.status < 400 and not message.get("more_body") and message["type"] == "http.response.body":
                self.counted = True
                self._count(self)
        return self._send(message)


async def send_reply(send: Send, reply: Reply) -> str:
    """Send a reply; returns its reason for the access log, such as "not found"."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers or []})
    await send({"type": "http.response.body", "body": reply.body})
    return reason_of(reply)


async def deny_handshake(scope: Scope, receive: Receive, send: Send, reply: Reply) -> None:
    """Deny a websocket handshake with a reply.

    A server without ASGI's "websocket.http.response" extension responds with a plain 403 instead.
    """
    plain = reply.status == 403 and not reply.body
    if plain or "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    headers = [pair for pair in reply.headers or () if pair[0] != b"content-length"]
    if reply.status not in NO_BODY_STATUSES:
        headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "websocket.http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": reply.body})
    # uvicorn logs an error when the app returns before the connection has ended. It reports the disconnect twice.
    disconnects = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            while disconnects < 2:
                disconnects += (await receive())["type"] == "websocket.disconnect"


async def relay(
    response: UpstreamResponse, outcome: Relay, head: RequestHead, stream: RequestStream, send: Send
) -> None:
    """Relay a response as it comes; the body is one message when it is complete already."""
    status, headers = outcome.head.status, outcome.head.headers
    body = b"" if head.method == "HEAD" or status in NO_BODY_STATUSES else response.take()
    if body is not None:
        stream.close()
        if head.http_version == "1.0" and body and not any(name == b"content-length" for name, _ in headers):
            # The server would send chunks, which HTTP/1.0 does not have.
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    if is_event_stream(headers):
        response.cancel_deadline()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while chunk := await response.read():
        rest = response.take()
        if rest is not None:
            stream.close()
            await send({"type": "http.response.body", "body": chunk + rest})
            return
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    stream.close()
    await send({"type": "http.response.body", "body": b""})
