"""Reads and writes that keep the interpreter lock, in each state of a connection, and where the client uses them."""

import asyncio
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest
from threaded import ThreadedClient
from upstream import CERTIFICATE, Peer, get, serving

from canary_mw.client.sync import sockets
from canary_mw.client.sync.sockets import MAX_READ, PLAIN_SOCKETS, nothing_to_read, receive, send
from canary_mw.client.tls import TLSContexts


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection. The sockets block: calls of the standard library would wait."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours, theirs:
            yield ours, theirs


def wait_readable(sock: socket.socket) -> None:
    """Wait until something is there to be read, without reading it."""
    sock.recv(1, socket.MSG_PEEK)


def test_what_was_sent_is_received() -> None:
    with pair() as (ours, theirs):
        assert send(ours.fileno(), b"ping") == 4
        assert theirs.recv(10) == b"ping"
        theirs.send(b"pong")
        wait_readable(ours)
        assert not nothing_to_read(ours.fileno())
        assert receive(ours.fileno()) == b"pong"


def test_nothing_to_read_is_no_end_and_does_not_block() -> None:
    with pair() as (ours, _):
        assert receive(ours.fileno()) is None
        assert nothing_to_read(ours.fileno())


def test_an_end_is_reported_each_time() -> None:
    with pair() as (ours, theirs):
        theirs.shutdown(socket.SHUT_WR)
        wait_readable(ours)
        assert not nothing_to_read(ours.fileno())
        assert receive(ours.fileno()) == b""
        assert receive(ours.fileno()) == b""


def test_a_reset_is_an_error() -> None:
    with pair() as (ours, theirs):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        with pytest.raises(ConnectionResetError):
            wait_readable(ours)
        with pytest.raises(BrokenPipeError):
            send(ours.fileno(), b"ping")
        assert not nothing_to_read(ours.fileno())


def test_a_closed_socket_is_an_error() -> None:
    with pair() as (ours, _):
        ours.close()
        assert not nothing_to_read(ours.fileno())
        with pytest.raises(OSError, match="Bad file descriptor"):
            receive(ours.fileno())


def test_a_full_connection_takes_some_and_then_nothing() -> None:
    with pair() as (ours, theirs):
        data = b"x" * MAX_READ
        total = 0
        while taken := send(ours.fileno(), data):
            total += taken
        ours.shutdown(socket.SHUT_WR)
        with theirs.makefile("rb") as file:
            assert len(file.read()) == total


def test_long_data_comes_in_chunks() -> None:
    with pair() as (ours, theirs):
        threading.Thread(target=theirs.sendall, args=(b"x" * 3 * MAX_READ,)).start()
        chunks: list[bytes] = []
        while sum(len(chunk) for chunk in chunks) < 3 * MAX_READ:
            wait_readable(ours)
            chunks.append(receive(ours.fileno()) or b"")
        assert max(len(chunk) for chunk in chunks) <= MAX_READ


def test_no_other_thread_runs_meanwhile() -> None:
    turns = [0]
    over = threading.Event()

    def take_turns() -> None:
        while not over.is_set():
            turns[0] += 1
            time.sleep(0)

    before = sys.getswitchinterval()
    # No thread is forced to release the lock: the other one runs only if a call releases it.
    sys.setswitchinterval(60)
    other = threading.Thread(target=take_turns)
    other.start()
    try:
        with pair() as (ours, theirs):
            while not turns[0]:
                time.sleep(0)
            descriptor, peer = ours.fileno(), theirs.fileno()
            at_first = turns[0]
            for _ in range(100):
                send(descriptor, b"ping")
                nothing_to_read(peer)
                receive(peer)
            assert turns[0] == at_first
    finally:
        sys.setswitchinterval(before)
        over.set()
        other.join()


# Where the client uses them.


class Patched(socket.socket):
    """A socket of a library that takes the place of `socket.socket`, as gevent's."""


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that keep the lock, by name. The machine has two cores."""
    calls: list[str] = []

    def count(name: str) -> None:
        function = getattr(sockets, name)

        def counted(*args: Any) -> Any:
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(f"canary_mw.client.sync.connection.{name}", counted)

    for name in ("send", "receive", "nothing_to_read"):
        count(name)
    monkeypatch.setattr(sockets, "_CORES", 2)
    monkeypatch.delenv(PLAIN_SOCKETS, raising=False)
    return calls


def ask(at_once: int, *, tls: bool = False) -> None:
    """Three times so many requests at once, by as many threads."""

    async def main() -> None:
        came: list[asyncio.Event] = []

        async def script(peer: Peer) -> None:
            while True:
                await peer.request()
                mine = asyncio.Event()
                came.append(mine)
                if len(came) == at_once:
                    for each in came:
                        each.set()
                    came.clear()
                await mine.wait()
                await peer.answer()

        contexts = TLSContexts(default=ssl.create_default_context(cafile=CERTIFICATE))
        async with serving(script, tls=tls) as upstream, aclosing(ThreadedClient(contexts=contexts)) as client:
            for _ in range(3):
                assert await asyncio.gather(*(get(client, upstream) for _ in range(at_once))) == [b"ok"] * at_once

    asyncio.run(main())


def test_several_threads_keep_the_lock(kept: list[str]) -> None:
    ask(2)
    assert {*kept} == {"send", "receive", "nothing_to_read"}


def test_one_thread_makes_plain_calls(kept: list[str]) -> None:
    ask(1)
    assert kept == []


def test_no_call_through_tls_keeps_the_lock(kept: list[str]) -> None:
    ask(2, tls=True)
    assert kept == []


@pytest.mark.parametrize("value", ["1", "true", "on", " Yes "])
def test_the_environment_turns_them_off(kept: list[str], value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLAIN_SOCKETS, value)
    ask(2)
    assert kept == []


@pytest.mark.parametrize("value", ["", "0", "False"])
def test_the_environment_may_leave_them_on(kept: list[str], value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLAIN_SOCKETS, value)
    ask(2)
    assert kept


def test_patched_sockets_are_left_to_the_library_that_patched_them(
    kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", Patched)
    ask(2)
    assert kept == []


def test_gevent_is_seen() -> None:
    lines = [
        "from gevent import monkey",
        "monkey.patch_all()",
        "import socket",
        "from canary_mw.client.sync.sockets import may_keep_lock",
        "print(may_keep_lock(socket.socket()))",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_on_one_core_all_calls_are_plain(kept: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_CORES", 1)
    ask(2)
    assert kept == []
