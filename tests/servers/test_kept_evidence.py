"""The evidence of a release in several workers of real servers: one that is killed under load takes no key along."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from counting import counting
from load import eventually
from servers import client_of, fetch_admin, free_port, mapping, run
from wsgiprocess import ServerProcess

from canary_mw.observability.attempts.release_evidence import read_evidence
from canary_mw.observability.evidence import Evidence, MeasureCounts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECONDS = 90
GUNICORN = ("gunicorn", "--no-control-socket", "--workers", "4", "--graceful-timeout", "5")
SERVERS = {
    "sync": (*GUNICORN, "judged:create_app()"),
    "uvicorn": ("uvicorn", "--factory", "--workers", "4", "--log-level", "warning", "judged:create_asgi_app"),
}
SUPPORT = Path(__file__).parents[1] / "support"
RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
stable: shop
gray: [gray]
sticky: [{header: x-user}]
steps: [{setWeight: 50}, {pause: {}}]
analysis: {metrics: [{name: error_rate}], minimum_keys: 1000}
"""
CLIENTS, USERS, KILLED = 4, 60, 2


class Asked(NamedTuple):
    """What became of requests: users that were answered, and whose request was lost; failures, and lost ones."""

    answered: set[str]
    lost: list[str]
    requests: list[bool]
    lost_requests: list[bool]


@contextmanager
def served(server: str, tmp_path: Path, admin: int) -> Iterator[tuple[ServerProcess, int]]:
    """The app in four workers, with a release that waits at 50 percent."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(mapping("shop", "/shop/", "shop-stable") + mapping("gray", "/shop/", "shop-gray") + RELEASE)
    port = free_port()
    *command, app = SERVERS[server]
    where = ["--bind", f"127.0.0.1:{port}"] if "gunicorn" in command else ["--port", str(port)]
    environ = {"PREFORKED_RULES": str(rules), "CANARY_MW_ADMIN_PORT": str(admin), "XDG_RUNTIME_DIR": str(tmp_path)}
    environ["CANARY_MW_STATE"] = str(tmp_path / "state")
    running = ServerProcess([*command, *where, app], SUPPORT, tmp_path / "log", environ)
    try:
        running.wait_for_port(port)
        yield running, port
    except BaseException:
        print(running.output)
        raise
    finally:
        running.stop()


async def until_all_draw(admin: int) -> None:
    """Until all workers have the weight of the first step in force."""
    async with asyncio.timeout(40):
        while True:
            try:
                page = await fetch_admin(admin, "/api/v1/releases/r")
            except (OSError, asyncio.IncompleteReadError):
                page = None
            found = json.loads(page.body) if page is not None and page.status == 200 else {}
            if (found.get("weights") or {}).get("gray") == 50 and found["in_force"]["workers_on_it"] == 4:
                return
            await asyncio.sleep(0.05)


async def client(port: int, name: int, asked: Asked) -> None:
    """Ask for one user after the other, twice each; every fifth one fails."""
    for number in range(USERS):
        user = f"u{name}-{number}"
        headers = [("x-user", user), *([("x-fail", "1")] if number % 5 == 0 else [])]
        for _ in range(2):
            try:
                async with client_of(port) as connection:
                    await connection.get("GET", "/shop/", headers)
            except (OSError, asyncio.IncompleteReadError, AssertionError):
                asked.lost.append(user)
                asked.lost_requests.append(number % 5 == 0)
            else:
                asked.answered.add(user)
                asked.requests.append(number % 5 == 0)


def evidence(tmp_path: Path) -> Evidence:
    """What all workers have counted."""
    (folder,) = {each.parent for each in tmp_path.glob("*/figures.lock")}
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return read_evidence(descriptor).releases["r"]
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("server", SERVERS)
def test_a_worker_that_is_killed_takes_no_key_along(server: str, tmp_path: Path) -> None:
    admin, asked = free_port(), Asked(set(), [], [], [])

    async def main(port: int) -> None:
        await until_all_draw(admin)
        pids = counting(tmp_path)[:KILLED]
        clients = [asyncio.create_task(client(port, name, asked)) for name in range(CLIENTS)]
        for wanted, pid in zip((100, 250), pids, strict=True):
            await eventually(lambda wanted=wanted: len(asked.requests) >= wanted)  # type: ignore[misc]
            os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*clients)
        # Workers that take their place begin no attempt anew.
        await eventually(lambda: len(set(counting(tmp_path)) - set(pids)) == 4)
        await until_all_draw(admin)

    with served(server, tmp_path, admin) as (running, port):
        run(main(port), SECONDS)
        found = evidence(tmp_path)
    assert "Traceback" not in running.output
    arms = [arm for epoch in found.epochs.values() for arm in epoch.values()]
    failures = [arm.measures.get("error_rate", MeasureCounts()) for arm in arms]
    # What a client did not get may have been counted. And an answer may have left a moment before a worker was killed
    # that would have counted it: one of each worker, which may serve several clients.
    cut = KILLED * (1 if server == "sync" else CLIENTS)
    failing = {user for user in asked.answered if int(user.partition("-")[2]) % 5 == 0}
    assert len(asked.answered) - cut <= sum(arm.seen for arm in arms) <= len(asked.answered | set(asked.lost))
    assert len(asked.requests) - cut <= sum(arm.requests for arm in arms) <= len(asked.requests) + len(asked.lost)
    bad, firsts = sum(each.bad for each in failures), sum(each.step_firsts for each in failures)
    assert sum(asked.requests) - cut <= bad <= sum(asked.requests) + sum(asked.lost_requests)
    assert len(failing) - cut <= firsts <= len(failing) + sum(asked.lost_requests)
    assert len(asked.answered) > CLIENTS * USERS * 0.9
