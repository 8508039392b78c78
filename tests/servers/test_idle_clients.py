"""Thousands of clients that keep their connections idle, and some that send requests all the time."""

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from load import load
from servers import Client, free_port, mapping, process, run
from upstream import forever, serving

from canary_mw.server.runner import raise_file_limit


@contextlib.contextmanager
def open_files(soft: int | None = None) -> Iterator[int]:
    """Within the block the process may have as many open files as the system allows, or fewer; how many."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft or most, most))
    try:
        yield soft or most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


async def clients(port: int, count: int) -> list[Client]:
    """Connections that have served a request each; not all at once, which is not what this is about."""
    made = []
    for _ in range(count):
        made.append(Client(*await asyncio.open_connection("127.0.0.1", port)))
        assert (await made[-1].get("GET", "/shop/")).status == 200
    return made


@pytest.mark.parametrize(
    ("idle", "requests"), [(150, 250), pytest.param(2000, 2500, marks=[pytest.mark.slow, pytest.mark.timeout(120)])]
)
def test_idle_clients_cost_the_others_nothing(idle: int, requests: int, tmp_path: Path) -> None:
    rules, port = tmp_path / "rules.yaml", free_port()
    rules.write_text(mapping("shop", "/shop/", "shop"))

    async def main() -> None:
        async with serving(forever) as upstream:
            arguments = ["serve", "--rules", str(rules), "--port", str(port)]
            arguments += ["--upstream", f"shop=http://127.0.0.1:{upstream.origin.port}"]
            # Fewer than the usual 1024, and than there are clients: it asks the system for more by itself.
            with open_files(soft=200):
                proxy = process(*arguments, log=tmp_path / "log", wait_for=[port])
                running = proxy.__enter__()
            try:
                quiet = await clients(port, idle)
                # 25 clients that ask 20 times a second: 500 requests a second, where the machine can do it.
                async with load(port, clients=25, pause=0.04) as counted:
                    await counted.more(requests)
                assert counted.lost == []
                for client in quiet:
                    assert (await client.get("GET", "/shop/")).status == 200
                    await client.close()
                assert running.stop() == 0
            finally:
                proxy.__exit__(None, None, None)

    with open_files() as most:
        if most < idle + 500:
            pytest.skip(f"the system allows {most} open files only")
        run(main())


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    with open_files(soft=200) as soft:
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft
        raise_file_limit()
        assert len(set(resource.getrlimit(resource.RLIMIT_NOFILE))) == 1


def test_where_the_system_does_not_allow_it_the_limit_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*limits: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_file_limit()
