"""Apps and upstreams whose answers tell for which request they are, and who made them.

An answer is the token of its request in `x-token`, and a JSON object with the name of the answerer, the token, and the
digest of the body. A request for `/stream/` is answered by its token, again and again, in chunks.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from servers import respond
from upstream import OK, Peer, Seen
from wsgiservers import respond as wsgi_respond

from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

LOCAL = "local"
# Of a stream: its length in chunks, and how often a chunk repeats the token.
CHUNKS, REPEATS = 48, 1000


def answer(who: str, token: str, body: bytes) -> bytes:
    """What `who` answers to a request with this token and body."""
    return json.dumps({"who": who, "token": token, "digest": hashlib.sha256(body).hexdigest()}).encode()


async def echo(peer: Peer, who: str, request: Seen, *headers: bytes) -> None:
    """Answer one request to an upstream, with more header lines.

    A request for `/slow/` is answered after a while.
    """
    method, target, _ = request.line.split()
    token = next((line[9:] for line in request.headers if line.startswith(b"x-token: ")), b"")
    if target.startswith(b"/slow/"):
        await asyncio.sleep(0.2)
    if target.startswith(b"/stream/"):
        await peer.send(_head(b"transfer-encoding: chunked", b"x-token: " + token, *headers))
        for _ in range(CHUNKS):
            await peer.send(b"%x\r\n%b\r\n" % (len(token) * REPEATS, token * REPEATS))
        await peer.send(b"0\r\n\r\n")
        return
    body = answer(who, token.decode(), request.body)
    head = _head(b"content-length: %d" % len(body), b"x-token: " + token, *headers)
    await peer.send(head if method == b"HEAD" else head + body)


def _head(*lines: bytes) -> bytes:
    return OK + b"\r\n".join([*lines, b"", b""])


async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    """As an app in the process of the middleware, with WebSockets."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _websocket(receive, send)
    else:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                token: bytes = dict(scope["headers"]).get(b"x-token", b"")
                await respond(send, answer(LOCAL, token.decode(), body), headers=[(b"x-token", token)])
                return


async def _lifespan(receive: Receive, send: Send) -> None:
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})


async def _websocket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """As an app in the process of the middleware for WSGI."""
    stream: Any = environ["wsgi.input"]
    if environ.get("CONTENT_LENGTH"):
        body = stream.read(int(environ["CONTENT_LENGTH"]))
    else:
        # Servers that pass a chunked body on end it themselves.
        body = stream.read() if "HTTP_TRANSFER_ENCODING" in environ else b""
    token = environ.get("HTTP_X_TOKEN", "")
    answered = wsgi_respond(start_response, answer(LOCAL, token, body), headers=[("x-token", token)])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else answered
