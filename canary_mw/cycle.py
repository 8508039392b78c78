"""One request and its answer, as uvicorn's protocol runs them, with framing that is ours alone.

The head of an answer waits for the first piece of its body, so that both go out in one write.
"""

import asyncio
import socket
import struct

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from .framing import well_formed
from .upstreams import ASGIApp, Message


class GuardedCycle(RequestResponseCycle):
    """One request and its answer."""

    def __init__(self, protocol: HttpToolsProtocol, keep_alive: bool) -> None:
        super().__init__(
            scope=protocol.scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=protocol.access_log,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            # HTTP/1.0 knows no interim answers.
            expect_100_continue=protocol.expect_100_continue and protocol.scope["http_version"] == "1.1",
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self._loop = protocol.loop
        self._head: bytes | None = None
        # What tells the end of the body: that there is none, chunks, a length of which this is left, or else the end
        # of the connection.
        self._empty = False
        self._left: int | None = None

    async def run_asgi(self, app: ASGIApp) -> None:  # type: ignore[override]
        """Run the app; an answer that it does not finish is cut off."""
        try:
            await app(self.scope, self.receive, self.send)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            self.logger.info("a request was cancelled")
        except BaseException as exc:
            self.logger.error("Exception in ASGI application\n", exc_info=exc)
        if not self.response_complete and not self.disconnected:
            if self.response_started:
                self.logger.error("ASGI callable returned without completing response.")
                self.cut()
            else:
                await self.send_500_response()
        self.on_response = _nothing

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """Take the next message of the answer; see the ASGI specification.

        Raises:
            RuntimeError: it is not the one that is due, or what it holds cannot be written; of it nothing was.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        due = "http.response.body" if self.response_started else "http.response.start"
        if message["type"] != due or self.response_complete:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}, expected {due!r}")
        if self.response_started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._send_start(message["status"], list(message.get("headers", ())))

    def _send_start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self.default_headers:
            given = {name.lower() for name, _ in headers}
            headers = [*(pair for pair in self.default_headers if pair[0] not in given), *headers]
        self._head = self._render(status, headers)
        self.response_started = True
        self.waiting_for_100_continue = False
        # Most bodies follow at once and take the head along; that of a stream must not wait for the first event.
        self._loop.call_soon(self.flush)
        if self.access_log:
            scope = self.scope
            target = get_path_with_query_string(scope)
            facts = (get_client_addr(scope), scope["method"], target, scope["http_version"], status)
            self.access_logger.info('%s - "%s %s HTTP/%s" %d', *facts)

    def _render(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The head with the framing that its length, the method and the client's version ask for."""
        if status < 200:
            raise RuntimeError(f"status {status} is not that of a final answer")
        if headers and not well_formed(*zip(*headers, strict=True)):
            raise RuntimeError("a header name or value holds bytes that it must not")
        # What is left of the request would be taken for the next one.
        closes = not self.keep_alive or self.more_body
        length: bytes | None = None
        lines = [STATUS_LINE[status]]
        for name, value in headers:
            name = name.lower()
            if name == b"content-length":
                if not value.isdigit() or length is not None:
                    raise RuntimeError("the Content-Length is not one number")
                length = value
            elif name == b"connection":
                closes = closes or b"close" in value.lower()
            elif name != b"transfer-encoding":
                lines.append(b"%b: %b\r\n" % (name, value))
        self._frame(status, length, lines)
        self.keep_alive = not closes and not self._ends_with_connection()
        lines.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        return b"".join(lines)

    def _frame(self, status: int, length: bytes | None, lines: list[bytes]) -> None:
        """Choose what tells the end of the body."""
        self._empty = self.scope["method"] == "HEAD" or status in (204, 304)
        if length is not None and status != 204:
            lines.append(b"content-length: %b\r\n" % length)
        if length is not None and not self._empty:
            self._left = int(length)
        self.chunked_encoding = length is None and not self._empty and self.scope["http_version"] == "1.1"
        if self.chunked_encoding:
            lines.append(b"transfer-encoding: chunked\r\n")

    def _ends_with_connection(self) -> bool:
        return not self._empty and not self.chunked_encoding and self._left is None

    def _send_body(self, body: bytes, more: bool) -> None:
        data = b"" if self._empty else self._framed(body, more)
        if self._head is not None:
            data = self._head + data
            self._head = None
        if data:
            self.transport.write(data)
        if not more:
            self.response_complete = True
            self.message_event.set()
            self.on_response()

    def _framed(self, body: bytes, more: bool) -> bytes:
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError(f"the body is not as long as its Content-Length says, by {-self._left} bytes")
        return body

    def flush(self) -> None:
        """Write the head if it still waits."""
        if self._head is not None and not self.disconnected:
            self.transport.write(self._head)
        self._head = None

    def cut(self) -> None:
        """End the connection so that the client cannot take the answer for a whole one."""
        self.flush()
        if self._ends_with_connection():
            # Only a reset tells this end from an orderly one.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def drop(self) -> None:
        """The client has left: the app hears of it, and what it still sends goes nowhere."""
        self.disconnected = not self.response_complete
        self.message_event.set()


def _nothing() -> None:
    pass
