"""A release, installed into an empty environment, runs all that README begins with."""

import re
import tomllib
from pathlib import Path

import pytest
from installation import ROOT, Environment, InstalledServer
from servers import free_port, mapping

# A middleware of each kind answers from the app that it wraps, and by itself where it should forward.
MIDDLEWARES = """
import asyncio
from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"wsgi"]

async def asgi(scope, receive, send):
    print("asgi")

async def nothing(*_):
    return {"type": "http.request"}

environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}
scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"",
         "headers": [], "client": None, "server": None, "scheme": "http"}
threaded = CanaryWSGIMiddleware(wsgi, rules="rules.yaml", local="shop")
print(*threaded(environ, lambda *_: None))
asyncio.run(CanaryMiddleware(asgi, rules="rules.yaml", local="shop")(scope, nothing, nothing))
"""


def shows_all(released: Environment, folder: Path) -> None:
    """Run what a first user types."""
    (folder / "rules.yaml").write_text(mapping("shop", "/shop/", "shop"), encoding="utf-8")
    (folder / "both.py").write_text(MIDDLEWARES, encoding="utf-8")
    commands = {
        "python both.py": "b'wsgi'\nasgi\n",
        "canary-mw -V": "canary-mw, version",
        "canary-mw check rules.yaml": "",
        "canary-mw explain rules.yaml GET /shop/": "100 %",
        "canary-mw demo --once --port 0": "gray: true",
    }
    for command, expected in commands.items():
        outcome = released.run(*command.split(), cwd=folder)
        assert outcome.returncode == 0, f"{command}: {outcome.stdout}{outcome.stderr}"
        assert expected in outcome.stdout, command
        assert "Traceback" not in outcome.stderr, command
    serves(released, folder)


def serves(released: Environment, folder: Path) -> None:
    """Start the proxy and end it."""
    port = free_port()
    server = InstalledServer(released, ["canary_mw", "serve", "--rules", "rules.yaml", "--port", str(port)], folder, {})
    try:
        server.wait_for_port(port)
    finally:
        status = server.stop()
    assert (status, "Traceback" in server.output) == (0, False), server.output


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_release_runs_in_an_empty_environment_without_and_with_its_extras(
    kind: str, wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    file = {"wheel": wheel, "sdist": sdist}[kind]
    released = Environment(tmp_path / "environment")
    released.install_pinned(file)
    shows_all(released, tmp_path)
    assert released.run("python", "-c", "import uvloop", cwd=tmp_path).returncode == 1
    released.install_pinned(f"{file}[all]")
    assert released.run("python", "-c", "import uvloop", cwd=tmp_path).returncode == 0
    shows_all(released, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_release_runs_with_the_oldest_library_of_each_kind_that_it_allows(wheel: Path, tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = [each.replace(">=", "==") for each in project["dependencies"]]
    assert [each for each in oldest if not re.fullmatch(r"[\w-]+==[\d.]+", each)] == []
    released = Environment(tmp_path / "environment")
    released.install(wheel, *oldest)
    shows_all(released, tmp_path)
