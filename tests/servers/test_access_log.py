"""The access log of several workers of `canary-mw serve`: no line is lost, and none is mixed with another."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from rules import document
from servers import client_of, free_port, process, run
from upstream import forever, serving

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 8, 150


async def ask(port: int, client: int) -> None:
    async with client_of(port) as connection:
        for number in range(REQUESTS):
            # Longer than a pipe takes whole now and then.
            path = f"/shop/{client}/{number}/" + "x" * (3000 if number % 10 == 0 else 30)
            assert (await connection.get("GET", path)).status == 200


def test_lines_of_several_workers_are_whole_and_all_there(tmp_path: Path) -> None:
    rules, log, port = tmp_path / "rules.yaml", tmp_path / "log", free_port()
    rules.write_text(document("shop", prefix="/shop/"))

    async def main() -> None:
        async with serving(forever) as upstream:
            arguments = ["serve", "--rules", str(rules), "--port", str(port), "--workers", "2", "--admin-port", "0"]
            arguments += ["--upstream", f"*=http://127.0.0.1:{upstream.origin.port}"]
            with process(*arguments, "--access-log", log=log, wait_for=[port]) as proxy:
                await asyncio.gather(*(ask(port, client) for client in range(CLIENTS)))
                # At once: what waits to be written is written at the end.
                await asyncio.to_thread(proxy.stop)

    run(main(), 100)
    lines = [line for line in log.read_text().splitlines() if "/shop/" in line]
    paths = [json.loads(line)["path"] for line in lines]
    asked = Counter(tuple(path.split("/")[2:4]) for path in paths)
    expected = {(str(client), str(number)) for client in range(CLIENTS) for number in range(REQUESTS)}
    assert asked == Counter(expected)
