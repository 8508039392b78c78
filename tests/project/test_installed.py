"""The installed package, run from outside the checkout: commands, and servers that are given its names."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from installation import Installation, InstalledServer
from servers import Answer, fetch, free_port, hello, mapping, run, serving_app

from canary_mw import __version__

VERSION = f"canary-mw, version {__version__}\n"
ASGI_APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
WSGI_APP = """
from canary_mw import CanaryWSGIMiddleware

def hello(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

app = CanaryWSGIMiddleware(hello, rules="rules.yaml", local="shop")
"""


@contextmanager
def served(installed: Installation, cwd: Path, *command: str, **variables: str) -> Iterator[int]:
    """A server on a port that is yielded, "PORT" in the command; it ends in good order."""
    port = free_port()
    server = InstalledServer(installed, [word.replace("PORT", str(port)) for word in command], cwd, variables)
    try:
        server.wait_for_port(port)
        yield port
    finally:
        status = server.stop()
    assert (status, "Traceback" in server.output) == (0, False), server.output


def test_it_is_the_installed_package_that_is_tested_here(installed: Installation, tmp_path: Path) -> None:
    code = "import canary_mw, importlib.metadata as m; print(canary_mw.__file__, m.version('canary-mw'), sep='\\n')"
    place, version = installed.run("python", "-c", code, cwd=tmp_path).stdout.splitlines()
    assert Path(place).is_relative_to(installed.folder)
    assert version == __version__


@pytest.mark.parametrize("command", ["canary-mw --version", "canary-mw -V", "python -m canary_mw --version"])
def test_the_command_tells_its_version(installed: Installation, command: str, tmp_path: Path) -> None:
    outcome = installed.run(*command.split(), cwd=tmp_path)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, VERSION, "")


def test_the_demo_runs_once(installed: Installation, tmp_path: Path) -> None:
    outcome = installed.run("canary-mw", "demo", "--once", cwd=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "gray: true" in outcome.stdout


def test_uvicorn_runs_the_proxy_with_two_workers(installed: Installation, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(mapping("shop", "/shop/", "shop"), encoding="utf-8")
    command = ("uvicorn", "canary_mw.proxy:create_app", "--factory", "--workers", "2", "--port", "PORT")

    async def main() -> Answer:
        async with serving_app(hello) as upstream:
            places = {"CANARY_MW_RULES": "rules.yaml", "CANARY_MW_UPSTREAM": f"shop=http://127.0.0.1:{upstream}"}
            with served(installed, tmp_path, *command, **places) as port:
                return await fetch(port, "/shop/")

    answer = run(main())
    assert (answer.status, answer.body) == (200, b"from the app")


def test_uvicorn_runs_the_guarded_protocol_with_two_workers(installed: Installation, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ASGI_APP, encoding="utf-8")
    command = ("uvicorn", "--http", "canary_mw.protocol:GuardedProtocol", "--workers", "2", "--port", "PORT", "app:app")
    with served(installed, tmp_path, *command) as port:
        answer = run(fetch(port, "/"))
        with socket.create_connection(("127.0.0.1", port)) as client:
            # The protocols of uvicorn let two of them pass.
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            refusal = client.recv(64)
    assert (answer.status, answer.body) == (200, b"ok")
    assert refusal.startswith(b"HTTP/1.1 400 ")


def test_gunicorn_runs_the_wsgi_middleware_that_it_loaded_before_its_workers(
    installed: Installation, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(WSGI_APP, encoding="utf-8")
    (tmp_path / "rules.yaml").write_text(mapping("shop", "/shop/", "shop"), encoding="utf-8")
    command = ("gunicorn", "--preload", "--workers", "2", "--no-control-socket", "--bind", "127.0.0.1:PORT", "app:app")
    with served(installed, tmp_path, *command) as port:
        answer = run(fetch(port, "/shop/"))
    assert (answer.status, answer.body) == (200, b"ok")
