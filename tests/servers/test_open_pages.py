"""Pages that are open when the server ends: their streams end first, and nobody waits for them."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from servers import Process, free_port, mapping, process, run

pytestmark = pytest.mark.slow


RULES = mapping("stable", "/shop/", "shop-stable")
APP = """
from fastapi import FastAPI

from canary_mw import CanaryMiddleware, Metrics, create_admin

shop = FastAPI()
app = CanaryMiddleware(shop, rules="rules.yaml", local="shop-stable", observers=[metrics := Metrics()])
shop.mount("/canary", create_admin(app.store, metrics))
"""


async def _ends_while_pages_are_open(server: Process, url: str, status: int) -> None:
    """Streams end with their last chunk, and then the server; a stream that is cut off raises."""
    async with AsyncExitStack() as opened:
        client = await opened.enter_async_context(httpx.AsyncClient())
        streams = [
            await opened.enter_async_context(client.stream("GET", f"{url}/ambassador/v0/diag/events?page={page}"))
            for page in ("overview", "rules", "traffic")
        ]
        reading = asyncio.gather(*map(_read, streams))
        assert await asyncio.to_thread(server.stop) == status
        assert await reading == ["ended"] * 3


async def _read(response: httpx.Response) -> str:
    async for _ in response.aiter_bytes():
        pass
    return "ended"


def test_a_server_ends_while_pages_are_open(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    port, admin = free_port(), free_port()
    command = ("serve", "--rules", str(rules), "--port", str(port), "--admin-port", str(admin))
    with process(*command, log=tmp_path / "log", wait_for=[port, admin]) as server:
        run(_ends_while_pages_are_open(server, f"http://127.0.0.1:{admin}", 0))


def test_a_server_ends_while_pages_are_open_that_an_app_has_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.yaml").write_text(RULES)
    Path("shop.py").write_text(APP)
    port = free_port()
    command = ("shop:app", "--port", str(port), "--app-dir", str(tmp_path))
    with process(*command, log=tmp_path / "log", wait_for=[port], module="uvicorn") as server:
        # uvicorn raises the signal again.
        run(_ends_while_pages_are_open(server, f"http://127.0.0.1:{port}/canary", -signal.SIGTERM))
