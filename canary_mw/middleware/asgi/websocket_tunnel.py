"""A websocket relayed between a client, by ASGI messages, and an upstream, by a connection of our own.

Messages, subprotocol, end-to-end headers, refusals, close codes and reasons are relayed (RFC 6455). Framing,
compression, ping and pong are those of each side. One message at a time is relayed in each direction, so that a slow
reader slows the writer.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from websockets.exceptions import ConnectionClosed

from canary_mw.client.aio.websocket import (
    NO_STATUS_RCVD,
    Close,
    Handshake,
    WebSocketConnection,
    close_received,
    end_to_end,
    open_websocket,
)
from canary_mw.client.limits import CLOSE_TIMEOUT
from canary_mw.exceptions import ClientDisconnected, UpstreamError, UpstreamTimeout
from canary_mw.forwarding.exchange import Exchange
from canary_mw.forwarding.messages import Relay, Reply, UpstreamRequest
from canary_mw.forwarding.replies import text_reply
from canary_mw.http.request_writer import encode_head
from canary_mw.middleware.asgi.open_tunnels import tunnels_of
from canary_mw.middleware.asgi.replies import deny_handshake
from canary_mw.routing.decided import Decision
from canary_mw.types import Message, Receive, Scope, Send
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.circuit_breakers import Slot
from canary_mw.upstreams.lease import Lease

# Codes that a Close frame may have (RFC 6455, section 7.4, and its registry), besides 3000 to 4999.
_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))
_GOING_AWAY = Close(1001)
_IDLE = Close(1001, "idle timeout")


class WebSocketTunnel:
    """One websocket: the connection to the client and the connection to the upstream.

    Args:
        decision: its Mapping has the idle timeout.
        upstreams: opens the connection to the upstream.

    Attributes:
        upstreams: as given.
        task: the task that serves it.
    """

    def __init__(self, decision: Decision, upstreams: Upstreams) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.upstreams = upstreams
        self.task = task
        self._loop = task.get_loop()
        self._idle_timeout = decision.mapping.options.idle_timeout
        self._close_requested: asyncio.Future[Close] = self._loop.create_future()
        self._handshake: Handshake | None = None
        # A tunnel counts as one request in flight until it ends, as in Envoy.
        self._slot: Slot | None = None
        # What was sent last, and its deadline with all of its retries.
        self._request: UpstreamRequest | None = None
        self._deadline = math.inf
        self._last_activity = 0.0

    def start_close(self, code: int) -> None:
        """Make the task close both sides, with a code of RFC 6455."""
        if not self._close_requested.done():
            self._close_requested.set_result(Close(code))

    async def serve(
        self,
        exchange: Exchange,
        scope: Scope,
        receive: Receive,
        send: Send,
        answer: Callable[[Receive], Awaitable[bool]] | None = None,
    ) -> None:
        """Connect to the upstream, accept or deny the client, and relay messages until one side ends.

        Args:
            answer: is called when the exchange has ended without a connection. If an app of this process has to answer
                in place of the upstream, it calls that, and returns True.
        """
        await receive()
        # Runs while the upstream is connected: it finds a disconnect, or has the first message of the client.
        first = self._loop.create_task(_receive_message(receive))
        tunnels = tunnels_of(self._loop)
        tunnels.add(self)
        try:
            outcome = await self._wait_open(self._run_exchange(exchange, scope.get("subprotocols") or ()), first)
            if isinstance(outcome, Relay) and self._connection is not None:
                headers = end_to_end(outcome.head.headers)
                subprotocol = self._connection.subprotocol
                await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
                await self._relay_messages(self._connection, first, receive, send)
            elif answer is None or not await answer(_replayed(first, receive)):
                await _cancel(first)
                await deny_handshake(scope, receive, send, self._reply(outcome))
        except ClientDisconnected:
            pass
        finally:
            tunnels.discard(self)
            self._release_slot()
            if self._connection is not None:
                self._connection.transport.abort()
            await _cancel(first)

    @property
    def _connection(self) -> WebSocketConnection | None:
        return None if self._handshake is None else self._handshake.connection

    def _reply(self, outcome: Relay | Reply) -> Reply:
        if isinstance(outcome, Reply):
            return outcome
        assert self._handshake is not None
        return Reply(outcome.head.status, self._handshake.body, outcome.head.headers)

    async def _wait_open(
        self, steps: Coroutine[Any, Any, Relay | Reply], first: asyncio.Task[Message]
    ) -> Relay | Reply:
        opening = self._loop.create_task(steps)
        waiting: set[Any] = {opening, first, self._close_requested}
        try:
            while not opening.done() and not self._close_requested.done():
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if first in waiting and first.done():
                    waiting.discard(first)
                    if first.result()["type"] != "websocket.receive":
                        raise ClientDisconnected
            return opening.result() if opening.done() else text_reply(503)
        finally:
            await _cancel(opening)

    async def _run_exchange(self, exchange: Exchange, subprotocols: Sequence[str]) -> Relay | Reply:
        errors = self.upstreams.errors
        try:
            request = next(exchange)
            while True:
                try:
                    self._handshake = await self._attempt(request, subprotocols)
                except UpstreamError as exc:
                    errors.failed(request.service, request.mapping, exc)
                    request = exchange.throw(exc)
                else:
                    if errors.failing:
                        errors.succeeded(request.service)
                    request = exchange.send(self._handshake.head)
        except StopIteration as stop:
            outcome: Relay | Reply = stop.value
            return outcome

    async def _attempt(self, request: UpstreamRequest, subprotocols: Sequence[str]) -> Handshake:
        encode_head(request)
        self._release_slot()
        self._slot = self.upstreams.acquire(request)
        if request.delay:
            await asyncio.sleep(request.delay)
        now = self._loop.time()
        if request is not self._request:
            self._request, self._deadline = request, now + (request.head_timeout or math.inf)
        self._deadline = min(self._deadline, now + (request.timeout or math.inf))
        deadline = min(self._deadline, now + (request.options.per_try_timeout or math.inf))

        async def open_at(lease: Lease) -> Handshake:
            security = self.upstreams.contexts(lease.origin)
            handshake = await open_websocket(lease.origin, request, subprotocols, security)
            lease.record(handshake.head.status)
            return handshake

        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                return await self.upstreams.at_endpoint(request, self._loop, deadline, open_at)
        except TimeoutError as exc:
            error = UpstreamTimeout("no response to the upgrade before the deadline", sent=True)
            error.deadline_exceeded = deadline == self._deadline
            raise error from exc

    def _release_slot(self) -> None:
        if self._slot is not None:
            self._slot.release()
            self._slot = None

    async def _relay_messages(
        self, upstream: WebSocketConnection, first: asyncio.Task[Message], receive: Receive, send: Send
    ) -> None:
        up = self._loop.create_task(self._relay_to_upstream(upstream, first, receive))
        down = self._loop.create_task(self._relay_to_client(upstream, send))
        to_client: Close | None
        try:
            await self._wait_end(up, down)
            if up.done():
                to_client, to_upstream = None, up.result()
            elif down.done():
                to_client, to_upstream = down.result(), _GOING_AWAY
            else:
                to_client = to_upstream = self._close_requested.result() if self._close_requested.done() else _IDLE
        finally:
            await _cancel(up, down)
        await asyncio.gather(_close_client(send, to_client), upstream.close_gracefully(to_upstream))

    async def _wait_end(self, *relays: asyncio.Task[Any]) -> None:
        """Wait until one side has ended, a close is requested, or no message has come for the idle timeout."""
        self._last_activity = self._loop.time()
        done: set[Any] = set()
        left = self._idle_timeout
        while not done and (left is None or left > 0):
            done, _ = await asyncio.wait(
                (*relays, self._close_requested), timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if self._idle_timeout is not None:
                left = self._last_activity + self._idle_timeout - self._loop.time()

    async def _relay_to_upstream(
        self, upstream: WebSocketConnection, first: asyncio.Task[Message], receive: Receive
    ) -> Close:
        message = await first
        while message["type"] == "websocket.receive":
            self._last_activity = self._loop.time()
            data = message.get("bytes")
            # The other direction reports a closed upstream, after it has relayed the upstream's last messages.
            with contextlib.suppress(ConnectionClosed):
                await upstream.send(message["text"] if data is None else data)
            message = await receive()
        return _close_of_client(message)

    async def _relay_to_client(self, upstream: WebSocketConnection, send: Send) -> Close | None:
        while True:
            try:
                data = await upstream.recv()
            except ConnectionClosed as exc:
                return close_received(exc)
            self._last_activity = self._loop.time()
            try:
                await send({"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data})
            except (OSError, RuntimeError):
                # Servers raise different errors when the client has disconnected.
                return None


def _close_of_client(message: Message) -> Close:
    """The Close frame for the upstream: 1000 for one of the client without a code, 1001 when the client sent none."""
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


def _replayed(first: asyncio.Task[Message], receive: Receive) -> Receive:
    """A `receive` that begins again: the connection, then the first message of the client."""
    waiting: list[Awaitable[Message] | Message] = [first, {"type": "websocket.connect"}]

    async def receive_again() -> Message:
        if not waiting:
            return await receive()
        message = waiting.pop()
        return await message if isinstance(message, Awaitable) else message

    return receive_again


async def _receive_message(receive: Receive) -> Message:
    return await receive()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks whose results are not needed, and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
