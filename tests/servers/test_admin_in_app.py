"""The admin port beside an app under real servers: one worker has it, and another one takes over when it is killed."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clusters import in_loop
from hook_server import hook_server
from load import eventually
from preforked import rules
from servers import Answer, fetch, fetch_admin, free_port, mapping
from wsgiprocess import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

GUNICORN = ("gunicorn", "--no-control-socket", "--workers", "3", "--graceful-timeout", "5")
UVICORN = ("uvicorn", "--factory", "--log-level", "warning")
SERVERS = {
    "sync": (*GUNICORN,),
    "gthread preload": (*GUNICORN, "--threads", "2", "--preload"),
    "gevent": (*GUNICORN, "--worker-class", "gevent"),
    "gevent preload": (*GUNICORN, "--worker-class", "gevent", "--preload"),
    "uvicorn": (*UVICORN, "--workers", "3"),
    "one uvicorn": UVICORN,
}
SUPPORT = Path(__file__).parents[1] / "support"


@contextmanager
def app_served(
    server: str, tmp_path: Path, admin: int, name: str = "log", more: str = "", **settings: str
) -> Iterator[tuple[ServerProcess, int]]:
    """An app with an admin port; nobody has sent it a request.

    Args:
        more: rules besides.
        settings: by the names of their variables.
    """
    file = tmp_path / "rules.yaml"
    file.write_text(rules(1, 9) + more)
    port = free_port()
    if "uvicorn" in server:
        command = [*SERVERS[server], "--port", str(port), "preforked_asgi:create_app"]
    else:
        command = [*SERVERS[server], "--bind", f"127.0.0.1:{port}", "preforked:create_app()"]
    environ = {"PREFORKED_RULES": str(file), "CANARY_MW_ADMIN_PORT": str(admin), "CANARY_MW_RUN_DIR": ""}
    environ = {**environ, "XDG_RUNTIME_DIR": str(tmp_path), **settings}
    running = ServerProcess(command, SUPPORT, tmp_path / name, environ)
    try:
        running.wait_for_port(port)
        yield running, port
    except BaseException:
        print(running.output)
        raise
    finally:
        running.stop()


async def answered(port: int, path: str = "/readyz") -> Answer:
    """The answer of an admin port, as soon as there is one."""
    async with asyncio.timeout(40):
        while True:
            try:
                found = await fetch_admin(port, path)
            except (OSError, AssertionError):
                await asyncio.sleep(0.02)
                continue
            if found.status == 200:
                return found
            await asyncio.sleep(0.02)


def listener(port: int) -> int:
    """The process that listens on a port of 127.0.0.1."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == f"0100007F:{port:04X}" and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    found = set()
    for each in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(each) in inodes:
                found.add(int(each.parts[2]))
        except OSError:
            continue
    (pid,) = found
    return pid


@pytest.mark.parametrize("server", [each for each in SERVERS if each != "one uvicorn"])
@in_loop
async def test_one_worker_has_the_admin_port_and_another_takes_over(server: str, tmp_path: Path) -> None:
    admin = free_port()
    with app_served(server, tmp_path, admin) as (running, port):
        # No request has reached the app: a probe of the admin port is the first to ask.
        assert b"rules 1 are in force" in (await answered(admin)).body
        holder = listener(admin)
        assert (await fetch(port, "/shop/")).status == 200
        os.kill(holder, signal.SIGKILL)
        assert b"rules 1 are in force" in (await answered(admin)).body
        assert listener(admin) != holder
        metrics = await answered(admin, "/metrics")
        assert b"canary_mw_rules_clean" in metrics.body
        assert await asyncio.to_thread(running.stop) == 0
    found = [word for word in ("Traceback", "CRITICAL", "Warning", "goes on without") if word in running.output]
    assert found == [], running.output


RELEASE = """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: copies-2026
stable: copies
gray: [copies-gray]
sticky: {{header: x-user-id}}
promote: manual
steps:
- setWeight: 50
- pause: {{duration: 1h}}
- setWeight: 100
hooks:
- {{type: event, url: "{url}"}}
"""


async def phase_of(admin: int, path: str, *headers: tuple[str, str]) -> tuple[int, str]:
    """The status of an answer to a command, and the phase that the release has then."""
    answer = await fetch_admin(admin, path, "POST", headers)
    value = json.loads(answer.body)
    return answer.status, value["rollout"]["phase"] if answer.status == 200 else value["error"]["code"]


@pytest.mark.parametrize("server", ["sync", "gevent", "uvicorn"])
@in_loop
async def test_a_release_takes_commands_and_tells_its_hooks_beside_an_app(server: str, tmp_path: Path) -> None:
    admin, path, token = free_port(), "/api/v1/releases/copies-2026", "operate-token-0123456789abcdef"
    (tmp_path / "tokens").write_text(f"operate {token} alice\n")
    settings = {"CANARY_MW_ADMIN_TOKEN_FILE": str(tmp_path / "tokens"), "CANARY_MW_HOOK_HOSTS": "127.0.0.1"}
    with (
        hook_server() as hook,
        app_served(
            server,
            tmp_path,
            admin,
            more=mapping("copies-gray", "/copies/", "127.0.0.1:8", weight=0) + RELEASE.format(url=hook.url()),
            **settings,
        ) as served,
    ):
        await answered(admin, path)
        assert await phase_of(admin, f"{path}/promote") == (403, "no-token")
        assert await phase_of(admin, f"{path}/promote", ("authorization", f"Bearer {token}x")) == (401, "wrong-token")
        bearer = ("authorization", f"Bearer {token}")
        assert await phase_of(admin, f"{path}/promote", bearer) == (200, "Progressing")
        assert await phase_of(admin, f"{path}/pause", bearer, ("if-match", '"999"')) == (412, "version-moved")
        assert await phase_of(admin, f"{path}/abort", bearer) == (200, "Aborted")
        assert await phase_of(admin, f"{path}/promote", bearer) == (409, "refused")
        assert (
            b'canary_mw_release_phase{phase="Aborted",release="copies-2026"} 1.0'
            in (await answered(admin, "/metrics")).body
        )
        phases = [await asyncio.to_thread(hook.next) for _ in range(3)]
        assert [each.body["phase"] for each in phases] == ["Pending", "Progressing", "Aborted"]
        assert await asyncio.to_thread(served[0].stop) == 0
    assert token not in served[0].output
    assert "Traceback" not in served[0].output, served[0].output


@in_loop
async def test_a_second_server_says_once_that_it_goes_on_without_the_port(tmp_path: Path) -> None:
    admin = free_port()
    with app_served("one uvicorn", tmp_path, admin, "first") as (_, first):
        await answered(admin)
        before = listener(admin)
        with app_served("sync", tmp_path, admin, "second") as (second, port):
            for each in (first, port):
                assert (await fetch(each, "/shop/")).status == 200
            await eventually(lambda: "goes on without it" in second.output)
            assert listener(admin) == before
            os.kill(before, signal.SIGKILL)
            await answered(admin)
            assert listener(admin) != before
            assert second.output.count("goes on without it") == 1


@in_loop
async def test_heads_that_never_end_take_nothing_from_the_app(tmp_path: Path) -> None:
    admin = free_port()
    with app_served("sync", tmp_path, admin) as (running, port):
        await answered(admin)
        holding = [socket.create_connection(("127.0.0.1", admin)) for _ in range(200)]
        for each in holding:
            each.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n")
        assert (await answered(admin, "/healthz")).body == b"alive\n"
        assert (await fetch(port, "/shop/")).status == 200
        holder = listener(admin)
        open_files = len(os.listdir(f"/proc/{holder}/fd"))
        # 64 connections, and as many that linger.
        assert open_files < 64 * 2 + 40
        for each in holding:
            each.close()
        assert await asyncio.to_thread(running.stop) == 0


@in_loop
async def test_without_the_setting_no_port_is_open_and_nothing_is_loaded(tmp_path: Path) -> None:
    script = (
        "import os, sys; from canary_mw import CanaryWSGIMiddleware;"
        "CanaryWSGIMiddleware(print, rules=os.environ['PREFORKED_RULES'], local='shop').start();"
        "print(sorted({'uvicorn', 'starlette', 'prometheus_client'} & set(sys.modules)))"
    )
    environ = {"PREFORKED_RULES": str(tmp_path), "CANARY_MW_ADMIN_PORT": "0"}
    running = ServerProcess(["-c", script], SUPPORT, tmp_path / "log", environ, program=(sys.executable,))
    status = await asyncio.to_thread(running.child.wait, 30)
    running.stop()
    assert status == 0
    assert running.output.splitlines()[-1] == "[]"
