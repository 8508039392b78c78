"""WSGI apps on real ports."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterable

from waitress.server import create_server

from canary_mw.types import Environ, StartResponse, WSGIApp


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """An app that says what it is."""
    return respond(start_response, b"from the app")


def respond(
    start_response: StartResponse, body: bytes, status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()
) -> Iterable[bytes]:
    """A whole answer."""
    start_response(status, [*headers, ("content-length", str(len(body)))])
    return [body]


@contextlib.asynccontextmanager
async def serving_wsgi(app: WSGIApp, threads: int = 12) -> AsyncIterator[int]:
    """Serve an app by waitress on a free port of 127.0.0.1, which is yielded."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = create_server(app, sockets=[listener], threads=threads, clear_untrusted_proxy_headers=False)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            server.asyncore.loop(timeout=1, map=server._map, count=1)
        server.task_dispatcher.shutdown(timeout=5)
        server.asyncore.close_all(server._map)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        # In the thread of the server, lest it ends between the two.
        server.trigger.pull_trigger(ended.set)
        await asyncio.to_thread(thread.join)
        listener.close()
