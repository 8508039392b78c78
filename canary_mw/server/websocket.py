"""uvicorn's WebSocket protocol with bounds for what a client may make it hold, and with refusals as HTTP has them.

uvicorn's own parses all frames of a read at once, however many messages they are, and inflates them: a client could
make it hold a thousand times what it sends. Here messages are not compressed, and the next one is parsed when the app
has taken the one before.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.frames import Frame
from websockets.http11 import Request

from canary_mw.http.messages import NO_BODY_STATUSES
from canary_mw.http.response_writer import render_head
from canary_mw.observability.counters import RefusalCounters
from canary_mw.server.uvicorn_internals import (
    ClientDisconnected,
    ServerState,
    WebSocketsSansIOProtocol,
    get_client_addr,
    get_path_with_query_string,
)
from canary_mw.types import Message

# Bytes that are read ahead of the message that the app is to take; one read may go beyond them.
HIGH_WATER = 65536
# Seconds after a close in which the client has to take what is left.
LINGER_TIMEOUT = 10.0

_WRONG_VERSION = b"the version of a WebSocket handshake has to be 13\n"
_LONG_LINE = b"a line of the WebSocket handshake is too long\n"
_NO_HANDSHAKE = b"the request is no WebSocket handshake\n"
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_UPGRADE = (b"upgrade", b"websocket")


class GuardedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket of a client, from its handshake on.

    It holds one message that the app has not taken, the part of a further one that was read, and `HIGH_WATER`.
    """

    # The message that is read, in one item.
    frames: list[Any]

    def __init__(
        self,
        config: Any,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # No compression: a message of 16 KiB may inflate to 16 MiB.
        self.conn.available_extensions = []
        # What was read and not parsed yet begins at `_position`; the frame that begins or goes on there has so many
        # bytes left, 0 if its length was not read yet.
        self._unread = b""
        self._position = 0
        self._frame_left = 0
        self._late_pong = b""
        # Status, headers and body of a refusal that the app sends, None before it.
        self._denial: tuple[int, list[tuple[bytes, bytes]], bytearray] | None = None

    # What the client sends.

    def data_received(self, data: bytes) -> None:
        """Parse bytes of the client: those of the handshake at once, and frames while no message waits for the app."""
        if self.transport.is_closing():
            return
        if not self.handshake_initiated:
            super().data_received(data)
            if not (self.handshake_initiated or self.handshake_complete):
                self._refuse(431, [], _LONG_LINE)
            return
        self._unread = self._unread[self._position :] + data
        self._position = 0
        self._parse()
        if len(self._unread) - self._position > HIGH_WATER and not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _parse(self) -> None:
        while (
            self._position < len(self._unread)
            and self.handshake_complete
            and self._wants_messages()
            and not self.transport.is_closing()
        ):
            if not self._frame_left:
                self._frame_left = frame_length(self._unread, self._position)
                if not self._frame_left:
                    break
            part = self._unread[self._position : self._position + self._frame_left]
            self._position += len(part)
            self._frame_left -= len(part)
            super().data_received(part)
        if self._position == len(self._unread):
            self._unread, self._position = b"", 0

    def _read_on(self) -> None:
        """Parse what was read; when no message of it waits for the app, read on."""
        self._parse()
        if self.read_paused and self._wants_messages() and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()

    def _wants_messages(self) -> bool:
        """Whether the app has taken the last one, or takes none: behind our close only that of the client counts."""
        return self.close_sent or self.queue.empty()

    def handle_cont(self, event: Frame) -> None:
        """A further fragment of a message: joined at once, as a million small ones cost far more than their bytes."""
        if not isinstance(self.frames[0], bytearray):
            self.frames[0] = bytearray(self.frames[0])
        self.frames[0] += event.data
        if event.fin:
            self.frames[0] = bytes(self.frames[0])
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer a ping. A client that reads no answers gets one for its last ping (RFC 6455, section 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self._late_pong = b"".join(self.conn.data_to_send())

    def resume_writing(self) -> None:
        """The client has read enough."""
        super().resume_writing()
        pong, self._late_pong = self._late_pong, b""
        if pong and not self.transport.is_closing():
            self.transport.write(pong)

    async def receive(self) -> Any:
        """The next message for the app."""
        message = await self.queue.get()
        if self.queue.empty():
            self._read_on()
        return message

    # The handshake.

    def handle_connect(self, event: Request) -> None:
        """Start the app for a valid handshake, and refuse any other (RFC 6455, sections 4.2.1 and 4.4)."""
        if event.headers.get_all("Sec-WebSocket-Version") != ["13"]:
            self._refuse(426, [_UPGRADE, (b"sec-websocket-version", b"13")], _WRONG_VERSION)
            return
        try:
            self.conn.process_request(event)
        except InvalidUpgrade:
            self._refuse(426, [_UPGRADE], _NO_HANDSHAKE)
        except InvalidHandshake:
            self._refuse(400, [], _NO_HANDSHAKE)
        else:
            super().handle_connect(event)

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], text: bytes) -> None:
        """Answer a request that is no handshake; no app sees it."""
        refusals: RefusalCounters | None = self.app_state.get(RefusalCounters.KEY)
        if refusals is not None:
            refusals.count(status)
        self._respond(status, [*headers, _TEXT], text)

    async def send(self, message: Any) -> None:
        """Write the next message of the app; see the ASGI specification.

        Raises:
            RuntimeError: another message type is expected, or the content is invalid.
            ClientDisconnected: the client has left.
        """
        if self.handshake_complete or message["type"] == "websocket.accept":
            await super().send(message)
            if self.close_sent:
                self._end_later()
            if self._unread or self.close_sent:
                self._read_on()
            return
        await self.writable.wait()
        if self.disconnected:
            raise ClientDisconnected
        self._deny(message)

    def _deny(self, message: Message) -> None:
        """The app refuses the handshake."""
        kind = message["type"]
        if self._denial is None and kind == "websocket.close":
            self._denial = 403, [], bytearray()
        elif self._denial is None and kind == "websocket.http.response.start":
            self._denial = message["status"], list(message.get("headers", ())), bytearray()
            return
        elif self._denial is not None and kind == "websocket.http.response.body":
            self._denial[2].extend(message.get("body", b""))
            if message.get("more_body", False):
                return
        else:
            raise RuntimeError(f"unexpected ASGI message {kind!r} in a WebSocket handshake")
        status, headers, body = self._denial
        self.logger.info(
            '%s - "WebSocket %s" %d', get_client_addr(self.scope), get_path_with_query_string(self.scope), status
        )
        self._respond(status, headers, bytes(body))
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def send_500_response(self) -> None:
        """The app has failed, or the server shuts down, before the handshake was answered."""
        if not self.handshake_complete:
            self._respond(500, [_TEXT], b"Internal Server Error")

    def _respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer the handshake with a response that ends the connection.

        Raises:
            RuntimeError: the status or a header cannot be sent safely.
        """
        # The connection is closed after the body, so that its length is what counts.
        pairs = [(name.lower(), value) for name, value in headers]
        names = {name for name, _ in pairs}
        pairs = [pair for pair in pairs if pair[0] != b"content-length"]
        pairs = [*(pair for pair in self.default_headers if pair[0] not in names), *pairs]
        if status not in NO_BODY_STATUSES:
            pairs.append((b"content-length", b"%d" % len(body)))
        if b"upgrade" in names:
            pairs.append((b"connection", b"upgrade"))
        head = render_head(status, pairs, "GET", "1.1", closes=True)
        self.handshake_complete = self.close_sent = True
        self.transport.write(head.data if head.empty else head.data + body)
        self.transport.close()
        self._end_later()

    # The end.

    def keepalive_timeout(self) -> None:
        """The client has not answered a ping."""
        super().keepalive_timeout()
        self._end_later()

    def handle_close(self, event: Frame) -> None:
        """The client closes, or answers our close."""
        super().handle_close(event)
        self._end_later()

    def handle_parser_exception(self) -> None:
        """The client has sent what is no frame."""
        super().handle_parser_exception()
        self._end_later()

    def shutdown(self) -> None:
        """The server shuts down; a connection that ends already only waits for its client to read."""
        if not self.transport.is_closing():
            super().shutdown()
        self._end_later()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The app has ended."""
        super().on_task_complete(task)
        self._end_later()

    def _end_later(self) -> None:
        """End the connection in any case: a transport closes when all is written, and this client may read nothing."""
        if self.transport.get_write_buffer_size():
            self.loop.call_later(LINGER_TIMEOUT, self.transport.abort)


def frame_length(data: bytes, start: int) -> int:
    """Bytes of the frame that begins there, header included; 0 if too little of its header was read (RFC 6455, 5.2)."""
    if len(data) < start + 2:
        return 0
    length = data[start + 1] & 0x7F
    header = 2 + {126: 2, 127: 8}.get(length, 0)
    if len(data) < start + header:
        return 0
    if header > 2:
        length = int.from_bytes(data[start + 2 : start + header])
    return header + (4 if data[start + 1] & 0x80 else 0) + length
