"""LogServices that are told of the connections of TCPMappings, in the standalone proxy."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from log_receiver import PLAIN, SERVICE, Receiver, receiving
from servers import free_port, mapping, run
from standalone import Noting, listening, wire_to
from upstream import forever, serving, until


def tcp(port: int, name: str, service: str, more: str = "") -> str:
    head = f"---\napiVersion: getambassador.io/v3alpha1\nkind: TCPMapping\nname: {name}\n"
    return f"{head}port: {port}\naddress: 127.0.0.1\nservice: {service}\n{more}"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


async def ask(port: int, data: bytes) -> bytes:
    """What a port says to some bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    answer = b""
    try:
        answer = await reader.read()
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer


@pytest.mark.parametrize("driver", ["http", "tcp"])
def test_connections_are_told_beside_requests(tmp_path: Path, driver: str) -> None:
    """Each as a TCP entry, whatever the driver; requests are told by it."""
    path, port, gone = tmp_path / "rules.yaml", free_port(), free_port()
    plain = PLAIN.replace("driver: http", f"driver: {driver}")

    async def main(logs: int) -> None:
        broker = await asyncio.start_server(echo, "127.0.0.1", 0)
        named = {"logs": logs, "broker": broker.sockets[0].getsockname()[1], "gone": 1}
        path.write_text(
            mapping("shop", "/shop/", "shop")
            + tcp(port, "broker", "broker:5672")
            + tcp(gone, "gone", "gone:5672")
            + SERVICE
            + plain
        )
        async with broker, serving(forever) as shop:
            app = Noting(path, shop.origin.port, named=named)
            async with listening(app) as (http, _), wire_to(http) as client:
                assert await ask(port, b"hello") == b"hello"
                assert await ask(gone, b"hello") == b""
                assert (await client.get()).status == 200
                await until(lambda: len(receiver.entries("tcp_logs") + receiver.entries()) == 3)

    with receiving() as (receiver, peer):
        run(main(peer.origin.port))
    told, *_, failed = entries(receiver)
    common = told["common_properties"]
    assert told["connection_properties"] == {"received_bytes": "5", "sent_bytes": "5"}
    assert common["upstream_cluster"] == "cluster_broker_5672_default"
    assert common["downstream_remote_address"]["socket_address"]["address"] == "127.0.0.1"
    assert common["upstream_remote_address"]["socket_address"]["port_value"] > 0
    assert common["access_log_type"] == "DownstreamEnd"
    assert "response_flags" not in common
    assert failed["common_properties"]["response_flags"] == {"upstream_connection_failure": True}
    assert "upstream_remote_address" not in failed["common_properties"]
    assert len(receiver.entries()) == (1 if driver == "http" else 0)


def entries(receiver: Receiver) -> list[dict[str, Any]]:
    """Those of connections, the one with bytes first."""
    found = receiver.entries("tcp_logs")
    return sorted(found, key=lambda each: "response_flags" in each["common_properties"])


def test_a_connection_that_is_one_too_many_is_told(tmp_path: Path) -> None:
    path, port = tmp_path / "rules.yaml", free_port()

    async def main(logs: int) -> None:
        broker = await asyncio.start_server(echo, "127.0.0.1", 0)
        named = {"logs": logs, "broker": broker.sockets[0].getsockname()[1], "gone": 1}
        one = "circuit_breakers: [{max_connections: 1}]\n"
        path.write_text(tcp(port, "broker", "broker:5672", one) + SERVICE + PLAIN)
        async with broker:
            app = Noting(path, 1, named=named)
            async with listening(app):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
                assert await ask(port, b"") == b""
                await until(lambda: receiver.entries("tcp_logs"))
                writer.close()

    with receiving() as (receiver, peer):
        run(main(peer.origin.port))
    assert receiver.entries("tcp_logs")[0]["common_properties"]["response_flags"] == {"upstream_overflow": True}
