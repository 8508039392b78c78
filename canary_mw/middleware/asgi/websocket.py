"""The websocket tunnel: the client's websocket as ASGI has it, and one of our own to the upstream (RFC 6455).

Messages, subprotocol, end-to-end headers, refusals, close codes and reasons pass. Framing, compression, ping and pong
stay on their leg. Each way one message is under way, so that a slow reader slows the writer.
"""

import asyncio
import contextlib
import math
from collections.abc import Coroutine, Sequence
from typing import Any
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from websockets.exceptions import ConnectionClosed

from canary_mw.client.aio.websocket import (
    CLOSE_TIMEOUT,
    NO_STATUS_RCVD,
    Close,
    Handshake,
    WebSocketConnection,
    close_received,
    end_to_end,
    open_websocket,
)
from canary_mw.exceptions import ClientDisconnected, UpstreamError, UpstreamTimeout
from canary_mw.forwarding.exchange import Exchange, direct_response, exchange
from canary_mw.forwarding.headers import response_head
from canary_mw.forwarding.hop import HopContext
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.replies import text_reply
from canary_mw.forwarding.requests import upstream_request
from canary_mw.http.messages import RequestHead, ResponseHead
from canary_mw.http.request_writer import encode_head
from canary_mw.routing.group import Decision
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.circuit_breakers import Slot

# What may stand in a Close frame (RFC 6455, section 7.4, and its registry), beside 3000 to 4999.
_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))
_GOING_AWAY = Close(1001)
_IDLE = Close(1001, "idle timeout")


async def tunnel(
    decision: Decision,
    head: RequestHead,
    hop: HopContext,
    scope: Scope,
    receive: Receive,
    send: Send,
    upstreams: Upstreams,
) -> None:
    """Serve one websocket from the service of its Mapping.

    The client is accepted when the upstream has accepted; what the upstream refuses is refused with its answer. A
    Mapping that does not allow the upgrade refuses it with 403, as Envoy does.

    Raises:
        ClientError: the request cannot be forwarded as it is, and nothing was answered yet.
    """
    mapping = decision.mapping
    reply = direct_response(mapping, head)
    if reply is None and "websocket" not in mapping.upgrades:
        # Not every server shows the Upgrade header by which the core would see it.
        reply = text_reply(403)
    app = upstreams.app(mapping.service)
    if reply is not None:
        await deny_handshake(scope, receive, send, reply)
    elif app is not None:
        await _call_app(app, decision, head, hop, scope, receive, send)
    else:
        await _Tunnel(decision, upstreams).serve(exchange(decision, head, hop), scope, receive, send)


def websocket_request(scope: Scope) -> Scope:
    """The scope of a websocket as that of the GET which asked for it, with the defaults that ASGI gives."""
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    defaults: Scope = {"query_string": b"", "headers": ()}
    return {**defaults, **scope, "method": "GET", "scheme": scheme, "http_version": "1.1"}


def close_tunnels(upstreams: Upstreams, code: int = 1001) -> list[asyncio.Task[Any]]:
    """Tell both sides of the tunnels to these upstreams that they end; returns the tasks of those of this loop."""
    tunnels = [each for each in _live.get(asyncio.get_running_loop(), ()) if each.upstreams is upstreams]
    for each in tunnels:
        each.end(Close(code))
    return [each.task for each in tunnels]


async def wait_tunnels(upstreams: Upstreams, code: int = 1001) -> None:
    """End the tunnels to these upstreams that run in this loop, and give both sides some seconds for it."""
    if tasks := close_tunnels(upstreams, code):
        await asyncio.wait(tasks, timeout=2 * CLOSE_TIMEOUT)


async def deny_handshake(scope: Scope, receive: Receive, send: Send, reply: Reply) -> None:
    """Answer the handshake with something else than 101; a server that cannot is left with its 403."""
    plain = reply.status == 403 and not reply.body
    if plain or "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return
    headers = [pair for pair in reply.headers or () if pair[0] != b"content-length"]
    headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "websocket.http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": reply.body})
    # uvicorn logs an error when the app ends before the connection; of its end it tells twice.
    told = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            while told < 2:
                told += (await receive())["type"] == "websocket.disconnect"


async def _call_app(
    app: ASGIApp, decision: Decision, head: RequestHead, hop: HopContext, scope: Scope, receive: Receive, send: Send
) -> None:
    """Let an app of this process answer; its messages pass as they come, but for the head of its answer."""
    request = upstream_request(decision, head, hop)
    path, _, query = request.target.partition(b"?")

    async def relay(message: Message) -> None:
        if message["type"] in ("websocket.accept", "websocket.http.response.start"):
            answer = ResponseHead(
                message.get("status", 101), [(bytes(n), bytes(v)) for n, v in message.get("headers", ())]
            )
            message = {**message, "headers": response_head(decision.mapping, answer, head, hop).headers}
        await send(message)

    as_sent = {
        "canary_mw": decision,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": request.headers,
    }
    await app({**scope, **as_sent}, receive, relay)


class _Tunnel:
    """Both legs of one websocket while it lasts.

    Attributes:
        upstreams: whose service the other end is.
        task: the one that serves it.
    """

    def __init__(self, decision: Decision, upstreams: Upstreams) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.upstreams = upstreams
        self.task = task
        self._loop = task.get_loop()
        self._idle_timeout = decision.mapping.options.idle_timeout
        self._ending: asyncio.Future[Close] = self._loop.create_future()
        self._answer: Handshake | None = None
        # A tunnel is one request to its end, as in Envoy.
        self._place: Slot | None = None
        self._deadline = math.inf
        self._touched = 0.0

    def end(self, close: Close) -> None:
        """Tell both sides that it is over."""
        if not self._ending.done():
            self._ending.set_result(close)

    async def serve(self, conversation: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the upstream's leg, accept or refuse the client, and pass messages until one side ends."""
        await receive()
        # Kept over the opening: it says whether the client still waits, and then gives its first message.
        first = self._loop.create_task(_next(receive))
        live = _live.setdefault(self._loop, set())
        live.add(self)
        try:
            outcome = await self._opened(self._converse(conversation, scope.get("subprotocols") or ()), first)
            if isinstance(outcome, Relay) and self._connection is not None:
                headers = end_to_end(outcome.head.headers)
                subprotocol = self._connection.subprotocol
                await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
                await self._relay(self._connection, first, receive, send)
            else:
                await _cancelled(first)
                await deny_handshake(scope, receive, send, self._reply(outcome))
        except ClientDisconnected:
            pass
        finally:
            live.discard(self)
            self._leave_place()
            if self._connection is not None:
                self._connection.transport.abort()
            await _cancelled(first)

    @property
    def _connection(self) -> WebSocketConnection | None:
        return None if self._answer is None else self._answer.connection

    def _reply(self, outcome: Relay | Reply) -> Reply:
        if isinstance(outcome, Reply):
            return outcome
        assert self._answer is not None
        return Reply(outcome.head.status, self._answer.body, outcome.head.headers)

    async def _opened(self, steps: Coroutine[Any, Any, Relay | Reply], first: asyncio.Task[Message]) -> Relay | Reply:
        opening = self._loop.create_task(steps)
        waiting: set[Any] = {opening, first, self._ending}
        try:
            while not opening.done() and not self._ending.done():
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if first in waiting and first.done():
                    waiting.discard(first)
                    if first.result()["type"] != "websocket.receive":
                        raise ClientDisconnected
            return opening.result() if opening.done() else text_reply(503)
        finally:
            await _cancelled(opening)

    async def _converse(self, conversation: Exchange, subprotocols: Sequence[str]) -> Relay | Reply:
        try:
            request = next(conversation)
            while True:
                try:
                    self._answer = await self._ask(request, subprotocols)
                except UpstreamError as exc:
                    request = conversation.throw(exc)
                else:
                    request = conversation.send(self._answer.head)
        except StopIteration as stop:
            outcome: Relay | Reply = stop.value
            return outcome

    async def _ask(self, request: UpstreamRequest, subprotocols: Sequence[str]) -> Handshake:
        encode_head(request)
        self._leave_place()
        self._place = self.upstreams.acquire(request)
        if request.delay:
            await asyncio.sleep(request.delay)
        now = self._loop.time()
        self._deadline = min(self._deadline, now + (request.timeout or math.inf))
        limit = min(self._deadline, now + (request.options.try_timeout or math.inf))
        try:
            async with asyncio.timeout_at(None if limit == math.inf else limit):
                with await self.upstreams.lease(request, self._loop, limit) as lease:
                    security = self.upstreams.contexts(lease.origin)
                    shaken = await open_websocket(lease.origin, request, subprotocols, security)
                    lease.record(shaken.head.status)
                    return shaken
        except TimeoutError as exc:
            error = UpstreamTimeout("no answer to the upgrade before the deadline", sent=True)
            error.whole = limit == self._deadline
            raise error from exc

    def _leave_place(self) -> None:
        if self._place is not None:
            self._place.release()
            self._place = None

    async def _relay(
        self, upstream: WebSocketConnection, first: asyncio.Task[Message], receive: Receive, send: Send
    ) -> None:
        up = self._loop.create_task(self._upward(upstream, first, receive))
        down = self._loop.create_task(self._downward(upstream, send))
        to_client: Close | None
        try:
            await self._until_end(up, down)
            if up.done():
                to_client, to_upstream = None, up.result()
            elif down.done():
                to_client, to_upstream = down.result(), _GOING_AWAY
            else:
                to_client = to_upstream = self._ending.result() if self._ending.done() else _IDLE
        finally:
            await _cancelled(up, down)
        await asyncio.gather(_close_client(send, to_client), upstream.close_gracefully(to_upstream))

    async def _until_end(self, *pumps: asyncio.Task[Any]) -> None:
        """Until one side has ended, it is to end, or nothing has passed for too long."""
        self._touched = self._loop.time()
        done: set[Any] = set()
        left = self._idle_timeout
        while not done and (left is None or left > 0):
            done, _ = await asyncio.wait((*pumps, self._ending), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if self._idle_timeout is not None:
                left = self._touched + self._idle_timeout - self._loop.time()

    async def _upward(self, upstream: WebSocketConnection, first: asyncio.Task[Message], receive: Receive) -> Close:
        message = await first
        while message["type"] == "websocket.receive":
            self._touched = self._loop.time()
            data = message.get("bytes")
            # An upstream that is gone is for the other direction to tell, which may have messages of it left.
            with contextlib.suppress(ConnectionClosed):
                await upstream.send(message["text"] if data is None else data)
            message = await receive()
        return _close_of_client(message)

    async def _downward(self, upstream: WebSocketConnection, send: Send) -> Close | None:
        while True:
            try:
                data = await upstream.recv()
            except ConnectionClosed as exc:
                return close_received(exc)
            self._touched = self._loop.time()
            try:
                await send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})
            except (OSError, RuntimeError):
                # Each server has its own way to say that the client is gone.
                return None


# Loops do not share a set: each changes its own.
_live: WeakKeyDictionary[asyncio.AbstractEventLoop, set[_Tunnel]] = WeakKeyDictionary()


def _close_of_client(message: Message) -> Close:
    """Why the client left. A Close frame without a code says nothing bad; no Close frame at all is abnormal."""
    code, reason = message.get("code", NO_STATUS_RCVD), message.get("reason")
    if code == NO_STATUS_RCVD and "reason" in message:
        return Close(1000)
    return Close(code, reason or "") if code in _CODES or 3000 <= code < 5000 else _GOING_AWAY


async def _close_client(send: Send, close: Close | None) -> None:
    if close is None:
        return
    with contextlib.suppress(OSError, RuntimeError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await send({"type": "websocket.close", **close._asdict()})


async def _next(receive: Receive) -> Message:
    return await receive()


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """End tasks whose results nobody wants any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
