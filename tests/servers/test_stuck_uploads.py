"""A client that leaves while its upload is stuck, because the upstream takes nothing of it."""

import asyncio
import fcntl
import socket
import struct
from typing import Any

import pytest
from servers import hello, mapping, run, serving_app
from upstream import Peer, serving, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.observability.events import Finished
from canary_mw.observability.observers import Observer
from canary_mw.server.protocol import GuardedProtocol

CHUNK = b"%x\r\n%b\r\n" % (60_000, b"a" * 60_000)
# <linux/sockios.h>
SIOCOUTQNSD = 0x894B
HEAD = b"POST /shop/ HTTP/1.1\r\nhost: shop.example\r\ntransfer-encoding: chunked\r\n\r\n"


class Ends(Observer):
    """Keeps the reasons of what has ended."""

    def __init__(self) -> None:
        self.reasons: list[str | None] = []

    def finished(self, record: Finished) -> None:
        """Keep it."""
        self.reasons.append(record.reason)


class RecordedProtocol(GuardedProtocol):
    """Keeps the protocols of the connections that come in."""

    made: list["RecordedProtocol"]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.made.append(self)


def unsent(writer: asyncio.StreamWriter) -> int:
    """Bytes that were not sent yet, because the system of the other side has no room."""
    fd = writer.get_extra_info("socket").fileno()
    return int(struct.unpack("i", fcntl.ioctl(fd, SIOCOUTQNSD, b"\0\0\0\0"))[0])


async def fill(writer: asyncio.StreamWriter, protocol: RecordedProtocol) -> None:
    """Upload until nobody takes it any more, and no more than the server's system has taken."""
    while not protocol.flow.read_paused:
        writer.write(CHUNK)
        await until(lambda: not writer.transport.get_write_buffer_size() and not unsent(writer))
        # The server reads in the same loop.
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("policy", ["", "{retry_on: 5xx}"], ids=["once", "kept for retries"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_a_stuck_upload_ends_the_upstream_request(how: str, policy: str) -> None:
    more = {"retry_policy": policy} if policy else {}
    rules = mapping("a", "/shop/", "shop", timeout_ms=0, **more)

    async def main() -> None:
        ends, made, left = Ends(), list[RecordedProtocol](), asyncio.Event()

        async def script(peer: Peer) -> None:
            peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await left.wait()
            peer.reader._transport.resume_reading()  # type: ignore[attr-defined]
            assert not (await peer.gone()).endswith(b"\r\n0\r\n\r\n")

        protocol = type("RecordedProtocol", (RecordedProtocol,), {"made": made})
        async with serving(script) as upstream:
            urls = {"shop": f"http://127.0.0.1:{upstream.origin.port}"}
            middleware = CanaryMiddleware(hello, rules=StaticSource(rules), upstreams=urls, observers=[ends])
            async with serving_app(middleware, http=protocol, lifespan="off") as port:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(HEAD + CHUNK)
                await until(lambda: upstream.accepted)
                await fill(writer, made[0])
                if how == "rst":
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.close()
                async with asyncio.timeout(10):
                    await until(lambda: ends.reasons)
                left.set()
                await until(lambda: not upstream.scripts)
            await middleware.aclose()
        assert ends.reasons == ["client left"]

    run(main())


def test_a_client_whose_upload_goes_on_after_a_while_is_served() -> None:
    async def main() -> None:
        made, go_on = list[RecordedProtocol](), asyncio.Event()

        async def script(peer: Peer) -> None:
            peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await go_on.wait()
            peer.reader._transport.resume_reading()  # type: ignore[attr-defined]
            await peer.answer(b"%d" % len((await peer.request()).body))

        protocol = type("RecordedProtocol", (RecordedProtocol,), {"made": made})
        async with serving(script) as upstream:
            urls = {"shop": f"http://127.0.0.1:{upstream.origin.port}"}
            rules = StaticSource(mapping("a", "/shop/", "shop", timeout_ms=0))
            middleware = CanaryMiddleware(hello, rules=rules, upstreams=urls)
            async with serving_app(middleware, http=protocol, lifespan="off") as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(HEAD + CHUNK)
                await until(lambda: upstream.accepted)
                await fill(writer, made[0])
                # It is looked at more than once.
                await asyncio.sleep(0.6)
                go_on.set()
                writer.write(CHUNK + b"0\r\n\r\n")
                assert (await reader.readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
                writer.close()
                await writer.wait_closed()
            await middleware.aclose()

    run(main())
