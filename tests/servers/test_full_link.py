"""One lane through FastAPI, Flask and Django, over sockets: nobody is mixed up, and no host off the list is told."""

import asyncio
import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from installation import ROOT
from lane_chain import ENTRY
from redirecting import Heard, listening
from servers import client_of, fetch, free_port, run
from wsgiprocess import ServerProcess, served

from canary_mw import RouteTable

pytestmark = pytest.mark.slow

SUPPORT = ROOT / "tests" / "support"
CONNECTIONS, REQUESTS = 60, 1000
OTHER = {"gray": "stable", "stable": "gray"}


RELEASE = RouteTable.from_yaml(ENTRY, local=["app"], middleware=True).releases["chain"]


def expected(number: int) -> dict[str, str]:
    variant = RELEASE.variant_of(f"user-{number}")
    lane = f"chain={variant}"
    return {"entry": variant, "user": f"user-{number}", "orders": lane, "stock": variant, "why": "lane"}


def uvicorn(stack: ExitStack, log: Path, **environ: str) -> int:
    port = free_port()
    command = ["uvicorn", "--factory", "lane_entry:create_app", "--port", str(port), "--no-access-log"]
    running = ServerProcess(command, SUPPORT, log, environ)
    stack.callback(running.stop)
    running.wait_for_port(port)
    return port


async def asked(port: int, wanted: list[dict[str, str]]) -> list[Any]:
    """The answers to all numbers, over some connections at once; half of the clients forge a lane."""
    found: list[Any] = [None] * REQUESTS

    async def client(first: int) -> None:
        async with client_of(port) as connection:
            for number in range(first, REQUESTS, CONNECTIONS):
                headers = [("x-user", f"user-{number}")]
                if number % 5 < 2:
                    headers.append(("x-canary-lane", f"chain={OTHER[wanted[number]['entry']]}"))
                answer = await connection.get("GET", f"/chain/{number}", headers)
                found[number] = json.loads(answer.body) if answer.status == 200 else (answer.status, answer.body)

    await asyncio.gather(*map(client, range(CONNECTIONS)))
    return found


def heard_of_lanes(foreign: Heard) -> Counter[str | None]:
    return Counter(foreign.lanes)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("server", ["gthread", "gevent"])
def test_nobody_is_mixed_up_along_a_chain_of_three_services(server: str, tmp_path: Path) -> None:
    wanted = [expected(number) for number in range(REQUESTS)]
    with ExitStack() as stack:
        foreign = stack.enter_context(listening("x-canary-lane", body=b"{}"))
        environ = {"FOREIGN": foreign.url}
        _, stock = stack.enter_context(served("gthread", "lane_stock:create_app", tmp_path / "stock", **environ))
        environ["STOCK"] = f"http://127.0.0.1:{stock}"
        _, orders = stack.enter_context(served(server, "lane_orders:create_app", tmp_path / "orders", **environ))
        environ["ORDERS"] = f"http://127.0.0.1:{orders}"
        entry = uvicorn(stack, tmp_path / "entry", **environ)
        found = run(asked(entry, wanted), 150)
        assert [pair for pair in zip(found, wanted, strict=True) if pair[0] != pair[1]] == []
        assert {each["entry"] for each in found} == {"gray", "stable"}
        # A third of the requests ask it, a third are redirected to it, and so are a quarter of those to Django.
        assert heard_of_lanes(foreign) == {None: 334 + 333 + 250}

        async def left() -> set[str]:
            """What threads and connections still say, asked without a lane."""
            answers = [fetch(orders, "/orders/1", headers=[("x-user", "u")]) for _ in range(40)]
            return {json.loads(answer.body)["orders"] for answer in await asyncio.gather(*answers)}

        assert run(left()) == {""}
