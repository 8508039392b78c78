"""The ports of TCPMappings, with real connections on both event loops."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import OURS, leaf, secret, server, write
from servers import free_port
from upstream import ON_BOTH_LOOPS, Run, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.routing.table import RouteTable
from canary_mw.server.tcp import accepting
from canary_mw.server.tcp import listeners as listeners_module
from canary_mw.server.tcp.listeners import TCPListeners
from canary_mw.upstreams.aio import Upstreams

pytestmark = ON_BOTH_LOOPS
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


def tcp(port: int, upstream: int, name: str = "a", **attributes: object) -> str:
    given = {"port": port, "service": f"127.0.0.1:{upstream}", "address": "127.0.0.1", **attributes}
    spec = "".join(f"{key}: {value}\n" for key, value in given.items())
    return f"---\napiVersion: getambassador.io/v3alpha1\nkind: TCPMapping\nname: {name}\n{spec}"


def context(name: str, folder: Path, **attributes: object) -> str:
    spec = "".join(f"{key}: {value}\n" for key, value in {"secret": folder, **attributes}.items())
    return f"---\napiVersion: getambassador.io/v3alpha1\nkind: TLSContext\nname: {name}\n{spec}"


def table(text: str) -> RouteTable:
    store = RuleStore(StaticSource(text))
    store.reload()
    assert store.error is None
    return store.table


class Listeners(TCPListeners):
    """With the port of the first TCPMapping, and what was counted."""

    def __init__(self, upstreams: Upstreams, port: int, **options: Any) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        super().__init__(upstreams, (), self._count, **options)
        self.port = port

    def _count(self, *key: str, count: int = 1) -> None:
        self.counts[key] += count

    def states(self, name: str = "a") -> dict[str, int]:
        return {key[2]: count for key, count in self.counts.items() if key[:2] == ("tcp_connections", name)}


@contextlib.asynccontextmanager
async def echo(serve: Serve | None = None, **options: Any) -> AsyncIterator[int]:
    """A server that sends back what it gets, until the client ends."""
    tasks: set[asyncio.Future[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            tasks.add(task)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve or handle, "127.0.0.1", 0, **options)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def opened(text: Callable[[int], str], **options: Any) -> AsyncIterator[Listeners]:
    """The ports of rules, which get a free port."""
    upstreams, port = Upstreams(), free_port()
    listeners = Listeners(upstreams, port, **options)
    listeners.start(table(text(port)))
    try:
        yield listeners
    finally:
        await listeners.stop(0)
        await until(lambda: not listeners._pairs)
        await upstreams.aclose()


async def ask(port: int, data: bytes = b"x", **options: Any) -> bytes:
    """Send, end, and read all; empty where the connection was closed."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
        try:
            writer.write(data)
            if writer.can_write_eof():
                writer.write_eof()
                return await reader.read()
            return await reader.readexactly(len(data))
        except asyncio.IncompleteReadError as exc:
            return exc.partial
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
    return b""


def test_bytes_go_both_ways_and_each_direction_ends_by_itself(run: Run) -> None:
    async def main() -> None:
        async with echo() as upstream, opened(lambda port: tcp(port, upstream)) as listeners:
            data = bytes(range(256)) * 20_000
            assert await ask(listeners.port, data) == data
            await until(lambda: listeners.states().get("closed"))
            assert listeners.counts["tcp_bytes", "a", "received"] == len(data)
            assert listeners.counts["tcp_bytes", "a", "sent"] == len(data)

    run(main)


def test_a_server_may_speak_first_and_end_first(run: Run) -> None:
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        got.append(await reader.read())
        writer.close()

    async def main() -> None:
        async with echo(serve) as upstream, opened(lambda port: tcp(port, upstream)) as listeners:
            reader, writer = await asyncio.open_connection("127.0.0.1", listeners.port)
            assert await reader.read() == b"hello"
            writer.write(b"late")
            writer.close()
            await until(lambda: got)
            assert got == [b"late"]

    run(main)


def test_a_client_that_does_not_read_stops_its_upstream(run: Run) -> None:
    sent = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                sent[0] += 65536

    async def stalled() -> int:
        """What was sent once no more goes."""
        before = -1
        while before != sent[0]:
            before = sent[0]
            await asyncio.sleep(0.1)
        return before

    async def main() -> None:
        async with echo(serve) as upstream, opened(lambda port: tcp(port, upstream)) as listeners:
            client = socket.create_connection(("127.0.0.1", listeners.port))
            await until(lambda: sent[0])
            # The buffers of the system are what they are; ours are far below.
            assert await stalled() < 64 << 20
            (pair,) = listeners._pairs
            assert pair.client.transport is not None
            assert pair.client.transport.get_write_buffer_size() <= 2 * 65536
            client.close()
            await until(lambda: not listeners._pairs)

    run(main)


def test_an_upstream_that_is_not_there_closes_the_connection(run: Run) -> None:
    async def main() -> None:
        async with opened(lambda port: tcp(port, free_port())) as listeners:
            assert await ask(listeners.port) == b""
            await until(lambda: listeners.states().get("no_upstream"))

    run(main)


def test_bytes_and_an_end_that_come_before_the_upstream_is_there_are_not_lost(run: Run) -> None:
    async def main() -> None:
        async with echo() as upstream, opened(lambda port: tcp(port, upstream)) as listeners:
            for _ in range(20):
                # Both are in the socket before it is accepted.
                client = socket.create_connection(("127.0.0.1", listeners.port))
                client.sendall(b"early")
                client.shutdown(socket.SHUT_WR)
                reader, writer = await asyncio.open_connection(sock=client)
                assert await reader.read() == b"early"
                writer.close()

    run(main)


def test_connections_beyond_the_limit_are_closed_at_once(run: Run) -> None:
    async def main() -> None:
        limited = "[{max_connections: 1}]"
        async with (
            echo() as upstream,
            opened(lambda port: tcp(port, upstream, circuit_breakers=limited)) as listeners,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", listeners.port)
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
            assert await ask(listeners.port) == b""
            assert listeners.states()["overflow"] == 1
            writer.close()
            await until(lambda: listeners.states().get("closed"))
            assert await ask(listeners.port, b"two") == b"two"

    run(main)


def test_a_connection_without_a_byte_ends_after_its_idle_time(run: Run) -> None:
    async def main() -> None:
        async with echo() as upstream, opened(lambda port: tcp(port, upstream, idle_timeout_ms="'300'")) as listeners:
            reader, writer = await asyncio.open_connection("127.0.0.1", listeners.port)
            for _ in range(3):
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
            assert await reader.read() == b""
            writer.close()
            await until(lambda: listeners.states().get("idle"))

    run(main)


def test_one_roll_a_connection_divides_by_the_weights(run: Run) -> None:
    rolls = iter([0.0, 0.19, 0.21, 0.99])

    async def named(name: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name)
        writer.close()

    async def main() -> None:
        async with (
            echo(lambda reader, writer: named(b"a", reader, writer)) as one,
            echo(lambda reader, writer: named(b"b", reader, writer)) as other,
            opened(
                lambda port: tcp(port, one) + tcp(port, other, "b", weight=20), roll=lambda: next(rolls)
            ) as listeners,
        ):
            assert [await ask(listeners.port, b"") for _ in range(4)] == [b"b", b"b", b"a", b"a"]

    run(main)


def client_of(name: str | None) -> dict[str, Any]:
    """Options of a client that trusts our authority, or with no name verifies nothing."""
    made = ssl.create_default_context()
    OURS.configure_trust(made)
    made.check_hostname = name is not None
    if name is None:
        made.verify_mode = ssl.CERT_NONE
    return {"ssl": made, "server_hostname": name or ""}


def test_tls_is_terminated_by_server_name_and_the_rest_goes_through_as_it_is(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", secret(leaf("one.example")))

    async def main() -> None:
        async with echo() as plain, echo(ssl=server(leaf("two.example"))) as secure:
            rules = context("one", folder, hosts="[one.example]")
            async with opened(
                lambda port: rules + tcp(port, plain, host="one.example") + tcp(port, secure, "b")
            ) as listeners:
                assert await ask(listeners.port, b"1", **client_of("one.example")) == b"1"
                # Not terminated here: the certificate is that of the upstream.
                assert await ask(listeners.port, b"2", **client_of("two.example")) == b"2"
                await until(lambda: listeners.states("b").get("closed"))
                assert listeners.states() == {"accepted": 1, "closed": 1}

    run(main)


def test_without_a_hostless_member_an_unknown_name_and_plain_bytes_are_closed(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", secret(leaf("one.example")))

    async def main() -> None:
        async with echo() as upstream:
            rules = context("one", folder, hosts="[one.example]")
            async with opened(lambda port: rules + tcp(port, upstream, host="one.example")) as listeners:
                assert await ask(listeners.port, **client_of("two.example")) == b""
                assert await ask(listeners.port, **client_of(None)) == b""
                assert await ask(listeners.port, b"GET / HTTP/1.1\r\n\r\n") == b""
                assert listeners.counts == {}
                assert await ask(listeners.port, b"1", **client_of("one.example")) == b"1"

    run(main)


def test_a_server_that_speaks_first_is_reached_behind_a_port_with_names(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners_module, "SILENCE", 0.05)
    folder = write(tmp_path / "one", secret(leaf("one.example")))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready")
        await reader.read()
        writer.close()

    async def main() -> None:
        async with echo(serve) as first:
            rules = context("one", folder, hosts="[one.example]")
            async with opened(
                lambda port: rules + tcp(port, first, host="one.example") + tcp(port, first, "b")
            ) as listeners:
                reader, writer = await asyncio.open_connection("127.0.0.1", listeners.port)
                assert await reader.readexactly(9) == b"220 ready"
                writer.close()

    run(main)


def test_a_hello_that_never_ends_is_closed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "HELLO_TIMEOUT", 0.2)
    folder = write(tmp_path / "one", secret(leaf("one.example")))

    async def main() -> None:
        async with echo() as upstream:
            rules = context("one", folder, hosts="[one.example]")
            async with opened(
                lambda port: rules + tcp(port, upstream, host="one.example") + tcp(port, upstream, "b")
            ) as listeners:
                reader, writer = await asyncio.open_connection("127.0.0.1", listeners.port)
                writer.write(b"\x16\x03\x01\x02\x00\x01")
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
                assert listeners.counts == {}

    run(main)


def test_a_client_may_need_a_certificate(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", secret(leaf("one.example"), OURS))

    async def main() -> None:
        async with echo() as upstream:
            rules = context("one", folder, hosts="[one.example]", cert_required="true")
            async with opened(lambda port: rules + tcp(port, upstream, host="one.example")) as listeners:
                assert await ask(listeners.port, **client_of("one.example")) == b""
                options = client_of("one.example")
                leaf("client.example").configure_cert(options["ssl"])
                assert await ask(listeners.port, b"1", **options) == b"1"

    run(main)


def test_tls_to_the_upstream_verifies_its_certificate(run: Run, tmp_path: Path) -> None:
    folder = write(tmp_path / "up", secret(authority=OURS))

    async def main() -> None:
        async with echo(ssl=server()) as good, echo(ssl=server(leaf("other.example"))) as bad:
            rules = context("up", folder)
            async with opened(lambda port: rules + tcp(port, good, tls="up")) as listeners:
                reader, writer = await asyncio.open_connection("127.0.0.1", listeners.port)
                writer.write(b"1")
                assert await reader.readexactly(1) == b"1"
                writer.close()
            async with opened(lambda port: rules + tcp(port, bad, tls="up")) as listeners:
                assert await ask(listeners.port) == b""
                await until(lambda: listeners.states().get("no_upstream"))

    run(main)


def test_a_reload_leaves_connections_alone_and_leads_the_next_ones_elsewhere(run: Run) -> None:
    async def main() -> None:
        async with echo() as upstream, opened(lambda port: tcp(port, upstream)) as listeners:
            reader, writer = await asyncio.open_connection("127.0.0.1", listeners.port)

            async def echoed(data: bytes) -> bytes:
                writer.write(data)
                return await reader.readexactly(len(data))

            assert await echoed(b"1") == b"1"
            another = free_port()
            listeners.take_table(table(tcp(listeners.port, free_port()) + tcp(another, upstream, "b")))
            await until(lambda: len(listeners._ports) == 2)
            assert await ask(listeners.port) == b""
            assert await ask(another, b"2") == b"2"
            listeners.take_table(table(""))
            await until(lambda: not listeners._ports)
            assert await ask(another) == b""
            assert await echoed(b"3") == b"3"
            writer.close()

    run(main)


def test_a_port_that_cannot_be_opened_is_an_error_and_the_others_live(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            used = taken.getsockname()[1]
            async with (
                echo() as upstream,
                opened(lambda port: tcp(used, upstream, "b") + tcp(port, upstream)) as listeners,
            ):
                assert await ask(listeners.port, b"1") == b"1"
        assert f"port {used} at 127.0.0.1 cannot be opened" in caplog.text

    run(main)


def test_the_ports_of_the_process_itself_are_refused(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        upstreams, port = Upstreams(), free_port()
        listeners = TCPListeners(upstreams, (port,))
        listeners.start(table(tcp(port, 1)))
        assert not listeners._ports
        await listeners.stop(0)
        await upstreams.aclose()
        assert f"port {port} is that of the proxy" in caplog.text

    run(main)


def test_connections_have_some_time_at_the_end_and_end_then(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        async with echo() as upstream, opened(lambda port: tcp(port, upstream)) as listeners:
            reader, writer = await asyncio.open_connection("127.0.0.1", listeners.port)
            writer.write(b"1")
            assert await reader.readexactly(1) == b"1"
            stopping = asyncio.ensure_future(listeners.stop(20))
            await until(lambda: not listeners._ports)
            assert await ask(listeners.port) == b""
            writer.write(b"2")
            assert await reader.readexactly(1) == b"2"
            writer.close()
            await stopping
            assert not listeners._pairs

    run(main)
