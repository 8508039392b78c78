"""`canary-mw serve` beside an auth service that restarts, hangs and answers garbage: it lets nobody pass unasked."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from servers import client_of, free_port, mapping, process, run, serving_app

from canary_mw.types import Receive, Scope, Send

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

SECONDS = 30
TIMEOUT_MS = 300
AUTH = """---
apiVersion: getambassador.io/v3alpha1
kind: AuthService
metadata: {{name: auth}}
spec:
  auth_service: 127.0.0.1:{port}
  proto: http
  timeout_ms: {timeout}
  status_on_error: {{code: 503}}
  allowed_request_headers: [x-may]
"""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
NO = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"


class AuthService:
    """Allows requests with `x-may: yes`; at times it hangs, answers garbage or ends connections."""

    def __init__(self) -> None:
        self.port = free_port()
        self.mood = "well"
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin, unless it has begun."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, reuse_port=True)

    async def stop(self) -> None:
        """End all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, head: bytes) -> bytes:
        if self.mood == "hangs":
            await asyncio.sleep(2 * TIMEOUT_MS / 1000)
        if self.mood == "garbage":
            return random.choice([b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 500 X\r\n\r\n"])
        return OK if b"\r\nx-may: yes\r\n" in head.lower() else NO


@contextlib.asynccontextmanager
async def changing(service: AuthService) -> AsyncIterator[None]:
    """The service in one mood after the other, and away in between."""

    async def change() -> None:
        while True:
            for mood in ("well", "hangs", "well", "garbage", "well", "away"):
                service.mood = mood
                if mood == "away":
                    await service.stop()
                await asyncio.sleep(0.7)
                if mood == "away":
                    await service.start()

    task = asyncio.ensure_future(change())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says who it was asked by."""
    who = dict(scope["headers"]).get(b"x-may", b"no")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-who", who)]})
    await send({"type": "http.response.body", "body": b"secret"})


async def visit(port: int, may: str, until: float, seen: Counter[tuple[str, int]]) -> None:
    """Send requests over connections that are kept as long as they are."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        async with client_of(port) as client:
            for _ in range(50):
                answer = await client.get("GET", "/shop/", [("x-may", may)])
                seen[may, answer.status] += 1
                assert (answer.body == b"secret") is (answer.status == 200)


def test_nobody_passes_unasked_and_whoever_may_passes_while_the_service_is_well(tmp_path: Path) -> None:
    port, seen = free_port(), Counter[tuple[str, int]]()

    async def main() -> None:
        service = AuthService()
        await service.start()
        async with serving_app(app, lifespan="off") as upstream:
            path = tmp_path / "rules.yaml"
            path.write_text(
                mapping("shop", "/shop/", f"127.0.0.1:{upstream}") + AUTH.format(port=service.port, timeout=TIMEOUT_MS)
            )
            running = process("serve", "--rules", str(path), "--port", str(port), log=tmp_path / "log", wait_for=[port])
            await asyncio.to_thread(running.__enter__)
            try:
                async with changing(service):
                    until = asyncio.get_running_loop().time() + SECONDS
                    await asyncio.gather(*(visit(port, may, until, seen) for may in ("yes", "no") * 8))
                service.mood = "well"
                await service.start()
                after = Counter[tuple[str, int]]()
                await visit(port, "yes", asyncio.get_running_loop().time() + 0.2, after)
                assert set(after) <= {("yes", 200), ("yes", 503)}
                assert after["yes", 200]
            finally:
                await asyncio.to_thread(running.__exit__, None, None, None)
                await service.stop()

    run(main(), SECONDS + 60)
    assert {status for may, status in seen if may == "no"} <= {401, 503}
    assert {status for may, status in seen if may == "yes"} <= {200, 503}
    assert min(seen["no", 401], seen["yes", 200], seen["yes", 503]) > 100, seen
