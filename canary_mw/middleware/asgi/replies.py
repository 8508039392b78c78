"""Replies of the middleware itself, sent as ASGI messages."""

import asyncio
import contextlib
from http import HTTPStatus

from canary_mw.client.limits import CLOSE_TIMEOUT
from canary_mw.forwarding.messages import Reply
from canary_mw.http.messages import NO_BODY_STATUSES
from canary_mw.types import Receive, Scope, Send


async def send_reply(send: Send, reply: Reply) -> str:
    """Send a reply; returns its reason for the access log, such as "not found"."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers or []})
    await send({"type": "http.response.body", "body": reply.body})
    return HTTPStatus(reply.status).phrase.lower()


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
