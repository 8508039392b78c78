"""Requests to a middleware without a server: its own call, in this thread."""

import asyncio
from io import BytesIO
from typing import Any, NamedTuple

from servers import Pairs

from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.environ import environ_key
from canary_mw.types import Environ, Message, Scope


class Direct(NamedTuple):
    """An answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """First value of a header."""
        return next((value for key, value in self.headers if key.lower() == name), None)


def asked(made: Any, *requests: tuple[str, Pairs], body: bytes = b"", method: str = "GET") -> list[Direct]:
    """The answers of an app, ASGI or WSGI, to requests one after the other; a middleware is closed then."""
    if isinstance(made, CanaryMiddleware):

        async def main() -> list[Direct]:
            try:
                return [await ask_asgi(made, scope_of(target, headers, method), body) for target, headers in requests]
            finally:
                await made.aclose()

        return asyncio.run(main())
    try:
        return [ask_wsgi(made, environ_of(target, headers, body, method)) for target, headers in requests]
    finally:
        if hasattr(made, "close"):
            made.close()


def scope_of(target: str, headers: Pairs = (), method: str = "GET") -> Scope:
    """The scope of a request from 127.0.0.1."""
    path, _, query = target.partition("?")
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (("host", "shop.example"), *headers)]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": raw,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
    }


async def ask_asgi(app: Any, scope: Scope, body: bytes = b"") -> Direct:
    """The answer of an ASGI app."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Message] = []
    left = asyncio.Event()

    async def receive() -> Message:
        if not pending:
            await left.wait()
        return pending.pop() if pending else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        await asyncio.sleep(0)

    await app(scope, receive, send)
    (start,) = (each for each in sent if each["type"] == "http.response.start")
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    return Direct(start["status"], pairs, b"".join(each.get("body", b"") for each in sent if each is not start))


def environ_of(target: str, headers: Pairs = (), body: bytes = b"", method: str = "GET") -> Environ:
    """The environ of a request from 127.0.0.1."""
    path, _, query = target.partition("?")
    pairs = [("host", "shop.example"), *headers]
    if body:
        pairs.append(("content-length", str(len(body))))
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(body),
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **{environ_key(name.encode()): value for name, value in pairs},
    }


def ask_wsgi(app: Any, environ: Environ) -> Direct:
    """The answer of a WSGI app."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        started[:] = [int(status[:3]), headers]
        return bytes

    result = app(environ, start_response)
    try:
        body = b"".join(result)
    finally:
        if hasattr(result, "close"):
            result.close()
    return Direct(started[0], started[1], body)
