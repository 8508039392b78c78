"""Both clients for gRPC against a server that does what the test says: answers, errors, ends, and what is hostile."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
from certificates import OURS, leaf
from certificates import server as tls_server
from grpc_peer import (
    CLIENTS,
    HEADERS,
    METHOD,
    AioTestClient,
    Asked,
    Client,
    Connection,
    SyncTestClient,
    echoing,
    frame,
    go_away,
    prefixed,
    serving,
)
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from canary_mw.client.limits import Limits
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import (
    UpstreamConnectError,
    UpstreamOverloaded,
    UpstreamProtocolError,
    UpstreamTimeout,
)
from canary_mw.rules.upstream import CircuitBreakers, Origin, UpstreamOptions

Pairs = list[tuple[str, str]]


def trusting() -> TLSContexts:
    """TLS that trusts our authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    OURS.configure_trust(context)
    context.set_alpn_protocols(["h2"])
    return TLSContexts(default=context)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    made = CLIENTS[request.param](Limits(), trusting())
    yield made
    made.close()


@contextlib.contextmanager
def aio(limits: Limits = Limits()) -> Iterator[AioTestClient]:  # noqa: B008
    made = AioTestClient(limits, trusting())
    try:
        yield made
    finally:
        made.close()


def swallow(connection: Connection) -> None:
    """Read to the end of the connection without a word."""
    with contextlib.suppress(OSError):
        while connection.sock.recv(65536):
            pass


# Calls and answers.


def test_a_call_is_sent_as_grpc_has_it_and_its_answer_comes_back(client: Client) -> None:
    calls: list[Asked] = []

    def handler(connection: Connection) -> None:
        while (asked := connection.take()) is not None:
            calls.append(asked)
            connection.answer(asked, asked.message[::-1])

    with serving(handler) as peer:
        assert client.call(peer.origin, b"abc", seconds=10) == (0, b"", b"cba")
        assert client.call(peer.origin) == (0, b"", b"")
        assert len(peer.connections) == 1
        headers = calls[0].headers
        milliseconds = headers.pop("grpc-timeout")
        assert milliseconds.endswith("m")
        assert 0 < int(milliseconds[:-1]) <= 10_000
        assert headers == {
            ":method": "POST",
            ":scheme": "http",
            ":path": METHOD.decode(),
            ":authority": peer.origin.authority,
            "te": "trailers",
            "content-type": "application/grpc",
            "x-of": "mine",
        }


def test_messages_larger_than_any_window_pass_in_both_directions(client: Client) -> None:
    message = bytes(range(256)) * 600
    with serving() as peer:
        for _ in range(2):
            assert client.call(peer.origin, message).message == message
        assert len(peer.connections) == 1


def test_a_status_and_its_text_are_an_answer(client: Client) -> None:
    def handler(connection: Connection) -> None:
        asked = connection.take()
        assert asked is not None
        connection.answer(asked, b"", [("grpc-status", "7"), ("grpc-message", "nobody%20here %E2%82%AC")])
        asked = connection.take()
        assert asked is not None
        # An answer of trailers alone.
        connection.h2.send_headers(asked.stream, [*HEADERS, ("grpc-status", "16")], end_stream=True)
        connection.flush()
        connection.read_to_end()

    with serving(handler) as peer:
        assert client.call(peer.origin) == (7, "nobody%20here %E2%82%AC".replace("%20", " ").encode(), b"")
        assert client.call(peer.origin) == (16, b"", b"")


def test_an_answer_before_the_end_of_the_request_counts_and_ends_it(client: Client) -> None:
    def handler(connection: Connection) -> None:
        while not connection.h2.open_inbound_streams:
            connection.read()
        connection.h2.send_headers(1, [*HEADERS, ("grpc-status", "8")], end_stream=True)
        connection.flush()
        while not connection.reset:
            connection.read()
        echoing(connection)

    with serving(handler) as peer:
        # More than the first windows of the server.
        assert client.call(peer.origin, b"x" * 200_000).status == 8
        assert client.call(peer.origin, b"next").message == b"next"


# The ends of calls and connections.


def test_a_call_ends_at_its_deadline_and_a_silent_connection_gets_no_other(client: Client) -> None:
    def handler(connection: Connection) -> None:
        asked = connection.take()
        assert asked is not None
        connection.answer(asked)
        (swallow if connection.number == 1 else echoing)(connection)

    with serving(handler) as peer:
        assert client.call(peer.origin).status == 0
        with pytest.raises(UpstreamTimeout, match="no answer to the call before the deadline"):
            client.call(peer.origin, seconds=0.1)
        assert client.call(peer.origin, b"next").message == b"next"
        assert len(peer.connections) == 2


def test_a_call_that_ends_at_its_deadline_leaves_a_connection_that_lives(client: Client) -> None:
    def handler(connection: Connection) -> None:
        asked = connection.take()
        assert asked is not None
        connection.h2.send_headers(asked.stream, HEADERS)
        connection.flush()
        while not connection.reset and connection.read():
            pass
        echoing(connection)

    with serving(handler) as peer:
        with pytest.raises(UpstreamTimeout):
            client.call(peer.origin, seconds=0.2)
        assert client.call(peer.origin, b"next").message == b"next"
        assert len(peer.connections) == 1


def test_a_server_that_leaves_finishes_what_it_has_begun(client: Client) -> None:
    def handler(connection: Connection) -> None:
        asked = connection.take()
        assert asked is not None
        if connection.number == 1:
            connection.send(go_away(asked.stream, text=b"restart"))
        connection.answer(asked, b"%d" % connection.number)
        connection.read_to_end()

    with serving(handler) as peer:
        assert client.call(peer.origin).message == b"1"
        assert client.call(peer.origin).message == b"2"


def test_a_call_that_a_server_has_not_begun_is_made_again(client: Client) -> None:
    def handler(connection: Connection) -> None:
        asked = connection.take()
        if connection.number == 1:
            connection.send(go_away(0))
            connection.read_to_end()
        elif asked is not None:
            connection.answer(asked)

    with serving(handler) as peer:
        assert client.call(peer.origin, b"a").message == b"a"
        assert len(peer.connections) == 2


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, ErrorCodes.ENHANCE_YOUR_CALM])
def test_a_call_that_is_reset_is_an_error_and_not_made_again(client: Client, code: ErrorCodes) -> None:
    asked: list[Asked | None] = []

    def handler(connection: Connection) -> None:
        asked.append(connection.take())
        connection.h2.reset_stream(1, code)
        connection.flush()
        connection.read_to_end()

    with serving(handler) as peer, pytest.raises(UpstreamProtocolError, match=code.name):
        client.call(peer.origin)
    assert len(asked) == 1


def test_a_refused_call_is_made_again_once(client: Client) -> None:
    refused: list[Asked] = []

    def handler(connection: Connection) -> None:
        while (asked := connection.take()) is not None:
            refused.append(asked)
            connection.h2.reset_stream(asked.stream, ErrorCodes.REFUSED_STREAM)
            connection.flush()

    with serving(handler) as peer:
        with pytest.raises(UpstreamConnectError, match="refused the call"):
            client.call(peer.origin)
        assert len(refused) == 2


def test_an_idle_connection_that_was_closed_is_replaced(client: Client) -> None:
    def handler(connection: Connection) -> None:
        asked = connection.take()
        assert asked is not None
        connection.answer(asked)
        # Closed only when the next call has come: the client cannot know before.
        connection.take() if connection.number == 1 else connection.read_to_end()

    with serving(handler) as peer:
        assert client.call(peer.origin, b"1").message == b"1"
        assert client.call(peer.origin, b"2").message == b"2"
        assert len(peer.connections) == 2


def test_a_new_connection_that_is_lost_is_an_error(client: Client) -> None:
    with serving(lambda connection: connection.take()) as peer:
        with pytest.raises(UpstreamConnectError) as caught:
            client.call(peer.origin)
        assert caught.value.sent
        assert len(peer.connections) == 1


def test_nobody_who_listens_is_an_error(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UpstreamConnectError, match="cannot connect"):
        client.call(Origin("http", "127.0.0.1", port))


def test_pings_and_settings_of_a_server_are_answered(client: Client) -> None:
    def handler(connection: Connection) -> None:
        asked = connection.take()
        assert asked is not None
        connection.h2.ping(b"12345678")
        connection.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        connection.flush()
        acks = b""
        while acks.count(b"12345678") < 1:
            acks += connection.sock.recv(65536)
        connection.answer(asked)

    with serving(handler) as peer:
        assert client.call(peer.origin, b"x").message == b"x"


# What is no answer of gRPC.


def _answered(headers: Pairs, data: bytes | None, trailers: Pairs | None) -> Callable[[Connection], None]:
    def handler(connection: Connection) -> None:
        asked = connection.take()
        assert asked is not None
        connection.h2.send_headers(asked.stream, headers, end_stream=data is None and trailers is None)
        if data is not None:
            for at in range(0, len(data), 16384):
                connection.h2.send_data(asked.stream, data[at : at + 16384])
            if trailers is None:
                connection.h2.end_stream(asked.stream)
        if trailers is not None:
            connection.h2.send_headers(asked.stream, trailers, end_stream=True)
        connection.flush()
        connection.read_to_end()

    return handler


_DONE = [("grpc-status", "0")]
NO_ANSWERS: dict[str, tuple[Pairs, bytes | None, Pairs | None]] = {
    "HTTP status 404": ([(":status", "404"), ("content-type", "text/html")], None, None),
    "answered text/html, not application/grpc": ([(":status", "200"), ("content-type", "text/html")], b"<p>", None),
    "without content-type": ([(":status", "200")], None, None),
    "without grpc-status": (HEADERS, prefixed(b"x"), None),
    "sent grpc-status -1, which": (HEADERS, prefixed(b"x"), [("grpc-status", "-1")]),
    "sent grpc-status 1000, which": (HEADERS, prefixed(b"x"), [("grpc-status", "1000")]),
    "before the end of the message": (HEADERS, prefixed(b"xyz")[:-1], _DONE),
    "a compressed message": (HEADERS, b"\1" + prefixed(b"x")[1:], _DONE),
    "more than one message": (HEADERS, prefixed(b"x") * 2, _DONE),
    "longer than 1048576": (HEADERS, b"\0\x00\x10\x00\x01x", _DONE),
    "answer before the end": (HEADERS, None, _DONE),
}


@pytest.mark.parametrize("said", NO_ANSWERS)
def test_what_is_no_answer_of_grpc_is_an_error(client: Client, said: str) -> None:
    said_handler = _answered(*NO_ANSWERS[said])

    def handler(connection: Connection) -> None:
        if connection.number == 1:
            said_handler(connection)

    with serving(handler) as peer, pytest.raises(UpstreamProtocolError, match=said):
        client.call(peer.origin)


def _raw(*parts: bytes) -> Callable[[Connection], None]:
    def handler(connection: Connection) -> None:
        connection.take()
        for part in parts:
            connection.send(part)
        swallow(connection)

    return handler


_OPEN = frame(1, b"\x88\x5f\x10application/grpc", flags=4, stream=1)
HOSTILE = {
    "a frame that is too long": [b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"],
    "headers without end": [frame(1, b"\x88", stream=1), *[frame(9, b"\x88" * 100, stream=1)] * 100],
    "too many headers": [frame(1, b"\x40\x01a\x7f\x80\x7f" + b"b" * 16000, flags=4, stream=1)],
    "a bomb of headers": [frame(1, b"\x40\x01a\x7f\xe1\x1e" + b"b" * 4064 + b"\xbe" * 9000, flags=4, stream=1)],
    "an answer to no call": [frame(1, b"\x88", flags=4, stream=9)],
    "a pushed answer": [frame(5, b"\0\0\0\2\x82", flags=4, stream=1)],
    "a window that overflows": [frame(8, b"\x7f\xff\xff\xff")] * 2,
    "a window of nothing": [frame(8, b"\0\0\0\0")],
    "settings that cannot be": [frame(4, b"\0\5\0\0\0\1")],
    "a GOAWAY that is cut": [frame(7, b"\0\0\0\1")],
    "a GOAWAY of one call": [frame(7, b"\0" * 8, stream=1)],
    "data before headers": [frame(0, b"x", stream=1)],
    "padding longer than its frame": [_OPEN, frame(0, b"\xff", flags=8, stream=1)],
    "a name in capitals": [frame(1, b"\x88\x40\x01A\x01b", flags=4, stream=1)],
    "a broken table of headers": [frame(1, b"\xff\xff\xff\xff\xff\xff\xff\xff", flags=4, stream=1)],
    "a ping of another length": [frame(6, b"1")],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_http2_ends_the_connection_and_not_the_client(client: Client, what: str) -> None:
    hostile = _raw(*HOSTILE[what])

    def handler(connection: Connection) -> None:
        (hostile if connection.number == 1 else echoing)(connection)

    with serving(handler) as peer:
        with pytest.raises((UpstreamProtocolError, UpstreamConnectError)):
            client.call(peer.origin, b"a")
        assert client.call(peer.origin, b"b").message == b"b"


def test_more_data_than_a_message_may_have_is_an_error(client: Client) -> None:
    hostile = _raw(_OPEN, *[frame(0, b"\0" * 16384, stream=1)] * 80)
    with serving(hostile) as peer, pytest.raises((UpstreamProtocolError, UpstreamConnectError)):
        client.call(peer.origin, b"a")


def test_a_server_that_speaks_http1_is_named(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                with contextlib.suppress(OSError):
                    while sock.recv(65536):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UpstreamProtocolError, match="answers HTTP/1, not HTTP/2"):
            client.call(Origin("http", "127.0.0.1", listener.getsockname()[1]))
        thread.join()


FLOODS = {
    "pings": frame(6, b"12345678"),
    "settings": frame(4),
    "windows": frame(8, b"\0\0\0\1"),
    "empty data": frame(0, stream=1),
    "priorities": frame(2, b"\0\0\0\0\1", stream=1),
    "resets": frame(3, b"\0\0\0\5", stream=1),
    "frames of no known kind": frame(99),
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_server_that_sends_frames_without_end_is_left(client: Client, what: str) -> None:
    def handler(connection: Connection) -> None:
        connection.take()
        connection.h2.send_headers(1, HEADERS)
        connection.flush()
        with contextlib.suppress(OSError):
            while True:
                connection.sock.sendall(FLOODS[what] * 100)

    with serving(handler) as peer, pytest.raises((UpstreamProtocolError, UpstreamConnectError)):
        client.call(peer.origin, seconds=60)


# TLS.


def test_grpc_over_tls_offers_http2(client: Client) -> None:
    context = tls_server()
    context.set_alpn_protocols(["h2"])
    with serving(context=context) as peer:
        assert client.call(peer.origin, b"x" * 100_000).message == b"x" * 100_000
        assert client.call(peer.origin, b"b").message == b"b"
        sock = peer.connections[0].sock
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.selected_alpn_protocol() == "h2"


def test_a_server_that_is_not_ours_gets_no_call(client: Client) -> None:
    with serving(context=tls_server(leaf("other.example"))) as peer, pytest.raises(UpstreamConnectError, match="verif"):
        client.call(peer.origin)


# Bounds.


def test_calls_at_once_share_a_connection() -> None:
    with aio() as client, serving() as peer:

        async def main() -> list[bytes]:
            return [
                said.message
                for said in await asyncio.gather(*(client.acall(peer.origin, b"%d" % n) for n in range(50)))
            ]

        assert client.runner.run(main()) == [b"%d" % n for n in range(50)]
        assert len(peer.connections) == 1


def _one_at_a_time(connection: Connection) -> None:
    connection.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    connection.flush()
    echoing(connection)


def test_a_server_gets_no_more_calls_at_once_than_it_takes() -> None:
    with aio(Limits(max_connections=2)) as client, serving(_one_at_a_time) as peer:

        async def main() -> int:
            await client.acall(peer.origin)
            said = await asyncio.gather(*(client.acall(peer.origin, b"x") for n in range(10)))
            return sum(each.message == b"x" for each in said)

        assert client.runner.run(main()) == 10
        assert len(peer.connections) == 2


def test_calls_over_the_limits_of_circuit_breakers_are_refused() -> None:
    breakers = UpstreamOptions(circuit_breakers=CircuitBreakers(max_connections=1, max_pending_requests=1))
    held = threading.Event()

    def handler(connection: Connection) -> None:
        connection.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        connection.flush()
        while (asked := connection.take()) is not None:
            connection.answer(asked)
            held.wait()

    with aio() as client, serving(handler) as peer:

        async def main() -> list[object]:
            await client.acall(peer.origin, options=breakers)
            calls = [asyncio.ensure_future(client.acall(peer.origin, options=breakers)) for _ in range(3)]
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            refused = [each.exception() for each in done]
            held.set()
            said = await asyncio.gather(*(each for each in calls if each not in done))
            return [*map(type, refused), *(each.status for each in said)]

        assert client.runner.run(main()) == [UpstreamOverloaded, 0, 0]


def test_threads_have_a_connection_each_up_to_their_limit() -> None:
    client = SyncTestClient(Limits(max_connections=2), trusting())
    with serving() as peer:
        statuses: list[int] = []

        def ask() -> None:
            statuses.extend(client.call(peer.origin).status for _ in range(2))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 8
        assert len(peer.connections) <= 2
        client.close()


def test_a_cancelled_call_is_reset_and_the_others_go_on() -> None:
    arrived = threading.Event()
    connections: list[Connection] = []

    def handler(connection: Connection) -> None:
        connections.append(connection)
        connection.take()
        arrived.set()
        echoing(connection)

    with aio() as client, serving(handler) as peer:

        async def main() -> bytes:
            call = asyncio.ensure_future(client.acall(peer.origin))
            await asyncio.get_running_loop().run_in_executor(None, arrived.wait)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
            return (await client.acall(peer.origin, b"next")).message

        assert client.runner.run(main()) == b"next"
        assert [each.reset for each in connections] == [[1]]


def test_a_client_that_is_closed_ends_its_calls(client: Client) -> None:
    closed = threading.Event()

    def handler(connection: Connection) -> None:
        connection.take()
        closed.set()
        connection.read_to_end()

    with serving(handler) as peer:
        if isinstance(client, SyncTestClient):

            def close() -> None:
                closed.wait()
                client.close()

            closer = threading.Thread(target=close)
            closer.start()
            with pytest.raises(UpstreamConnectError, match="the client was closed"):
                client.call(peer.origin)
            closer.join()
        else:
            assert isinstance(client, AioTestClient)

            async def main() -> None:
                call = asyncio.ensure_future(client.acall(peer.origin))
                await asyncio.get_running_loop().run_in_executor(None, closed.wait)
                await client.client.aclose()
                await call

            with pytest.raises(UpstreamConnectError, match="the client was closed"):
                client.runner.run(main())
        with pytest.raises(UpstreamConnectError, match="the client was closed"):
            client.call(peer.origin)


def test_idle_connections_are_closed_after_their_time() -> None:
    ended = threading.Event()

    def handler(connection: Connection) -> None:
        echoing(connection)
        ended.set()

    with aio(Limits(keepalive_expiry=0.01)) as client, serving(handler) as peer:

        async def main() -> None:
            await client.acall(peer.origin)
            await asyncio.get_running_loop().run_in_executor(None, ended.wait)

        client.runner.run(main())
        assert client.client._channels == {}


def test_new_certificates_are_used_by_calls_behind_them() -> None:
    contexts = trusting()
    client = AioTestClient(Limits(), contexts)
    with serving(context=tls_server()) as peer:
        assert client.call(peer.origin).status == 0
        contexts._default = trusting()._default_context()
        assert client.call(peer.origin).status == 0
        assert client.call(peer.origin).status == 0
        assert len(peer.connections) == 2
        client.close()
