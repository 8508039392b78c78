"""One request and its response, as uvicorn's protocol runs them, with the framing of `http.response_writer`.

The head of a response waits for the first chunk of its body, so that one write sends both.
"""

import asyncio
import socket
import struct
from typing import Any
from urllib.parse import unquote

import httptools

from canary_mw.exceptions import UpstreamError
from canary_mw.http.messages import RawHeaders
from canary_mw.http.response_writer import encode_chunk, render_head
from canary_mw.server.uvicorn_internals import (
    HTTPScope,
    HttpToolsProtocol,
    RequestResponseCycle,
    get_client_addr,
    get_path_with_query_string,
)
from canary_mw.types import ASGIApp, Message


class GuardedCycle(RequestResponseCycle):
    """One request and its response."""

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
            # HTTP/1.0 has no interim responses.
            expect_100_continue=protocol.expect_100_continue and scope["http_version"] == "1.1",
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        self._loop = protocol.loop
        self._pending_head: bytes | None = None
        # How the body ends: there is none, or it is chunked, or this many bytes are left of its length. Otherwise it
        # ends with the connection.
        self._no_body = False
        self._remaining: int | None = None

    async def run_asgi(self, app: ASGIApp) -> None:  # type: ignore[override]
        """Run the app; a response that it does not complete is aborted."""
        upstream_failed = False
        try:
            await app(self.scope, self.receive, self.send)  # type: ignore[arg-type]
        except UpstreamError:
            # Logged where the upstream is known.
            upstream_failed = True
        except asyncio.CancelledError:
            self.logger.info("a request was cancelled")
        except BaseException as exc:
            self.logger.error("Exception in ASGI application\n", exc_info=exc)
        if not self.response_complete and not self.disconnected:
            if self.response_started:
                if not upstream_failed:
                    self.logger.error("ASGI callable returned without completing response.")
                self.abort()
            else:
                await self.send_500_response()
        self.on_response = _noop

    async def send(self, message: Message) -> None:  # type: ignore[override]
        """Write the next message of the response; see the ASGI specification.

        Raises:
            RuntimeError: another message type is expected, or the content is invalid; nothing of it was written.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        expected = "http.response.body" if self.response_started else "http.response.start"
        if message["type"] != expected or self.response_complete:
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}, expected {expected!r}")
        if self.response_started:
            self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            self._send_start(message["status"], list(message.get("headers", ())))

    def _send_start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self.default_headers:
            given = {name.lower() for name, _ in headers}
            headers = [*(pair for pair in self.default_headers if pair[0] not in given), *headers]
        self._pending_head = self._render(status, headers)
        self.response_started = True
        self.waiting_for_100_continue = False
        # Most bodies follow at once and are written with the head. That of a stream must not wait for the first event.
        self._loop.call_soon(self.flush)
        if self.access_log:
            scope = self.scope
            target = get_path_with_query_string(scope)
            values = (get_client_addr(scope), scope["method"], target, scope["http_version"], status)
            self.access_logger.info('%s - "%s %s HTTP/%s" %d', *values)

    def _render(self, status: int, headers: RawHeaders) -> bytes:
        # The unread rest of the request would be parsed as the next one.
        closes = not self.keep_alive or self.more_body
        head = render_head(status, headers, self.scope["method"], self.scope["http_version"], closes=closes)
        self._no_body, self.chunked_encoding, self._remaining = head.empty, head.chunked, head.length
        self.keep_alive = not head.closes
        return head.data

    def _close_delimited(self) -> bool:
        return not self._no_body and not self.chunked_encoding and self._remaining is None

    def _send_body(self, body: bytes, more: bool) -> None:
        data = b"" if self._no_body else self._frame(body, more)
        if self._pending_head is not None:
            data = self._pending_head + data
            self._pending_head = None
        if data:
            self.transport.write(data)
        if not more:
            self.response_complete = True
            self.message_event.set()
            self.on_response()

    def _frame(self, body: bytes, more: bool) -> bytes:
        if self.chunked_encoding:
            return encode_chunk(body, last=not more)
        if self._remaining is not None:
            self._remaining -= len(body)
            if self._remaining < 0 or (self._remaining and not more):
                raise RuntimeError(f"the body is not as long as its Content-Length says, by {-self._remaining} bytes")
        return body

    def flush(self) -> None:
        """Write the head if it has not been written yet."""
        if self._pending_head is not None and not self.disconnected:
            self.transport.write(self._pending_head)
        self._pending_head = None

    def abort(self) -> None:
        """End the connection so that the client cannot take the response for a complete one."""
        self.flush()
        if self._close_delimited():
            # Such a body ends with an orderly close; only a reset shows that it is incomplete.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    def on_disconnect(self) -> None:
        """The client has disconnected: notify the app, and drop what it still sends."""
        self.disconnected = not self.response_complete
        self.message_event.set()


def _noop() -> None:
    pass


def http_scope(protocol: HttpToolsProtocol, method: str, version: str, url: bytes, headers: RawHeaders) -> Any:
    """The ASGI scope of a request whose head was checked."""
    raw_path, query = _split_target(url)
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


def _split_target(url: bytes) -> tuple[bytes, bytes]:
    """Raw path and query of a target."""
    if url[:1] == b"/":
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path or b"/", parsed.query or b""
