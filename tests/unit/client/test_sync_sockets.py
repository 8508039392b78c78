"""Reads and writes that keep the interpreter lock, in each state of a connection."""

import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from canary_mw.client.sync.sockets import MAX_READ, nothing_to_read, receive, send


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
