"""The admin port under a flood: what a client can hold of it is bounded, and probes and scrapes go on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from servers import fetch, fetch_admin, free_port, mapping, run
from upstream import until

from canary_mw.admin.app import create_admin
from canary_mw.admin.rules import describe_rules
from canary_mw.admin.server import MAX_CONNECTIONS, AdminServer
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.http.framing import MAX_HEAD
from canary_mw.observability.prometheus import Metrics
from canary_mw.server import timers
from canary_mw.server.admin_protocol import AdminProtocol

HEAD = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"


@asynccontextmanager
async def admin(rules: str = "") -> AsyncIterator[tuple[AdminServer, int]]:
    store = RuleStore(StaticSource(rules))
    store.reload()
    port = free_port()
    server = await AdminServer.start(create_admin(store, Metrics()), "127.0.0.1", port)
    try:
        await until(lambda: server.started)
        yield server, port
    finally:
        await server.stop()
        store.stop()


async def opened(port: int, data: bytes, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    found = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        found.append((reader, writer))
    return found


@pytest.mark.parametrize("data", [b"", HEAD, HEAD + b"\r\n"], ids=["nothing", "half a head", "idle"])
def test_who_holds_connections_keeps_nobody_out(data: bytes) -> None:
    async def main() -> None:
        async with admin() as (server, port):
            clients = await opened(port, data, 2 * MAX_CONNECTIONS)
            assert (await fetch(port, "/healthz")).body == b"alive\n"
            connections = cast(set[AdminProtocol], server.server_state.connections)
            assert sum(each._phase != "closing" for each in connections) <= MAX_CONNECTIONS + 1
            # The oldest ones are ended in an orderly way, but not all of those at once that will not leave.
            for reader, _ in clients[MAX_CONNECTIONS // 2 : MAX_CONNECTIONS]:
                await ended(reader)
            clients += await opened(port, data, MAX_CONNECTIONS)
            assert (await fetch(port, "/healthz")).body == b"alive\n"
            assert len(connections) <= 2 * MAX_CONNECTIONS + 2
            for _, writer in clients:
                writer.close()

    run(main())


async def ended(reader: asyncio.StreamReader) -> None:
    try:
        await reader.read()
    except ConnectionError:
        return


def test_a_connection_that_waits_for_its_answer_is_the_last_to_go() -> None:
    async def main() -> None:
        async with admin() as (server, port):
            ((_, writer),) = await opened(port, b"", 1)
            (busy,) = await until(lambda: list(server.server_state.connections))
            assert isinstance(busy, AdminProtocol)
            busy._active_cycle = type("Running", (), {"response_complete": False, "on_disconnect": lambda _: None})()
            others = await opened(port, b"", 2 * MAX_CONNECTIONS)
            assert (await fetch(port, "/healthz")).status == 200
            assert not busy.transport.is_closing()
            busy._active_cycle = None
            for _, each in [*others, (None, writer)]:
                each.close()

    run(main())


def test_the_limits_of_a_head_are_those_of_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers, "TICK", 0.01)

    async def main() -> None:
        async with admin() as (server, port):
            large = HEAD + b"x: %b\r\n" % (b"y" * MAX_HEAD)
            for data, status in ((HEAD, b"408"), (large, b"431"), (HEAD + b"a b: c\r\n\r\n", b"400")):
                ((reader, writer),) = await opened(port, data, 1)
                assert (await reader.readline())[9:12] == status
                # The server lets go of a client that does not leave.
                await until(lambda: not server.server_state.connections)
                writer.close()

    run(main())


def test_a_client_that_reads_slowly_holds_no_copy_of_a_long_answer() -> None:
    rules = "".join(mapping(f"shop-{number}", f"/shop-{number}/", "shop") for number in range(3_000))

    async def main() -> None:
        async with admin(rules) as (server, port):
            body = (await fetch_admin(port, "/rules")).body
            assert len(body) > 500_000
            clients = await opened(port, b"GET /rules HTTP/1.1\r\nhost: localhost\r\n\r\n" * 20, 2)
            connections = cast(set[AdminProtocol], server.server_state.connections)
            await until(lambda: sum(each.flow.write_paused for each in connections) == 2)
            assert all(each.transport.get_write_buffer_size() < 300_000 for each in connections)
            for _, writer in clients:
                writer.transport.abort()

    run(main())


def test_rules_that_have_not_changed_are_described_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def counted(store: RuleStore) -> object:
        nonlocal calls
        calls += 1
        return describe_rules(store)

    monkeypatch.setattr("canary_mw.admin.app.describe_rules", counted)
    source = StaticSource(mapping("a", "/a/", "a"))
    store = RuleStore(source)

    async def main() -> None:
        port = free_port()
        server = await AdminServer.start(create_admin(store, Metrics()), "127.0.0.1", port)
        await until(lambda: server.started)
        before = [(await fetch_admin(port, "/rules")).body for _ in range(3)]
        store.reload()
        after = [(await fetch_admin(port, "/rules")).body for _ in range(3)]
        assert (len(set(before)), len(set(after)), calls) == (1, 1, 2)
        assert b'"generation":1' in after[0]
        await server.stop()

    run(main())
    store.stop()


def test_shutdown_does_not_wait_for_clients_that_ask_for_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # No deadline ends them.
    monkeypatch.setattr(timers, "TICK", 1000)

    async def main() -> None:
        async with admin() as (server, port):
            clients = await opened(port, HEAD, 3)
            await until(lambda: len(server.server_state.connections) == 3)
            await server.stop()
            for reader, writer in clients:
                await ended(reader)
                writer.close()

    run(main())
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
