"""A gray variant that fails as the path says, a stable one that answers, and what stands before them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from middlewares import middleware, serving_middleware, use
from servers import free_port, mapping
from standalone import Noting, listening
from upstream import Peer, Seen, serving
from websockets.utils import accept_key

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.fallback import SafetyNets
from canary_mw.observability.observers import Observer
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse
from canary_mw.upstreams.overrides import parse_origins

# Who asks, and who answers for stable: an upstream, the wrapped app, or another app of the process.
PLACES = ("asgi/upstream", "asgi/app", "asgi/service", "wsgi/upstream", "wsgi/app", "wsgi/service", "proxy/upstream")
PROXY, ASGI, WSGI = "proxy/upstream", "asgi/upstream", "wsgi/upstream"
# A part of every answer of stable.
STABLE = b"stable"


def release(fallback: str = "{}", *, gray: int = 100, more: str = "") -> str:
    """A release that sends everybody to gray."""
    return f"""---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop-2
gray: {{v2: {{weight: {gray}, mappings: [gray, gray-dead, gray-full, gray-again]}}}}
missing: roll
choice: {{header: x-gray}}
fallback: {fallback}
{more}"""


def rules(fallback: str = "{}", *, stable: bool = True, gray: int = 100, more: str = "", **options: Any) -> str:
    """Groups of which one fails each in its way, below one release."""
    again = {"retry_policy": "{retry_on: 5xx, num_retries: 1}"}
    full = {"circuit_breakers": "[{max_requests: 0}]"}
    groups = [("", "gray", {}), ("-dead", "dead", {}), ("-full", "gray", full), ("-again", "gray", again)]
    text = release(fallback, gray=gray, more=more)
    for end, service, extra in groups:
        prefix = f"/shop{end}/"
        text += mapping(f"gray{end}", prefix, service, weight=0, timeout_ms=20000, **extra, **options)
        if stable:
            text += mapping(f"stable{end}", prefix, "stable", timeout_ms=20000, **options)
    return text


class Gray:
    """What gray was asked, and whether its connections ended."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.ended = 0

    def took(self, path: bytes) -> int:
        """How many requests for a path came."""
        return sum(path in seen.line for seen in self.seen)

    async def __call__(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            kind = head.line.split()[1].rpartition(b"/")[2].split(b"?")[0].decode()
            self.seen.append(head)
            if kind == "accept":
                await _echo(peer, head, b"gray: ")
                self.ended += 1
                return
            if kind == "early":
                # Before the body of the request has come.
                await peer.answer(b"gray", status=b"503 Early")
                await peer.rest_of(head)
                continue
            request = await peer.rest_of(head)
            if kind.isdigit():
                await peer.answer(b"gray", status=kind.encode() + b" Gray")
            elif not await _fail(peer, kind, request):
                self.ended += 1
                return


async def _echo(peer: Peer, head: Seen, prefix: bytes) -> None:
    """Accept a websocket, and send its first message back; "cut" cuts the connection instead."""
    key = next(line[19:] for line in head.headers if line.lower().startswith(b"sec-websocket-key: "))
    accept = accept_key(key.decode()).encode()
    lines = [b"HTTP/1.1 101 Switching Protocols", b"upgrade: websocket", b"connection: upgrade"]
    await peer.send(b"\r\n".join([*lines, b"sec-websocket-accept: " + accept, b"", b""]))
    first = await peer.reader.readexactly(2)
    masked = await peer.reader.readexactly(4 + (first[1] & 0x7F))
    text = bytes(byte ^ masked[index % 4] for index, byte in enumerate(masked[4:]))
    if text == b"cut":
        peer.reset()
        return
    await peer.send(bytes((0x81, len(prefix + text))) + prefix + text)
    # The other side closes, with 1000.
    await peer.read_some()
    await peer.send(b"\x88\x02\x03\xe8")


async def _fail(peer: Peer, kind: str, request: Seen) -> bool:
    """Fail in one way; returns whether the connection goes on."""
    if kind == "ok":
        await peer.answer(b"gray")
        return True
    texts = {
        "garbage": b"this is not HTTP\r\n\r\n",
        "half": b"HTTP/1.1 503 Gray\r\ncontent-length: 100\r\n\r\nhalf",
        "endless": b"HTTP/1.1 503 Gray\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "cut": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of gray",
        "bare": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
        "hint": b"HTTP/1.1 103 Early Hints\r\nlink: </gray.css>\r\n\r\n",
    }
    if kind in texts:
        await peer.send(texts[kind])
    if kind == "slow":
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nslow ")
        # Time has to pass: more than the head may take.
        await asyncio.sleep(1.1)
        await peer.send(b"body")
    if kind == "hint":
        await peer.answer(b"gray", status=b"503 Gray")
        return True
    if kind == "reset":
        peer.reset()
    elif kind in ("silent", "half", "endless"):
        await peer.gone()
    return False


class Stable:
    """A stable upstream, and apps that answer as it does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.decisions: list[Any] = []
        self.ids: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            head = await peer.head()
            if any(line.lower() == b"upgrade: websocket" for line in head.headers):
                self.bodies.append(b"websocket")
                await _echo(peer, head, b"stable: ")
                return
            request = await peer.rest_of(head)
            self.bodies.append(request.body)
            self.ids += [line for line in request.headers if line.startswith(b"x-request-id")]
            if b"/down" in request.line:
                return
            await peer.answer(b"stable: " + request.body)

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.decisions.append(scope["canary_mw"])
        if scope["type"] == "websocket":
            self.bodies.append(b"websocket")
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": "stable: " + message["text"]})
            return
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request", message
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        answer = b"stable: " + body
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def wsgi(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        self.decisions.append(environ["canary_mw.decision"])
        body = environ["wsgi.input"].read() if environ.get("CONTENT_LENGTH") else b""
        self.bodies.append(body)
        answer = b"stable: " + body
        start_response("200 OK", [("content-length", str(len(answer)))])
        return [answer]


class World(NamedTuple):
    """What a test sees: the port to ask, both variants, the nets with their counters."""

    port: int
    gray: Gray
    stable: Stable
    nets: SafetyNets
    app: Any

    def failures(self) -> dict[tuple[str, str, str], int]:
        """Failures of gray by release, variant and kind."""
        return {tuple(key): count for key, count in self.nets.counters.failures().items()}  # type: ignore[misc]

    def has_failures(self, number: int) -> bool:
        """Whether gray has failed so often."""
        return sum(self.failures().values()) == number

    def results(self) -> dict[tuple[str, str], int]:
        """Fallbacks by kind and result."""
        return {(key.kind, result): count for (key, result), count in self.nets.counters.fallbacks().items()}


@contextlib.asynccontextmanager
async def world(
    place: str,
    fallback: str = "{}",
    *,
    text: str | None = None,
    tmp_path: Path | None = None,
    observer: Observer | None = None,
    dead: int = 0,
    **options: Any,
) -> AsyncIterator[World]:
    """Both variants on real ports, and a place before them.

    Args:
        dead: the port of the service of that name, by default one where nobody listens.
    """
    shell, _, side = place.partition("/")
    gray, stable = Gray(), Stable()
    async with serving(gray) as gray_upstream, serving(stable) as upstream:
        ports = {"gray": gray_upstream.origin.port, "stable": upstream.origin.port, "dead": dead or free_port()}
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        text = text or rules(fallback, stable=side != "app")
        if shell == "proxy":
            assert tmp_path is not None
            file = tmp_path / "rules.yaml"
            file.write_text(text)
            app = Noting(file, 1, records=observer, **options)
            app._middleware.upstreams._overrides = {name: parse_origins(name, url) for name, url in urls.items()}
            async with listening(app) as (port, _):
                yield World(port, gray, stable, app._middleware.nets, app)
            return
        use(shell)
        if side == "service":
            options["services"] = {"stable": stable.asgi if shell == "asgi" else stable.wsgi}
        served = middleware(
            stable.asgi if shell == "asgi" else stable.wsgi,
            rules=StaticSource(text),
            upstreams=urls,
            observers=[observer] if observer else [],
            **options,
        )
        async with serving_middleware(served) as port:
            yield World(port, gray, stable, served.nets, served)


class GrayApp:
    """A gray variant that is an app of this process; the end of the path says how it fails."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.closed = 0

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["path"].rpartition("/")[2]
        if scope["type"] == "websocket":
            await self.websocket(kind, receive, send)
            return
        if kind == "raise":
            raise ValueError("a fault of gray")
        if kind != "early":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
            self.bodies.append(body)
        status = int(kind) if kind.isdigit() else 200 if kind == "ok" else 503
        if kind == "hint":
            await send({"type": "http.response.early_hint", "links": []})
        await send({"type": "http.response.start", "status": status, "headers": []})
        try:
            while kind == "endless":
                await send({"type": "http.response.body", "body": b"gray", "more_body": True})
        finally:
            self.closed += 1
        await send({"type": "http.response.body", "body": b"gray"})

    async def websocket(self, kind: str, receive: Receive, send: Send) -> None:
        """Accept a websocket and answer its first message, or deny it."""
        if kind == "early" or (await receive())["type"] != "websocket.connect" or kind.isdigit():
            status = int(kind) if kind.isdigit() else 503
            await send({"type": "websocket.http.response.start", "status": status, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"gray"})
            return
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "gray: " + (await receive())["text"]})

    def wsgi(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        kind = environ["PATH_INFO"].rpartition("/")[2]
        if kind == "raise":
            raise ValueError("a fault of gray")
        if kind != "early":
            self.bodies.append(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        status = kind if kind.isdigit() else "200" if kind == "ok" else "503"
        try:
            start_response(f"{status} Gray", [])
            yield b"gray"
            while kind == "endless":
                yield b"gray"
        finally:
            self.closed += 1


class AppWorld(NamedTuple):
    """What a test of a gray app sees."""

    port: int
    gray: GrayApp
    stable: Stable
    nets: SafetyNets


@contextlib.asynccontextmanager
async def app_world(shell: str, kind: str, side: str, fallback: str) -> AsyncIterator[AppWorld]:
    """A gray app before an upstream, or before another app, that answers for stable.

    Args:
        kind: "local" for the wrapped app as gray, "service" for an app in place of a service.
        side: "upstream" or "app".
    """
    gray, stable = GrayApp(), Stable()
    use(shell)
    mine, other = (gray.asgi, stable.asgi) if shell == "asgi" else (gray.wsgi, stable.wsgi)
    services = {**({} if kind == "local" else {"gray": mine}), **({"stable": other} if side == "app" else {})}
    text = release(fallback).replace("[gray, gray-dead, gray-full, gray-again]", "[gray]")
    text += mapping("gray", "/shop/", "gray", weight=0) + mapping("stable", "/shop/", "stable")
    async with serving(stable) as upstream:
        served = middleware(
            mine if kind == "local" else other,
            rules=StaticSource(text),
            local="gray" if kind == "local" else "",
            services=services,
            upstreams={"stable": f"http://127.0.0.1:{upstream.origin.port}"},
        )
        async with serving_middleware(served) as port:
            yield AppWorld(port, gray, stable, served.nets)
