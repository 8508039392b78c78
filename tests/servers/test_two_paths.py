"""The fast path and the ASGI path do the same: for upstreams, for clients and for observers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import mapping
from standalone import GET, HANDLERS, LARGE, LAST, RULES, Noting, Records, Wire, listening, talk, wire_to
from upstream import OK, Peer, Upstream, serving, until


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return tmp_path / "rules.yaml"


def outcomes(rules: Path, handler: str) -> tuple[list[dict[str, Any]], list[str]]:
    """What observers are notified of, for requests with every kind of end."""
    rules.write_text(RULES + mapping("quick", "/quick/", "shop", timeout_ms=50, rewrite="/quick/"))
    records = Records()
    script: dict[bytes, Callable[[Peer], Awaitable[object]]] = {
        b"/ok": lambda peer: peer.answer(),
        b"/missing": lambda peer: peer.answer(status=b"404 Not Found"),
        b"/large": lambda peer: peer.answer(LARGE),
        b"/stale": lambda peer: reset(peer),
        b"/garbage": lambda peer: peer.send(b"garbage\r\n"),
        b"/cut": lambda peer: cut(peer),
        b"/quick/": lambda peer: peer.gone(),
        b"/think": lambda peer: think(peer),
    }
    thinking = asyncio.Event()

    async def reset(peer: Peer) -> None:
        peer.reset()

    async def cut(peer: Peer) -> None:
        await peer.send(OK + b"content-length: 9\r\n\r\n", b"half")
        peer.finish()

    async def think(peer: Peer) -> None:
        thinking.set()
        await peer.gone()

    async def answering(peer: Peer) -> None:
        while True:
            await script[(await peer.request()).line.split()[1]](peer)

    came: list[str] = []

    async def client_script(_: Wire, app: Noting, upstream: Upstream) -> None:
        port = _.writer.get_extra_info("peername")[1]
        for target in (b"/shop/missing", b"/shop/large", b"/shop/stale", b"/shop/garbage", b"/shop/cut", b"/quick/"):
            async with wire_to(port) as client:
                await primed(client, app)
                await client.get(target)
                came.append(target.decode() + " " + " ".join(app.came))
        async with wire_to(port) as client:
            await primed(client, app)
            await client.ask(GET.replace(b"/shop/", b"/shop/think"))
            await thinking.wait()
            before = len(records.kept)
            client.writer.close()
            await until(lambda: len(records.kept) > before)

    async def primed(client: Wire, app: Noting) -> None:
        assert (await client.get(b"/shop/ok")).status == 200
        app.came.clear()

    talk(rules, answering, client_script, handler=handler, records=records)
    # Each run has an upstream of its own.
    return [{key: value for key, value in each.items() if key != "upstream"} for each in records.dicts()], came


def test_observers_are_notified_of_the_same_on_either_path(rules: Path) -> None:
    (fast, fast_requests), (asgi, asgi_requests) = (outcomes(rules, handler) for handler in HANDLERS)
    assert fast == asgi
    ends = [(each["status"], each["reason"]) for each in fast if "status" in each and each["path"] != "/shop/ok"]
    assert ends == [
        *((404, None), (200, None), (503, "service unavailable"), (502, "bad gateway"), (200, "UpstreamProtocolError")),
        *((504, "gateway timeout"), (None, "client left")),
    ]
    assert [each.split()[1:] for each in asgi_requests] == [["whole"]] * 6
    assert [each.split()[1:] for each in fast_requests] == [[], ["begun"], ["begun"], [], ["begun"], []]


METHODS = [*[b"GET"] * 20, b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"POST", b"PATCH", b"PROPFIND", b"NONSENSE"]
TARGETS = [
    *(
        b"/shop/",
        b"/shop/a.js",
        b"/shop/a/b",
        b"/shop/c?d",
        b"/gray/a",
        b"/shop/a%20b?x=%20y&z",
        b"/shop/./a/../b",
        b"/shop/%2e%2e/",
        b"/shop/a%2fb",
        b"/shop/%00",
    ),
    *(b"/gray/", b"/none", b"//shop/", b"http://else.example/shop/", b"/shop/#a", b"/shop/a?b?c"),
]
REQUEST_LINES = [
    *(b"connection: close", b"connection: keep-alive", b"Connection: x-own, te", b"x-own: 1", b"te: trailers"),
    *(b"x-forwarded-for: 1.2.3.4", b"X-Forwarded-Host: else", b"forwarded: for=1.2.3.4", b"x_forwarded_for: 1.2.3.4"),
    *(b"via: 1.1 else", b"via: 1.1 canary-mw-here", b"x-request-id: mine", b"cookie: a=b", b"cookie: c=d"),
    *(b"gray: true", b"x-blank:", b"x-latin: \xe4", b"x-tab: a\tb", b"accept:  text/html \t", b"expect: 100-continue"),
    *(b"origin: http://a.example", b"access-control-request-method: GET", b"content-length: 0", b"x-bad: \x01"),
    *(b"upgrade: h2c", b"keep-alive: 5", b"proxy-authorization: secret", b"transfer-encoding: gzip", b"host: second"),
]
STATUSES = [
    b"200 OK",
    b"201",
    b"204 No Content",
    b"302 Found",
    b"304 Not Modified",
    b"404 Not Found",
    b"599 Odd",
    b"600 No",
]
ANSWER_LINES = [
    *(b"Content-Type: text/html", b"set-cookie: a=b", b"set-cookie: c=d", b"Connection: x-own", b"x-own: 1"),
    *(b"connection: close", b"keep-alive: 5", b"X-Latin: \xe4", b"server: up", b"x-blank:", b"upgrade: h2c"),
    *(b"x-bad: \x01", b"proxy-authenticate: Basic", b"te: a", b"trailer: x", b"vary: origin", b"x-folded: a\r\n b"),
]
BODIES = [
    (b"content-length: 5", b"hello"),
    (b"Content-Length: 0", b""),
    (b"transfer-encoding: chunked", b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
    (b"transfer-encoding: chunked", b"5\r\nhello\r\n0\r\nx-trailer: 1\r\n\r\n"),
    (b"transfer-encoding: chunked", b"zz\r\n"),
    (b"content-length: 5", b"hello, and more"),
    (b"content-length: 5\r\ncontent-length: 6", b"hello!"),
    (b"content-length: +5", b"hello"),
]
EVERYTHING = RULES + mapping(
    "gray",
    "/gray/",
    "shop-gray",
    add_request_headers="{x-gray: {value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}",
    remove_request_headers="[cookie]",
    add_response_headers="{x-status: {value: '%RESPONSE_CODE%'}, server: {value: gray, append: false}}",
    remove_response_headers="[set-cookie]",
    cors="{origins: ['http://a.example'], methods: [GET], credentials: true}",
    host_rewrite="gray.example",
)


class Pair:
    """Both paths with the same rules; each has an upstream of its own, which sends `answer`."""

    def __init__(self) -> None:
        self.answer = b""
        self.seen: dict[str, list[tuple[int, bytes]]] = {handler: [] for handler in HANDLERS}
        self.ports: dict[str, int] = {}
        self.apps: dict[str, Noting] = {}

    def script(self, handler: str) -> Callable[[Peer], Awaitable[None]]:
        async def script(peer: Peer) -> None:
            while True:
                data = await peer.reader.readuntil(b"\r\n\r\n")
                self.seen[handler].append((peer.number, data))
                if b"x-drawn: yes" in data:
                    await peer.send(self.answer)
                else:
                    await peer.answer()

        return script

    async def got(self, handler: str, request: bytes) -> tuple[bytes, list[tuple[int, bytes]], int]:
        """All bytes that came back, all that the upstream saw, and how many requests took the ASGI path."""
        self.seen[handler].clear()
        async with wire_to(self.ports[handler]) as client:
            await client.ask(GET)
            data = await client.reader.readuntil(b"\r\n\r\nok")
            self.apps[handler].came.clear()
            first = self.seen[handler][0][0]
            # The last one comes behind, so that the end of the one before it can be seen. It must not come in the
            # same read.
            await client.ask(request)
            begun = asyncio.create_task(client.reader.read(65536))
            await until(lambda: begun.done() or len(self.seen[handler]) > 1)
            with contextlib.suppress(ConnectionError):
                await client.ask(LAST)
            data += await begun
            with contextlib.suppress(ConnectionError):
                data += await client.reader.read()
        return (
            data,
            [(number - first, without_id(seen)) for number, seen in self.seen[handler]],
            len(self.apps[handler].came),
        )


def without_id(head: bytes) -> bytes:
    """A request without the id that we gave it."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line[:13] != b"x-request-id:" or line.endswith(b"mine"))


@contextlib.asynccontextmanager
async def both_ways(rules: Path, **options: Any) -> AsyncIterator[Pair]:
    """Both paths with the same rules."""
    pair = Pair()
    async with contextlib.AsyncExitStack() as stack:
        for handler in HANDLERS:
            upstream = await stack.enter_async_context(serving(pair.script(handler)))
            app = pair.apps[handler] = Noting(rules, upstream.origin.port, handler=handler, hop_id="here", **options)
            pair.ports[handler], _ = await stack.enter_async_context(listening(app))
        yield pair


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as found:
        yield found


def test_on_either_path_the_same_bytes_reach_the_upstream_and_the_client(rules: Path, runner: asyncio.Runner) -> None:
    rules.write_text(EVERYTHING)
    context = both_ways(rules)
    pair = runner.run(context.__aenter__())
    fast_path_requests = 0

    @given(
        st.sampled_from(METHODS),
        st.sampled_from(TARGETS),
        st.lists(st.sampled_from(REQUEST_LINES), max_size=2),
        st.sampled_from(STATUSES),
        st.lists(st.sampled_from(ANSWER_LINES), max_size=3),
        st.sampled_from(BODIES),
    )
    def same(
        method: bytes,
        target: bytes,
        lines: list[bytes],
        status: bytes,
        answer_lines: list[bytes],
        body: tuple[bytes, bytes],
    ) -> None:
        nonlocal fast_path_requests
        request = b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), b"host: shop", b"x-drawn: yes", *lines, b"", b""))
        pair.answer = b"\r\n".join((b"HTTP/1.1 " + status, *answer_lines, body[0], b"", body[1]))
        *by_fast_path, asgi_requests = runner.run(pair.got("fast_path", request))
        *by_asgi, all_requests = runner.run(pair.got("asgi", request))
        assert by_fast_path == by_asgi
        fast_path_requests += all_requests - asgi_requests

    same()
    runner.run(context.__aexit__(None, None, None))
    assert fast_path_requests > 10
