"""TCPMappings of `canary-mw serve` with two workers: many connections, and rules that change under load."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, process, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def rules(port: int, *services: int) -> str:
    return "".join(
        "---\napiVersion: getambassador.io/v3alpha1\nkind: TCPMapping\n"
        f"name: m{service}\nport: {port}\naddress: 127.0.0.1\nservice: 127.0.0.1:{service}\n"
        for service in services
    )


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    served: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                writer.write(data)
        await end([(reader, writer)])

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*filter(None, served))


@contextlib.asynccontextmanager
async def serving(*command: str, **options: Any) -> AsyncIterator[None]:
    """A process with two workers; the loop goes on while it begins and ends, as its upstream is in this process."""
    running = process(*command, "--workers", "2", **options)
    await asyncio.to_thread(running.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def end(connections: Sequence[Connection]) -> None:
    for _, writer in connections:
        writer.close()
    for _, writer in connections:
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    assert await reader.readexactly(len(data)) == data


@pytest.mark.skipif(os.sysconf("SC_OPEN_MAX") < 4096, reason="needs 4096 open files")
def test_thousands_of_connections_are_open_at_once(tmp_path: Path) -> None:
    port, own, admin = free_port(), free_port(), free_port()
    path = tmp_path / "rules.yaml"

    async def main() -> None:
        import resource

        # The echo server and the clients are in this process.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        count = min(10_000, (hard - 200) // 2)
        try:
            async with echo() as service:
                path.write_text(rules(port, service))
                command = ["serve", "--rules", str(path), "--port", str(own), "--admin-port", str(admin)]
                async with serving(*command, log=tmp_path / "log", wait_for=[own, port]):
                    clients = []
                    for start in range(0, count, 200):
                        opening = [asyncio.open_connection("127.0.0.1", port) for _ in range(min(200, count - start))]
                        clients += await asyncio.gather(*opening)
                    for number in range(0, count, 500):
                        await asyncio.gather(*(talk(*each, b"ping") for each in clients[number : number + 500]))
                    await end(clients)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    run(main(), 170)


def test_no_connection_is_cut_while_rules_change(tmp_path: Path) -> None:
    port, own = free_port(), free_port()
    path = tmp_path / "rules.yaml"

    async def main() -> None:
        async with echo() as one, echo() as other:
            path.write_text(rules(port, one))
            command = ["serve", "--rules", str(path), "--port", str(own)]
            async with serving(*command, log=tmp_path / "log", wait_for=[own, port]):
                kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
                for turn in range(20):
                    path.with_suffix(".new").write_text(rules(port, one, other) if turn % 2 else rules(port, other))
                    path.with_suffix(".new").rename(path)
                    await asyncio.gather(*(talk(*each, b"%d" % turn) for each in kept))
                    fresh = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
                    await asyncio.gather(*(talk(*each, b"new") for each in fresh))
                    await end(fresh)
                await end(kept)

    run(main(), 90)
