"""An auth service by grpcio is asked by real servers: after forks, by greenlets, and by the standalone proxy."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import guarded
import pytest
from servers import Answer, Process, fetch, free_port, mapping, run
from upstream import Peer, serving
from wsgiprocess import ServerProcess, served

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[1] / "support"


class AuthProcess(Process):
    """The service in a process of its own."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, str(SUPPORT / "grpc_auth.py"), f"127.0.0.1:{port}"]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE)


@contextlib.contextmanager
def auth_process(port: int) -> Iterator[None]:
    """The service until the block ends."""
    process = AuthProcess(port)
    try:
        process.wait_for_port(port)
        yield
    finally:
        process.child.communicate()


async def asked(port: int, number: int) -> Answer:
    return await fetch(port, "/x", headers=[("x-token", str(number))])


@pytest.mark.parametrize("server", ["sync", "preload", "gevent", "gevent preload", "waitress"])
def test_a_guarded_app_asks_after_forks_and_by_greenlets(server: str, tmp_path: Path) -> None:
    async def main(port: int) -> set[int]:
        denied = await fetch(port, "/x")
        assert (denied.status, denied.body) == (401, b"who are you?")
        pids: set[int] = set()
        for _ in range(10):
            answers = [json.loads(each.body) for each in await asyncio.gather(*(asked(port, n) for n in range(20)))]
            # Nobody gets the answer of another.
            assert [each["id"] for each in answers] == [str(n) for n in range(20)]
            pids |= {each["pid"] for each in answers}
        return pids

    auth_port = free_port()
    with auth_process(auth_port):
        early = {"GUARDED_EARLY": "1"} if server == "preload" else {}
        environ = {"GUARDED_AUTH": f"127.0.0.1:{auth_port}", **early}
        with served(server, "guarded:create_app", tmp_path / "log", **environ) as (process, port):
            assert run(main(port))
        assert "Traceback" not in process.output


def test_the_standalone_proxy_asks_and_closes_the_door_while_the_service_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def shop(peer: Peer) -> None:
            while True:
                request = await peer.request()
                seen.extend(line for line in request.headers if line.startswith(b"x-id: "))
                await peer.answer(b"shop")

        async with serving(shop) as upstream:
            rules = tmp_path / "rules.yaml"
            port, auth_port = free_port(), free_port()
            rules.write_text(mapping("shop", "/", upstream.origin.authority) + guarded.rules(f"127.0.0.1:{auth_port}"))
            command = ["canary_mw", "serve", "--rules", str(rules), "--port", str(port)]
            process = ServerProcess(command, SUPPORT, tmp_path / "log", {})
            try:
                await asyncio.to_thread(process.wait_for_port, port)
                assert (await asked(port, 1)).status == 403
                for _ in range(2):
                    # It comes, answers, and goes.
                    with auth_process(auth_port):
                        answers = await asyncio.gather(*(asked(port, n) for n in range(50)))
                        assert {each.status for each in answers} == {200}
                        assert (await fetch(port, "/x")).status == 401
                    assert (await asked(port, 1)).status == 403
                assert sorted(seen) == sorted([b"x-id: %d" % n for n in range(50)] * 2)
            finally:
                process.stop()

    run(main())
