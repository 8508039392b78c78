"""A target for the whole proxy: what a client sends, through the standalone server, to an upstream and back."""

import asyncio
from collections.abc import Callable, Iterator
from functools import cache

import uvicorn
from uvicorn.server import ServerState

from canary_mw.control.sources.static import StaticSource
from canary_mw.http.authority import check_host
from canary_mw.http.response_writer import ERROR_RESPONSES
from canary_mw.server.app import Proxy
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.server.settings import Settings

from . import strict
from .heads import HOP_BY_HOP, RULES
from .pipes import Pipe, cut, deliver, settled
from .plans import planned

OWN_ANSWERS = frozenset((b"301", b"400", b"403", b"404", b"408", b"431", b"508"))
_SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Upstream(Pipe):
    """A connection whose far end answers every request that is complete, one after the other.

    Attributes:
        seen: requests that came, over all connections.
        slowly: each answer in two segments.
    """

    def __init__(self, protocol: asyncio.Protocol, seen: list[strict.Message], *, slowly: bool) -> None:
        super().__init__(protocol)
        self._seen = seen
        self._slowly = slowly
        self._read = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        super().write(data)
        try:
            message = strict.request(bytes(self.written), self._read)
        except strict.Incomplete:
            return
        assert message.end == len(self.written), "more than one request at once"
        self._read = message.end
        self._seen.append(message)
        asyncio.get_running_loop().call_soon(self._answer, message.line[0] == b"HEAD")

    def _answer(self, head_only: bool) -> None:
        if self.is_closing():
            return
        head, body = (_CHUNKED, b"2\r\nok\r\n0\r\n\r\n") if self._slowly else (_SIZED, b"ok")
        if head_only or not self._slowly:
            self.protocol.data_received(head + b"" if head_only else head + body)
            return
        self.protocol.data_received(head)
        asyncio.get_running_loop().call_soon(self._rest, body)

    def _rest(self, body: bytes) -> None:
        if not self.is_closing():
            self.protocol.data_received(body)


@cache
def proxy(*, with_module: bool) -> Proxy:
    """The proxy under the rules of `heads`, without its watcher.

    Args:
        with_module: the request policy of the Module is in force, so that no request takes the fast path.
    """
    left_out = ["shadow: true"] if with_module else ["shadow: true", "kind: Module"]
    rules = [each for each in RULES.split("---\n") if not any(text in each for text in left_out)]
    made = Proxy(Settings(admin_port=0, upstream=("*=http://127.0.0.1:9",)))
    made.store.source = StaticSource("---\n".join(rules))
    assert made.store.reload()
    for name in ("start", "stop"):
        setattr(made.store, name, lambda: None)
    return made


@cache
def _config(app: Proxy) -> uvicorn.Config:
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False)
    config.load()
    return config


async def passed(
    app: Proxy, segments: Iterator[bytes], *, turns: int, slowly: bool
) -> tuple[bytes, list[strict.Message]]:
    """What a client gets for what it sends, and what upstreams got meanwhile."""
    seen: list[strict.Message] = []

    async def connect(
        factory: Callable[[], asyncio.Protocol], *_: object, **__: object
    ) -> tuple[Pipe, asyncio.Protocol]:
        protocol = factory()
        upstream = Upstream(protocol, seen, slowly=slowly)
        protocol.connection_made(upstream)
        return upstream, protocol

    setattr(asyncio.get_running_loop(), "create_connection", connect)  # noqa: B010 - a method is not assigned to
    app._middleware.start()
    state = ServerState()
    protocol = GuardedProtocol(_config(app), state, {})
    client = Pipe(protocol)
    protocol.connection_made(client)
    await deliver(client, segments, turns=turns)
    await settled(lambda: not state.tasks, 200)
    client.leave()
    await settled(lambda: not state.tasks)
    assert not state.tasks, "the client has disconnected, and a request goes on"
    await app._middleware.aclose()
    return bytes(client.written), seen


def whole_proxy(data: bytes) -> None:
    """What a client sends, to the proxy: upstreams get what a strict parser reads, no more; so does the client.

    Every request that an upstream gets is one that the client sent, in order, with its body, one Host and nothing for
    one hop only; every request has one answer at most.
    """
    flags, step, sent = planned(data)
    app = proxy(with_module=bool(flags & 1))
    # With a pause between them the second request and later ones take the fast path.
    segments = by_heads(sent) if flags & 8 else cut(sent, step if flags & 4 else 0)
    written, seen = asyncio.run(passed(app, segments, turns=30 if flags & 8 else 1, slowly=bool(flags & 2)))
    judge = strict.requests(sent)
    left = iter(judge)
    for message in seen:
        check_seen(message)
        assert any(_same(message, each) for each in left), "a request that nobody sent"
    check_written(written, [each.line[0] for each in judge])


def by_heads(data: bytes) -> Iterator[bytes]:
    """Segments that end where heads do."""
    *heads, rest = data.split(b"\r\n\r\n")
    yield from (head + b"\r\n\r\n" for head in heads)
    if rest:
        yield rest


def check_seen(message: strict.Message) -> None:
    """Raise unless what an upstream got is clean."""
    (host,) = message.values(b"host")
    if host:
        check_host(host)
    names = [name for name, _ in message.headers]
    assert (HOP_BY_HOP | {b"expect"}).isdisjoint(names)
    assert names.count(b"via") == names.count(b"x-forwarded-for") == 1


def _same(seen: strict.Message, sent: strict.Message) -> bool:
    return (seen.line[0], seen.body) == (sent.line[0], sent.body)


def check_written(written: bytes, methods: list[bytes]) -> None:
    """Raise unless the client gets one answer to each request at most, and then at most a refusal."""
    written = written.removesuffix(b"HTTP/1.1 100 Continue\r\n\r\n")
    at = count = 0
    while at < len(written):
        # A refusal has its text even for HEAD: nothing comes behind it.
        known = count < len(methods) and written[at:] not in ERROR_RESPONSES.values()
        message = strict.answer(written, methods[count] if known else b"GET", at)
        assert message.line[1] == b"200" or message.line[1] in OWN_ANSWERS
        at = message.end
        count += 1
    assert count <= len(methods) + 1, "more answers than requests"
