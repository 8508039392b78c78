"""Pages that are open when the server ends: their streams end first, and nobody waits for them."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from servers import free_port, mapping, process, run

pytestmark = pytest.mark.slow


def test_a_server_ends_while_pages_are_open(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(mapping("stable", "/shop/", "shop-stable"))
    port, admin = free_port(), free_port()
    command = ("serve", "--rules", str(rules), "--port", str(port), "--admin-port", str(admin))
    ended: list[str] = []

    async def read(response: httpx.Response) -> None:
        # A stream that is cut off raises: it ends with its last chunk.
        async for _ in response.aiter_bytes():
            pass
        ended.append("stream")

    async def main(log: Path) -> None:
        with process(*command, log=log, wait_for=[port, admin]) as server:
            async with AsyncExitStack() as opened:
                client = await opened.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin}"))
                streams = [
                    await opened.enter_async_context(client.stream("GET", f"/ambassador/v0/diag/events?page={page}"))
                    for page in ("overview", "rules", "traffic")
                ]
                reading = asyncio.gather(*map(read, streams))
                assert await asyncio.to_thread(server.stop) == 0
                await reading
        assert ended == ["stream"] * 3

    run(main(tmp_path / "log"))
