"""The client for threads where it differs from that for asyncio: threads, forks, uploads, idle connections, closing."""

import asyncio
import contextlib
import math
import random
import select
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

import pytest
from upstream import CERTIFICATE, OK, Peer, Script, Upstream, answering, forever, req, serving, silent
from upstream import until as until_async

from canary_mw.client.held import Held
from canary_mw.client.limits import Limits
from canary_mw.client.sync import connect
from canary_mw.client.sync import pool as sync_pool
from canary_mw.client.sync.client import SyncHTTP11Client, SyncHTTP11Response
from canary_mw.client.sync.connection import SyncConnection
from canary_mw.client.sync.pool import Grant, SyncPool
from canary_mw.client.tls import ConnectionSecurity, TLSContexts
from canary_mw.exceptions import (
    ClientDisconnected,
    UpstreamConnectError,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import BodyFraming
from canary_mw.rules.upstream import CircuitBreakers, Origin, UpstreamOptions

CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def served(script: Script, *, tls: bool = False) -> Iterator[Upstream]:
    """An upstream in a thread of its own."""
    started: Future[tuple[Upstream, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        over = asyncio.Event()
        async with serving(script, tls=tls) as upstream:
            started.set_result((upstream, asyncio.get_running_loop(), over))
            await over.wait()
            # The server accepts the last connections here, and closes them below.
            await turns()
        await turns()

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, main())
        upstream, loop, over = started.result()
        try:
            yield upstream
        finally:
            loop.call_soon_threadsafe(over.set)
            running.result()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.contextmanager
def made(**options: Any) -> Iterator[SyncHTTP11Client]:
    client = SyncHTTP11Client(**options)
    try:
        yield client
    finally:
        client.close()


def whole(response: SyncHTTP11Response) -> bytes:
    chunks = []
    while chunk := response.read():
        chunks.append(chunk)
    response.close()
    return b"".join(chunks)


def get(client: SyncHTTP11Client, upstream: Upstream, request: UpstreamRequest | None = None) -> bytes:
    return whole(client.send(upstream.origin, request or req()))


def until(condition: Callable[[], object]) -> None:
    """Poll for a state that has no notification."""
    while not condition():
        threading.Event().wait(0.001)


def pools(client: SyncHTTP11Client) -> list[SyncPool[SyncConnection]]:
    return list(client._pools.values())


# Threads


class Echo(asyncio.Protocol):
    """Answers with the path of the request, framed at random; records requests that come before the last answer."""

    def __init__(self, seen: "Seen") -> None:
        self.seen = seen
        self.busy = False
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.seen.accepted += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.busy or self.buffer.count(b"\r\n\r\n") != 1 or not self.buffer.endswith(b"\r\n\r\n"):
            self.seen.faults.append(f"out of turn: {self.buffer!r}")
        self.busy = True
        path = self.buffer.split(b" ")[1]
        self.buffer = b""
        kind = random.randrange(20)
        asyncio.get_running_loop().call_later(random.random() / 1000, self.answer, path, kind)

    def answer(self, path: bytes, kind: int) -> None:
        self.busy = False
        half = len(path) // 2
        if kind == 0:
            self.transport.write(b"HTTP/1.0 200 OK\r\n\r\n" + path)
            self.transport.close()
        elif kind == 1:
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (path[:half], path[half:]))
            self.transport.write(CHUNKED + chunks + b"0\r\n\r\n")
        elif kind == 2:
            self.transport.write(OK + b"content-length: %d\r\n\r\n" % len(path) + path[:half])
            asyncio.get_running_loop().call_soon(self.transport.write, path[half:])
        else:
            self.transport.write(OK + b"content-length: %d\r\n\r\n" % len(path) + path)


class Seen:
    def __init__(self) -> None:
        self.accepted = 0
        self.faults: list[str] = []


def test_sixteen_threads_never_share_a_connection_nor_mix_up_their_answers() -> None:
    threads, each = 16, 625
    seen = Seen()
    listening: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Echo(seen), "127.0.0.1", 0, backlog=128)
        async with server:
            listening.set_result((server.sockets[0].getsockname()[1], loop, over))
            await over.wait()

    def work(number: int) -> int:
        right = 0
        for turn in range(each):
            path = b"/%d/%d/%d" % (number, turn, random.getrandbits(64))
            response = client.send(origin, req(target=path))
            right += (response.take() or whole(response)) == path
            response.close()
        return right

    with ThreadPoolExecutor(threads + 1) as executor, made(limits=Limits(max_connections=10)) as client:
        running = executor.submit(asyncio.run, main())
        port, loop, over = listening.result()
        origin = Origin("http", "127.0.0.1", port)
        assert list(executor.map(work, range(threads))) == [each] * threads
        (pool,) = pools(client)
        assert pool._size == len(pool._idle) == len(pool._alive) <= 10
        assert not pool._waiters
        assert not pool._connecting
        client.close()
        loop.call_soon_threadsafe(over.set)
        running.result()
    assert not seen.faults
    # One in 20 answers ends its connection.
    assert seen.accepted < threads * each / 10


def test_a_request_that_waits_is_given_the_connection_that_comes_back() -> None:
    go = threading.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.to_thread(go.wait)
            await peer.answer(b"%d" % peer.number)

    with (
        served(script) as upstream,
        made(limits=Limits(max_connections=1, max_pending=3)) as client,
        ThreadPoolExecutor(4) as executor,
    ):
        waiting = [executor.submit(get, client, upstream) for _ in range(4)]
        until(lambda: client.held() == {upstream.origin: Held(1, 3)})
        with pytest.raises(UpstreamConnectError, match="too many requests waiting"):
            get(client, upstream)
        go.set()
        assert [each.result() for each in waiting] == [b"1"] * 4


@pytest.mark.parametrize("options", [{"timeout": 0.02}, {"options": UpstreamOptions(idle_timeout=0.02)}])
def test_who_waits_for_a_connection_gives_up_at_its_deadline(options: dict[str, Any]) -> None:
    with (
        served(silent) as upstream,
        made(limits=Limits(max_connections=1)) as client,
        ThreadPoolExecutor(1) as executor,
    ):
        first = executor.submit(get, client, upstream)
        until(lambda: upstream.accepted)
        with pytest.raises(UpstreamTimeout, match="waiting for a free connection") as caught:
            get(client, upstream, req(**options))
        assert not caught.value.sent
        assert not pools(client)[0]._waiters
        client.close()
        with pytest.raises(UpstreamConnectError):
            first.result()


def test_under_circuit_breakers_a_thread_that_opens_its_connection_is_pending_too() -> None:
    options = UpstreamOptions(circuit_breakers=CircuitBreakers(max_connections=2, max_pending_requests=1))
    with served(Peer.gone) as upstream, made() as client, ThreadPoolExecutor(1) as executor:
        origin = upstream.origin._replace(scheme="https")
        request = req(options=options, connect_timeout=0.5)
        connecting = executor.submit(client.send, origin, request)
        until(lambda: upstream.accepted)
        with pytest.raises(UpstreamOverloaded):
            client.send(origin, request)
        with pytest.raises(UpstreamConnectError, match="no connection within"):
            connecting.result()
        assert pools(client)[0]._size == 0


class LateWaiter(SimpleQueue[Grant[SyncConnection]]):
    """Is granted something at the moment when its wait ends by an error."""

    def __init__(self, end: type[BaseException]) -> None:
        self.end = end

    def get(self, block: bool = True, timeout: float | None = None) -> Grant[SyncConnection]:
        if block:
            raise self.end
        return super().get(block=False)

    def get_nowait(self) -> Grant[SyncConnection]:
        return self.get(block=False)


@pytest.mark.parametrize("end", [Empty, KeyboardInterrupt])
@pytest.mark.parametrize("grant", ["connection", "slot", "nothing"])
def test_what_is_granted_at_the_moment_of_a_timeout_or_interruption_is_not_lost(
    end: type[BaseException], grant: str
) -> None:
    with served(forever) as upstream, made(limits=Limits(max_connections=1)) as client:
        get(client, upstream)
        (pool,) = pools(client)
        connection = pool.acquire(math.inf, 30.0)
        waiter = LateWaiter(end)
        pool._waiters.append(waiter)
        if grant == "connection":
            pool.release(connection)
        elif grant == "slot":
            connection.fail(UpstreamConnectError("cut"))
        given = end is Empty and grant != "nothing"
        with contextlib.nullcontext() if given else pytest.raises((UpstreamTimeout, KeyboardInterrupt)):
            assert pool._wait(waiter, monotonic()) is (connection if grant == "connection" else None)
        assert not pool._waiters
        if given and grant == "slot":
            pool._return_slot()
        elif given or grant == "nothing":
            pool.release(connection)
        assert get(client, upstream) == (b"2" if grant == "slot" else b"1")
        assert (pool._size, pool._connecting) == (1, 0)


def test_a_connection_that_died_on_its_way_to_one_who_waits_is_replaced() -> None:
    with served(forever) as upstream, made(limits=Limits(max_connections=1)) as client:
        get(client, upstream)
        (pool,) = pools(client)
        connection = pool.acquire(math.inf, 30.0)
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(get, client, upstream)
            until(lambda: pool._waiters)
            connection._sock.shutdown(socket.SHUT_RDWR)
            pool.release(connection)
            assert waiting.result() == b"2"


def test_a_connection_released_after_take_is_found_while_queueing() -> None:
    with served(forever) as upstream, made() as client:
        get(client, upstream)
        (pool,) = pools(client)
        connection = pool._wait(pool._enqueue(fresh=False), math.inf)
        assert connection is not None
        pool.release(connection)
        assert upstream.accepted == 1


# Idle connections


def test_an_answer_planted_on_an_idle_connection_is_nobodys() -> None:
    planted = threading.Event()
    plant: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    closed = threading.Event()

    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await forever(peer)
        go = asyncio.Event()
        plant.set_result((asyncio.get_running_loop(), go))
        await peer.request()
        await peer.answer(b"good")
        await go.wait()
        await peer.send(OK + b"content-length: 4\r\n\r\nevil")
        planted.set()
        await peer.gone()
        closed.set()

    with served(script) as upstream, made() as client:
        assert get(client, upstream) == b"good"
        loop, go = plant.result()
        loop.call_soon_threadsafe(go.set)
        assert planted.wait(10)
        assert get(client, upstream, req("POST", body=BodyFraming(0))) == b"2"
        assert closed.wait(10)


def test_bytes_beyond_an_answer_spoil_the_connection_but_not_the_answer() -> None:
    go, sent = threading.Event(), threading.Event()

    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await forever(peer)
        await peer.request()
        await peer.send(OK + b"content-length: 4\r\n\r\ngo")
        await asyncio.to_thread(go.wait)
        await peer.send(b"od", b"evil")
        sent.set()
        await peer.gone()

    with served(script) as upstream, made() as client:
        response = client.send(upstream.origin, req())
        go.set()
        assert sent.wait(10)
        assert whole(response) == b"good"
        assert get(client, upstream) == b"2"


class Stub:
    """A socket on which only a TLS record without application data arrives."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real

    def recv(self, size: int) -> bytes:
        raise ssl.SSLWantReadError

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.real.close()


def replace_socket(connection: SyncConnection, sock: Stub) -> None:
    """Have a connection use a socket that is not a plain `socket.socket`, as under TLS."""
    connection._sock = sock  # type: ignore[assignment]
    connection._keeps_lock = False


@pytest.mark.parametrize(("news", "reusable"), [("record", True), ("data", False), ("end", False), ("reset", False)])
def test_an_idle_connection_is_checked_before_it_is_used(news: str, reusable: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.read_some()
        if news == "reset":
            peer.reset()
        elif news != "end":
            await peer.send(b"x")
            await peer.gone()

    with served(script) as upstream, made() as client:
        get(client, upstream)
        connection = pools(client)[0].take()
        assert connection is not None
        assert connection.is_reusable()
        real = connection._sock
        real.send(b"go on")
        select.select([real], [], [])
        if news == "record":
            replace_socket(connection, Stub(real))
        assert connection.is_reusable() is reusable
        connection.fail(UpstreamConnectError("done"))


@pytest.mark.parametrize(
    ("limits", "options"),
    [
        (Limits(keepalive_expiry=0.0), UpstreamOptions()),
        (Limits(), UpstreamOptions(keepalive_expiry=0.0)),
        (Limits(), UpstreamOptions(max_connection_lifetime=0.0)),
    ],
)
def test_a_connection_is_not_kept_where_the_time_for_it_is_nought(limits: Limits, options: UpstreamOptions) -> None:
    with served(forever) as upstream, made(limits=limits) as client:
        for number in (b"1", b"2"):
            assert get(client, upstream, req(options=options)) == number
            assert not pools(client)[0]._size


def test_a_connection_too_old_is_not_taken() -> None:
    with served(forever) as upstream, made(limits=Limits(keepalive_expiry=0.02)) as client:
        get(client, upstream)
        (pool,) = pools(client)
        expires = pool._idle.next_expiry()
        until(lambda: expires is not None and monotonic() >= expires)
        assert get(client, upstream) == b"2"


def test_what_was_idle_for_too_long_is_closed_when_other_requests_come() -> None:
    with served(forever) as one, served(forever) as two, made() as client:
        get(client, one)
        client._sweep(monotonic() + 30)
        assert len(pools(client)[0]._idle) == 1
        client._sweep(monotonic() + 61)
        until(lambda: not one.scripts)
        assert not client._pools
        client._sweep_at = 0.0
        get(client, two)
        assert client._sweep_at > monotonic()
        assert [pool.origin for pool in pools(client)] == [two.origin]


def test_two_threads_do_not_sweep_at_once() -> None:
    with served(forever) as upstream, made() as client:
        get(client, upstream)
        with client._sweep_lock:
            client._sweep(monotonic() + 61)
        assert client._pools


def test_a_request_that_found_its_pool_before_it_was_dropped_leaves_nothing_behind() -> None:
    with served(forever) as upstream, made(limits=Limits(keepalive_expiry=60)) as client:
        pool = client._pool(upstream.origin)
        client._sweep(monotonic())
        assert not client._pools
        connection = pool.acquire(math.inf, 30.0)
        pool.release(connection)
        assert connection.closed
        assert not pool._size


def test_a_fresh_connection_takes_the_slot_of_the_oldest_idle_one() -> None:
    with served(forever) as upstream, made(limits=Limits(max_connections=1)) as client:
        get(client, upstream)
        (pool,) = pools(client)
        connection = pool.acquire(math.inf, 30.0, fresh=True)
        assert not connection.reused
        pool.release(connection)
        assert pool._size == 1
        until(lambda: upstream.accepted == 2)


# Uploads


def test_a_body_that_fails_while_the_answer_is_read_fails_the_read() -> None:
    answered = threading.Event()

    def leaving() -> Iterator[bytes]:
        yield b"x"
        assert answered.wait(10)
        yield b"y"
        raise ClientDisconnected("left")

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"content-length: 5\r\n\r\nab")
        answered.set()
        await peer.gone()

    with served(script) as upstream, made() as client:
        response = client.send(upstream.origin, req("POST", body=BodyFraming(None)), leaving())
        assert response.read() == b"ab"
        for _ in range(2):
            with pytest.raises(ClientDisconnected):
                response.read()
        response.close()


def test_an_answer_that_begins_before_the_end_of_the_body_is_read_while_the_rest_goes_up() -> None:
    block, count = b"x" * 65536, 200

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"content-length: %d\r\n\r\n" % (len(block) * count))
        left = len(block) * count
        while left:
            data = await peer.read_some()
            left -= len(data)
            await peer.send(data)
        await peer.gone()

    with served(script) as upstream, made() as client:
        request = req("POST", body=BodyFraming(len(block) * count))
        response = client.send(upstream.origin, request, iter([block] * count))
        assert whole(response) == block * count
        assert pools(client)[0]._idle


def test_a_body_is_asked_for_nothing_more_once_the_answer_is_complete() -> None:
    answered = threading.Event()
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"x"
            assert answered.wait(10)

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"too large", status=b"413 Content Too Large")
        answered.set()
        await peer.gone()

    with served(script) as upstream, made() as client:
        response = client.send(upstream.origin, req("POST", body=BodyFraming(None)), endless())
        assert (response.head.status, response.take()) == (413, b"too large")
        assert asked <= 3
        assert not pools(client)[0]._size


@pytest.mark.parametrize("goodbye", ["finish", "reset"])
def test_an_early_answer_to_a_body_that_is_there_whole_comes_through(goodbye: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"too large", status=b"413 Content Too Large")
        if goodbye == "reset":
            peer.reset()

    body = b"x" * 20_000_000
    with served(script) as upstream, made() as client:
        response = client.send(upstream.origin, req("POST", body=BodyFraming(len(body))), body)
        assert (response.head.status, whole(response)) == (413, b"too large")
        assert not pools(client)[0]._size


class Cut(Stub):
    """A socket that blocks the first send and fails the second; what was received can still be read."""

    def __init__(self, real: socket.socket) -> None:
        super().__init__(real)
        self.blocked = 1
        self.lost = threading.Event()

    def send(self, data: bytes) -> int:
        if self.blocked:
            self.blocked -= 1
            raise BlockingIOError
        self.lost.set()
        select.select([self.real], [], [])
        raise BrokenPipeError

    def recv(self, size: int) -> bytes:
        return self.real.recv(size)


@pytest.mark.parametrize("whole_answer", [True, False])
def test_an_answer_is_found_behind_the_end_that_a_send_runs_into(whole_answer: bool) -> None:
    cut: Future[Cut] = Future()

    async def script(peer: Peer) -> None:
        assert await asyncio.to_thread(lambda: cut.result().lost.wait(30))
        await peer.send(OK + b"content-length: 4\r\n\r\nab" + b"cd" * whole_answer)

    with served(script) as upstream, made() as client:
        pool = client._pool(upstream.origin)
        connection = pool.acquire(math.inf, 30.0)
        cut.set_result(Cut(connection._sock))
        replace_socket(connection, cut.result())
        connection.exchange(b"GET", False, math.inf, None, UpstreamOptions())
        assert connection.take_buffered() == b"ab" + b"cd" * whole_answer
        assert connection.closed
        assert connection.complete is whole_answer
        assert whole_answer or isinstance(connection.error, UpstreamProtocolError)
        assert not pool._size


def test_a_send_error_that_leaves_nothing_to_read_ends_the_exchange() -> None:
    with served(forever) as upstream, made() as client:
        connection = client._pool(upstream.origin).acquire(math.inf, 30.0)
        replace_socket(connection, Lost(connection._sock))
        with pytest.raises(UpstreamConnectError, match="lost before a response"):
            connection.exchange(b"GET", False, math.inf, None, UpstreamOptions())


class Lost(Stub):
    """A socket whose sends fail and that has nothing to read."""

    def send(self, data: bytes) -> int:
        raise OSError("no buffer space")


def test_an_upload_that_is_cut_off_without_an_answer_is_a_connect_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    with served(script) as upstream, made() as client:
        with pytest.raises(UpstreamConnectError, match="lost before a response") as caught:
            client.send(upstream.origin, req("POST", body=BodyFraming(None)), iter([b"x" * 65536] * 1000))
        assert caught.value.sent


def test_an_upload_that_nobody_reads_ends_at_the_deadline() -> None:
    with served(answering_never) as upstream, made() as client:
        request = req("POST", body=BodyFraming(None), timeout=0.2)
        with pytest.raises(UpstreamTimeout, match="no answer before the deadline"):
            client.send(upstream.origin, request, iter([b"x" * 65536] * 1000))
        until(lambda: not upstream.scripts)


async def answering_never(peer: Peer) -> None:
    """Reads nothing until the client has closed."""
    await peer.head()
    peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
    while not peer.writer.is_closing():
        await asyncio.sleep(0.001)
        with contextlib.suppress(OSError):
            peer.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def test_a_body_slower_than_the_deadline_is_cut_off_as_soon_as_it_goes_on() -> None:
    late = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"x"
        late.wait(0.05)
        yield b"y"
        raise AssertionError("asked for more after the deadline")

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    for options in ({"timeout": 0.02}, {"options": UpstreamOptions(idle_timeout=0.02)}):
        with served(script) as upstream, made() as client:
            request = req("POST", body=BodyFraming(None), **options)
            with pytest.raises(UpstreamTimeout):
                client.send(upstream.origin, request, slow())


def test_what_is_raised_past_all_errors_closes_the_connection_too() -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"x"
        raise KeyboardInterrupt

    rest: Future[bytes] = Future()

    async def script(peer: Peer) -> None:
        await peer.head()
        rest.set_result(await peer.gone())

    with served(script) as upstream, made() as client:
        with pytest.raises(KeyboardInterrupt):
            client.send(upstream.origin, req("POST", body=BodyFraming(None)), interrupted())
        assert not rest.result().endswith(b"0\r\n\r\n")
        assert not pools(client)[0]._size


# Limits of time


def test_nothing_moving_for_too_long_is_a_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n")
        await peer.gone()

    with served(script) as upstream, made() as client:
        response = client.send(upstream.origin, req(options=UpstreamOptions(idle_timeout=0.2)))
        with pytest.raises(UpstreamTimeout, match=r"0\.2 s without a byte"):
            whole(response)


def test_a_reader_slower_than_the_idle_time_loses_nothing_that_had_come() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n")
        await peer.gone()

    with served(script) as upstream, made() as client:
        response = client.send(upstream.origin, req(options=UpstreamOptions(idle_timeout=0.2)))
        threading.Event().wait(0.3)
        assert whole(response) == b"ab"


def test_a_deadline_that_is_put_off_counts() -> None:
    go = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await asyncio.to_thread(go.wait)
        await peer.send(b"1\r\na\r\n0\r\n\r\n")
        await peer.gone()

    with served(script) as upstream, made() as client:
        until_then = monotonic() + 0.5
        response = client.send(upstream.origin, req(), None, until_then)
        response.move_deadline(math.inf)
        until(lambda: monotonic() > until_then)
        go.set()
        assert whole(response) == b"a"


@pytest.mark.parametrize("forever_", [None, 1e12])
def test_a_time_longer_than_the_system_can_count_is_no_error(forever_: float | None) -> None:
    with served(forever) as upstream, made(limits=Limits(keepalive_expiry=0)) as client:
        request = req(timeout=forever_, connect_timeout=forever_ or math.inf)
        assert get(client, upstream, request) == b"1"


def test_signals_interrupt_no_exchange() -> None:
    stop = threading.Event()
    taken = 0

    def count(*_: object) -> None:
        nonlocal taken
        taken += 1

    def pester(thread: int) -> None:
        while not stop.wait(0.001):
            signal.pthread_kill(thread, signal.SIGUSR1)

    async def script(peer: Peer) -> None:
        await peer.request()
        await until_async(lambda: taken >= 5)
        await peer.answer(b"slow")
        await peer.gone()

    before = signal.signal(signal.SIGUSR1, count)
    try:
        with served(script) as upstream, made() as client, ThreadPoolExecutor(1) as executor:
            pestering = executor.submit(pester, threading.get_ident())
            try:
                assert get(client, upstream) == b"slow"
            finally:
                stop.set()
                pestering.result()
    finally:
        signal.signal(signal.SIGUSR1, before)


# Connecting


def test_all_addresses_of_a_name_are_attempted(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        closed_port = other.getsockname()[1]
    with served(forever) as upstream, made() as client:
        addresses = [("127.0.0.1", closed_port), ("127.0.0.1", upstream.origin.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]
        monkeypatch.setattr("canary_mw.client.sync.connect.socket.getaddrinfo", lambda *_, **__: found)
        assert get(client, upstream) == b"1"
        found.clear()
        with pytest.raises(UpstreamConnectError, match="no address"):
            client.send(upstream.origin._replace(port=1), req())


def test_a_client_that_is_closed_while_a_connection_is_opened_does_not_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def close_then_connect(*arguments: Any) -> socket.socket:
        client.close()
        return connect.connect(*arguments)

    monkeypatch.setattr(sync_pool, "connect", close_then_connect)
    with served(forever) as upstream, made() as client:
        pool = client._pool(upstream.origin)
        with pytest.raises(UpstreamConnectError, match="was closed"):
            get(client, upstream)
        assert not pool._size


def test_an_interrupted_connect_leaves_neither_socket_nor_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with served(forever) as upstream, made() as client:
        for step in ("_remaining", "_wrap_tls"):
            monkeypatch.setattr(connect, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                get(client, upstream)
            monkeypatch.undo()
        assert (pools(client)[0]._size, pools(client)[0]._connecting) == (0, 0)


# TLS


def test_bodies_larger_than_all_buffers_go_both_ways_over_tls() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.answer((await peer.request()).body)

    body = random.randbytes(5_000_000)
    trusting = TLSContexts(default=ssl.create_default_context(cafile=CERTIFICATE))
    with served(script, tls=True) as upstream, made(contexts=trusting) as client:
        for given in (body, iter([body[:1_000_000], body[1_000_000:]])):
            assert whole(client.send(upstream.origin, req("POST", body=BodyFraming(len(body))), given)) == body
        assert upstream.accepted == 1


class Changing(TLSContexts):
    """A context until `renew` is called, then another."""

    def __init__(self) -> None:
        super().__init__()
        self.renew()

    def renew(self) -> None:
        self.current = ssl.create_default_context(cafile=CERTIFICATE)

    def __call__(self, origin: Origin) -> ConnectionSecurity:
        return ConnectionSecurity(self.current, origin.host)


def test_connections_from_before_a_change_of_certificates_take_no_new_request() -> None:
    contexts = Changing()
    go = threading.Event()

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            if b"/slow" in seen.line:
                await peer.send(OK + b"content-length: 4\r\n\r\nsl")
                await asyncio.to_thread(go.wait)
                await peer.send(b"ow")
            else:
                await peer.answer(b"%d" % peer.number)

    with served(script, tls=True) as upstream, made(contexts=contexts) as client:
        slow = client.send(upstream.origin, req(target=b"/slow"))
        other = client.send(upstream.origin, req(target=b"/slow"))
        assert get(client, upstream) == b"3"
        contexts.renew()
        (pool,) = pools(client)
        fresh = pool.acquire(math.inf, 30.0, fresh=True)
        pool.release(fresh)
        assert list(pool._idle) == [fresh]
        go.set()
        assert whole(slow) == whole(other) == b"slow"
        assert list(pool._idle) == [fresh]
        assert get(client, upstream) == b"4"


# The end


def test_closing_the_client_ends_the_exchanges_and_the_waits_of_all_threads() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        await peer.gone()

    with served(script) as upstream, ThreadPoolExecutor(8) as executor:
        client = SyncHTTP11Client(limits=Limits(max_connections=3))
        until_end = client.send(upstream.origin, req())
        assert until_end.read() == b"abc"
        tasks = [executor.submit(get, client, upstream) for _ in range(4)]
        tasks.append(executor.submit(until_end.read))
        (pool,) = pools(client)
        until(lambda: len(pool._waiters) == 2 and upstream.accepted == 3)
        client.close()
        client.close()
        for task in tasks:
            with pytest.raises(UpstreamConnectError, match="was closed"):
                task.result()
        for origin in (upstream.origin, upstream.origin._replace(host="localhost")):
            with pytest.raises(UpstreamConnectError, match="was closed"):
                client.send(origin, req())
        assert not pool._size


def test_an_answer_that_is_closed_gives_no_more() -> None:
    with served(answering(CHUNKED)) as upstream, made() as client:
        response = client.send(upstream.origin, req())
        assert response.take() is None
        response.close()
        with pytest.raises(UpstreamProtocolError, match="closed before its end"):
            response.read()


def test_a_forked_child_uses_none_of_the_connections_of_its_parent() -> None:
    script = """\
        import os, sys
        from canary_mw.client.sync.client import SyncHTTP11Client
        from canary_mw.rules.upstream import Origin; from canary_mw.forwarding.messages import UpstreamRequest

        def get():
            return client.send(origin, UpstreamRequest("shop", "GET", b"/", [(b"host", b"shop")])).read()

        origin = Origin("http", "127.0.0.1", int(sys.argv[1]))
        client = SyncHTTP11Client()
        assert get() == b"1"
        inherited = client._pools[origin].take()
        descriptor = inherited._sock.fileno()
        inherited._pool.release(inherited)
        client._sweep_lock.acquire()
        client._pools[origin]._lock.acquire()
        if not (child := os.fork()):
            assert inherited.closed
            try:
                os.fstat(descriptor)
            except OSError:
                assert get() == b"2"
                client.close()
                sys.exit(7)
            sys.exit("the socket of the parent is open in the child")
        client._pools[origin]._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert get() == b"1"
        client.close()
        """
    with served(forever) as upstream:
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), str(upstream.origin.port)]
        subprocess.run(command, check=True, timeout=30)


def test_an_exchange_that_a_fork_interrupts_fails_in_the_child() -> None:
    async def script(peer: Peer) -> None:
        if peer.number > 1:
            await forever(peer)
        await peer.request()
        await peer.send(OK + b"content-length: 4\r\n\r\nab")
        assert await peer.gone() == b""

    with served(script) as upstream, made() as client:
        response = client.send(upstream.origin, req())
        assert response.read() == b"ab"
        client.abandon()
        client.abandon()
        with pytest.raises(UpstreamConnectError, match="forked"):
            response.read()
        response.close()
        assert get(client, upstream) == b"2"
