"""One request and its answer, as uvicorn's protocol runs them, with framing that is ours alone.

The head of an answer waits for the first piece of its body, so that both go out in one write.
"""

import asyncio
import socket
import struct
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_client_addr, get_path_with_query_string

from canary_mw.http.messages import RawHeaders
from canary_mw.http.response_writer import encode_chunk, render_head
from canary_mw.types import ASGIApp, Message


class GuardedCycle(RequestResponseCycle):
    """One request and its answer."""

    def __init__(self, protocol: HttpToolsProtocol, scope: HTTPScope, keep_alive: bool) -> None:
        super().__init__(
            scope=scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=protocol.access_log,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            # HTTP/1.0 knows no interim answers.
            expect_100_continue=protocol.expect_100_continue and scope["http_version"] == "1.1",
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
                self.abort()
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

    def _render(self, status: int, headers: RawHeaders) -> bytes:
        # What is left of the request would be taken for the next one.
        closes = not self.keep_alive or self.more_body
        head = render_head(status, headers, self.scope["method"], self.scope["http_version"], closes=closes)
        self._empty, self.chunked_encoding, self._left = head.empty, head.chunked, head.length
        self.keep_alive = not head.closes
        return head.data

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
            return encode_chunk(body, last=not more)
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

    def abort(self) -> None:
        """End the connection so that the client cannot take the answer for a whole one."""
        self.flush()
        if self._ends_with_connection():
            # Only a reset tells this end from an orderly one.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def on_disconnect(self) -> None:
        """The client has left: the app hears of it, and what it still sends goes nowhere."""
        self.disconnected = not self.response_complete
        self.message_event.set()


def _nothing() -> None:
    pass


def http_scope(protocol: HttpToolsProtocol, method: str, version: str, url: bytes, headers: RawHeaders) -> Any:
    """The ASGI scope of a request whose head was checked."""
    raw_path, query = _parts(url)
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
        "http_version": version,
        "method": method,
        "scheme": protocol.scheme,
        "server": protocol.server,
        "client": protocol.client,
        "path": protocol.root_path + (unquote(path) if "%" in path else path),
        "raw_path": protocol.root_path.encode("ascii") + raw_path,
        "query_string": query,
        "root_path": protocol.root_path,
        "headers": headers,
        "state": protocol.app_state.copy(),
        "canary_mw.checked": True,
        "canary_mw.client": protocol,
    }


def _parts(url: bytes) -> tuple[bytes, bytes]:
    """Raw path and query of a target."""
    if url[:1] == b"/":
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""
