"""Streams of messages to a gRPC server: flow control, the end by either side, servers that take nothing."""

import threading

import pytest
from grpc_peer import HEADERS, METHOD, Connection, serving

from canary_mw.client.sync.grpc_stream import GrpcStream
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError, UpstreamError
from canary_mw.rules.upstream import Origin

LIMIT = 30.0


def opened(origin: Origin) -> GrpcStream:
    return GrpcStream(origin, TLSContexts(), METHOD, LIMIT)


def test_messages_arrive_in_their_order_and_the_end_is_answered() -> None:
    kept: list[bytes] = []

    def keep(connection: Connection) -> None:
        while connection.read():
            for call in connection.ended():
                kept.extend(connection.messages())
                connection.answer(call, b"")

    # More than the first window of the server.
    sent = [b"one", b"", bytes(200_000), b"last"]
    with serving(keep) as peer:
        stream = opened(peer.origin)
        for message in sent:
            stream.send(message, LIMIT)
        assert stream.is_open()
        stream.close(LIMIT)
    assert kept == sent


def test_a_server_that_reads_nothing_costs_the_limit_and_no_more() -> None:
    done = threading.Event()
    with serving(lambda connection: done.wait(LIMIT)) as peer:
        stream = opened(peer.origin)
        with pytest.raises(UpstreamError, match="before the deadline"):
            stream.send(bytes(200_000), 0.01)
        assert not stream.is_open()
        with pytest.raises(UpstreamError):
            stream.send(b"more", LIMIT)
        stream.close(0.0)
        done.set()


def test_a_stream_that_the_server_ends_takes_no_more() -> None:
    def refuse(connection: Connection) -> None:
        while connection.read() and not connection.messages():
            pass
        connection.h2.send_headers(1, [*HEADERS, ("grpc-status", "12"), ("grpc-message", "no")], end_stream=True)
        connection.flush()
        connection.read_to_end()

    with serving(refuse) as peer:
        stream = opened(peer.origin)
        stream.send(b"first", LIMIT)
        while stream.is_open():
            pass
        with pytest.raises(UpstreamConnectError, match="has ended the stream with status 12 no"):
            stream.send(b"second", LIMIT)
        stream.close(LIMIT)


def test_a_connection_that_is_lost_is_noticed_before_the_next_message() -> None:
    def leave(connection: Connection) -> None:
        while connection.read() and not connection.messages():
            pass

    with serving(leave) as peer:
        stream = opened(peer.origin)
        stream.send(b"first", LIMIT)
        while stream.is_open():
            pass
        stream.close(LIMIT)


def test_nobody_there_is_an_error_of_the_connection() -> None:
    with serving(lambda connection: None) as peer:
        origin = peer.origin
    with pytest.raises(UpstreamConnectError, match="127"):
        opened(origin)
