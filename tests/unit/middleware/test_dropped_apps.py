"""Apps that are dropped without a lifespan or a `close`, as test suites do by hundreds: they leave nothing behind."""

import asyncio
import gc
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from load import eventually
from servers import mapping, run
from upstream import Upstream, forever, serving

from canary_mw.forking import SystemThread, running_threads
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

APPS = 30
PATHS = ("/local/", "/gray/", "/checked/")


def rules(folder: Path, upstream: Upstream) -> Path:
    """A local service, a gray one, and one whose health is checked in the background."""
    there = f"127.0.0.1:{upstream.origin.port}"
    checks = "[{health_check: {http: {path: /}}, interval: 10s}]"
    path = folder / "rules.yaml"
    path.write_text(
        mapping("local", "/local/", "shop")
        + mapping("gray", "/gray/", there)
        + mapping("checked", "/checked/", there, health_checks=checks)
    )
    return path


def ask_asgi(path: Path) -> object:
    """An app that has answered."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    made = CanaryMiddleware(app, rules=path, local="shop")

    async def call(target: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://shop") as client:
            return (await client.get(target)).status_code

    # A loop for each request and no lifespan, as in a test client that is not entered.
    assert [asyncio.run(call(each)) for each in PATHS] == [200, 200, 200]
    return made


def ask_wsgi(path: Path) -> object:
    """An app that has answered."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("content-length", "0")])
        return [b""]

    statuses = []

    def start(line: str, *_: Any) -> Any:
        statuses.append(line[:3])

    made = CanaryWSGIMiddleware(app, rules=path, local="shop")
    for each in PATHS:
        environ = {"REQUEST_METHOD": "GET", "RAW_URI": each, "PATH_INFO": each, "HTTP_HOST": "shop"}
        b"".join(made({**environ, "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO()}, start))
    assert statuses == ["200"] * len(PATHS)
    return made


def files() -> int:
    """Open descriptors of the process."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts what /proc shows")
@pytest.mark.parametrize("ask", [ask_asgi, ask_wsgi])
def test_many_apps_leave_no_thread_and_no_descriptor(ask: Callable[[Path], object], tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            path = rules(tmp_path, upstream)
            before = set(running_threads())
            # What the first one opens for good, such as modules.
            await asyncio.to_thread(ask, path)
            await eventually(lambda: gone(before, upstream))
            open_files = files()
            apps = [await asyncio.to_thread(ask, path) for _ in range(APPS)]
            assert len(set(running_threads()) - before) >= APPS
            del apps
            await eventually(lambda: gone(before, upstream) and files() <= open_files)

    run(main())


def gone(before: set[SystemThread], upstream: Upstream) -> bool:
    """Whether only these threads are left, and no connection to the upstream, when garbage is collected."""
    # Again and again: a thread that made an app may keep it for a moment.
    gc.collect()
    return set(running_threads()) <= before and not upstream.scripts


SCRIPT = """
import io, logging, sys
from canary_mw import CanaryWSGIMiddleware
logging.getLogger("canary_mw").setLevel(logging.WARNING)
app = CanaryWSGIMiddleware(None, rules=sys.argv[1])
for path in ("/gray/", "/checked/"):
    environ = {"REQUEST_METHOD": "GET", "RAW_URI": path, "PATH_INFO": path, "HTTP_HOST": "shop"}
    print(b"".join(app({**environ, "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO()}, lambda *_: None)).decode())
"""


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()\n"])
def test_a_process_that_closes_nothing_ends_without_a_warning(patch: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            command = [sys.executable, "-X", "dev", "-c", patch + SCRIPT, str(rules(tmp_path, upstream))]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
            # On a busy machine the debug mode of asyncio names what took long.
            told = re.sub(r"^Executing <.*> took [\d.]+ seconds\n", "", done.stderr, flags=re.M)
            assert (done.returncode, told) == (0, "")
            assert len(done.stdout.split()) == 2

    run(main())
