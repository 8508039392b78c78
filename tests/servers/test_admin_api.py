"""The JSON API of `canary-mw serve` with several workers: one table, whoever asks and wherever."""

import asyncio
import json
import os
import re
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from admin_client import validated
from click.testing import CliRunner
from servers import Answer, client_of, fetch_admin, free_port, mapping, process, run
from upstream import Peer, forever, serving

from canary_mw.cli.main import main

pytestmark = pytest.mark.slow

RULES = (
    mapping("shop", "/shop/", "shop-stable")
    + mapping("shop-gray", "/shop/", "shop-gray", weight=0)
    + """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop-2
gray: {shop-gray: 20}
sticky: {header: x-user-id}
"""
)
REQUESTS, CONNECTIONS = 600, 12


async def every_tenth_fails(peer: Peer) -> None:
    """Answer requests; each tenth one of a connection is 503."""
    number = 0
    while True:
        await peer.request()
        number += 1
        await peer.answer(status=b"503 Service Unavailable" if number % 10 == 0 else b"200 OK")


async def load(port: int) -> Counter[tuple[str | None, int]]:
    """Send requests of many users; their answers by variant and status."""

    async def talk(first: int) -> Counter[tuple[str | None, int]]:
        found: Counter[tuple[str | None, int]] = Counter()
        async with client_of(port) as client:
            for number in range(first, REQUESTS, CONNECTIONS):
                answer = await client.get("GET", "/shop/", [("x-user-id", str(number))])
                found[answer.header("x-canary-variant"), answer.status] += 1
        return found

    return sum(await asyncio.gather(*map(talk, range(CONNECTIONS))), Counter())


async def asked(admin: int, path: str) -> Any:
    return validated(await answered(admin, path), path.partition("?")[0])


async def answered(admin: int, path: str) -> Answer:
    """The answer of any worker; one that was killed may have taken a connection with it."""
    while True:
        # The client asserts that there is an answer.
        with suppress(ConnectionError, AssertionError):
            return await fetch_admin(admin, path)


async def scraped(admin: int) -> Counter[tuple[str | None, str]]:
    """The requests of the metrics by variant and class of status."""
    text = (await answered(admin, "/metrics")).body.decode()
    found: Counter[tuple[str | None, str]] = Counter()
    for line in re.findall(r"^canary_mw_requests_total\{.*$", text, re.M):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        found[labels["variant"], labels["status_class"]] += int(float(line.rpartition(" ")[2]))
    return found


def by_class(seen: Counter[tuple[str | None, int]]) -> Counter[tuple[str | None, str]]:
    found: Counter[tuple[str | None, str]] = Counter()
    for (variant, status), count in seen.items():
        found[variant, f"{status // 100}xx"] += count
    return found


async def agreed(admin: int, seen: Counter[tuple[str | None, int]]) -> None:
    """Figures, metrics, overview and release show what the client has counted.

    Any worker may answer. What pages share is at most a second old, so that one may be behind another for so long.
    """
    wanted = by_class(seen)
    while (figures := await asked(admin, "/api/v1/figures"))["rows"] == [] or requests_in(figures) < seen.total():
        pass
    for row in figures["rows"]:
        assert row["requests"] == sum(count for (variant, _), count in seen.items() if variant == row["variant"])
    assert sum(each["requests"] for each in figures["reasons"]) == seen.total()
    assert await scraped(admin) == wanted
    for path in ("/api/v1/overview?window=1m", "/api/v1/overview?window=1h"):
        while (overview := await asked(admin, path))["totals"]["requests"] < seen.total():
            pass
        (release,) = overview["releases"]
        assert overview["totals"]["requests"] == release["requests"] == seen.total()
        assert overview["totals"]["errors"] == release["variants"]["shop-gray"]["errors"] == wanted["shop-gray", "5xx"]
        for variant in ("stable", "shop-gray"):
            status = release["variants"][variant]["status"]
            assert {name: count for name, count in status.items() if count} == {
                name: count for (each, name), count in wanted.items() if each == variant
            }


def requests_in(figures: Any) -> int:
    return sum(each["requests"] for each in figures["rows"])


def test_all_answers_agree_with_the_client_also_after_a_worker_was_killed(tmp_path: Path) -> None:
    path, port, admin = tmp_path / "rules.yaml", free_port(), free_port()
    path.write_text(RULES)
    url = f"http://127.0.0.1:{admin}"

    async def talk(stable: int, gray: int) -> None:
        arguments = ["serve", "--rules", str(path), "--workers", "2", "--port", str(port), "--admin-port", str(admin)]
        ports = {"stable": stable, "gray": gray}
        upstreams = [f"--upstream=shop-{name}=http://127.0.0.1:{each}" for name, each in ports.items()]
        with process(*arguments, *upstreams, log=tmp_path / "log", wait_for=[admin, port]) as proxy:
            result = await asyncio.to_thread(CliRunner().invoke, main, ["status", "--wait", "--admin", url])
            assert result.exit_code == 0, result.output
            assert "live on 2 of 2 workers" in result.output
            seen = await load(port)
            await agreed(admin, seen)
            workers = (await asked(admin, "/api/v1/about"))["workers"]
            os.kill(workers[0]["pid"], signal.SIGKILL)
            while not (about := await asked(admin, "/api/v1/about"))["ended"]:
                pass
            assert [each["pid"] for each in about["ended"]] == [workers[0]["pid"]]
            await agreed(admin, seen)
            shown = await asyncio.to_thread(CliRunner().invoke, main, ["top", "--once", "--admin", url])
            assert "shop-2" in shown.output
            # uvicorn asks its workers whether they live: one that is killed before it answers is missed 30 s later.
            again = ["status", "--wait", "--timeout", "90", "--admin", url]
            result = await asyncio.to_thread(CliRunner().invoke, main, again)
            assert result.exit_code == 0, result.output
            await agreed(admin, seen)
            await asyncio.to_thread(proxy.stop)

    async def whole() -> None:
        async with serving(forever) as stable, serving(every_tenth_fails) as gray:
            await talk(stable.origin.port, gray.origin.port)

    run(whole(), seconds=150)
    assert "Traceback" not in json.dumps((tmp_path / "log").read_text())
