"""Figures of several workers under real servers: each shows the sum, and one that is killed takes nothing along."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from counting import counting
from load import Load, eventually, load
from preforked import rules
from prometheus_client.parser import text_string_to_metric_families
from servers import fetch_admin, free_port, mapping, run
from upstream import Peer, serving
from wsgiprocess import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

GUNICORN = ("gunicorn", "--no-control-socket", "--workers", "4", "--graceful-timeout", "5")
APPS = {
    "sync": (*GUNICORN, "preforked:create_app()"),
    "gthread": (*GUNICORN, "--worker-class", "gthread", "--threads", "4", "preforked:create_app()"),
    "gthread preload": (*GUNICORN, "--threads", "4", "--preload", "preforked:create_app()"),
    "gevent": (*GUNICORN, "--worker-class", "gevent", "preforked:create_app()"),
    "flask": (*GUNICORN, "counted_flask:app"),
    "uvicorn": ("uvicorn", "--factory", "--workers", "4", "--log-level", "warning", "preforked_asgi:create_app"),
}
# Servers with four workers take their time to start on a busy machine.
SECONDS = 90
SUPPORT = Path(__file__).parents[1] / "support"


@contextmanager
def app_served(server: str, tmp_path: Path, admin: int, run_dir: str = "") -> Iterator[tuple[ServerProcess, int]]:
    """An app with an admin port, in four workers."""
    (tmp_path / "rules.yaml").write_text(rules(1, 9))
    port = free_port()
    *command, app = APPS[server]
    where = ["--bind", f"127.0.0.1:{port}"] if "gunicorn" in command else ["--port", str(port)]
    environ = {"PREFORKED_RULES": str(tmp_path / "rules.yaml"), "CANARY_MW_ADMIN_PORT": str(admin)}
    environ |= {"XDG_RUNTIME_DIR": str(tmp_path), "CANARY_MW_RUN_DIR": run_dir}
    running = ServerProcess([*command, *where, app], SUPPORT, tmp_path / "log", environ)
    try:
        running.wait_for_port(port)
        yield running, port
    except BaseException:
        print(running.output)
        raise
    finally:
        running.stop()


async def scraped(admin: int) -> float:
    """All requests, by one scrape; a worker that has the port may be killed meanwhile."""
    async with asyncio.timeout(40):
        while True:
            try:
                page = await fetch_admin(admin, "/metrics")
            except (OSError, AssertionError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.02)
                continue
            assert page.status == 200
            return total(page.body.decode())


def total(text: str) -> float:
    """The sum over all labels."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "canary_mw_requests_total")


async def idle_total(admin: int, asked: Load) -> float:
    """The total once nothing is under way, after it was seen to be the same 20 times."""
    seen = 0.0
    async with asyncio.timeout(30):
        while seen < asked.answered:
            found = await scraped(admin)
            assert found >= seen
            seen = found
    for _ in range(20):
        assert await scraped(admin) == seen
    return seen


async def killed_under_load(admin: int, asked: Load, pids: list[int]) -> None:
    """Kill processes one after the other, while no scrape ever shows less than the one before."""
    seen = 0.0
    for pid in pids:
        await asked.more(200)
        os.kill(pid, signal.SIGKILL)
        for _ in range(5):
            found = await scraped(admin)
            assert found >= seen
            seen = found
    await asked.more(200)


@pytest.mark.parametrize("server", APPS)
def test_one_scrape_says_the_exact_total_of_an_app_while_its_workers_are_killed(server: str, tmp_path: Path) -> None:
    admin = free_port()

    async def main(port: int) -> None:
        await scraped(admin)
        async with load(port, clients=4) as asked:
            await asked.more(200)
            await killed_under_load(admin, asked, counting(tmp_path)[:2])
        # What a client did not get may have been counted.
        assert asked.answered <= await idle_total(admin, asked) <= asked.answered + len(asked.lost)

    with app_served(server, tmp_path, admin) as (running, port):
        run(main(port), SECONDS)
    assert "Traceback" not in running.output


@contextmanager
def proxy_served(tmp_path: Path, upstream: int, *options: str) -> Iterator[ServerProcess]:
    """A `canary-mw serve` in front of an upstream."""
    path = tmp_path / "rules.yaml"
    path.write_text(mapping("shop", "/shop/", f"127.0.0.1:{upstream}"))
    command = ["canary_mw", "serve", "--rules", str(path), *options]
    running = ServerProcess(command, SUPPORT, tmp_path / "log", {"XDG_RUNTIME_DIR": str(tmp_path)})
    try:
        yield running
    except BaseException:
        print(running.output)
        raise
    finally:
        running.stop()


@pytest.mark.parametrize("workers", [2, 4])
def test_serve_shows_the_sum_of_its_workers_and_loses_nothing(workers: int, tmp_path: Path) -> None:
    admin, port = free_port(), free_port()
    options = ["--port", str(port), "--admin-port", str(admin), "--workers", str(workers)]

    async def answering(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b"1")

    async def main() -> None:
        async with serving(answering) as upstream:
            with proxy_served(tmp_path, upstream.origin.port, *options) as running:
                await eventually(lambda: len(counting(tmp_path)) == workers)
                async with load(port, clients=4) as asked:
                    await asked.more(200)
                    await killed_under_load(admin, asked, counting(tmp_path)[:1])
                # One that is told to end while it starts may not hear it.
                await eventually(lambda: len(counting(tmp_path)) == workers)
                assert asked.answered <= await idle_total(admin, asked) <= asked.answered + len(asked.lost)
            assert "Traceback" not in running.output

    run(main(), SECONDS)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 1 MiB on a folder."""
    folder.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", folder], check=False).returncode:
        pytest.skip("a file system of a bounded size cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_and_a_folder_that_is_wiped_end_no_request(tmp_path: Path) -> None:
    folder, admin = tmp_path / "run", free_port()

    async def main(port: int) -> None:
        async with load(port, clients=4) as asked:
            await asked.more(500)
            for each in os.listdir(folder):
                (folder / each).unlink()
            await asked.more(500)
        assert asked.lost == []

    with small_disk(folder):
        (folder / "ballast").write_bytes(bytes(900_000))
        with app_served("sync", tmp_path, admin, run_dir=str(folder)) as (running, port):
            run(main(port), SECONDS)
        assert "Traceback" not in running.output
