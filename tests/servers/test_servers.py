"""The middlewares under the servers that people run: all kinds of traffic while rules change, SIGTERM in an upload."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import traffic as ways
from echo import LOCAL, answer, echo
from servers import fetch, free_port, mapping, run
from standalone import wire_to
from traffic import Way, request, traffic
from upstream import Peer, serving
from websockets.asyncio.server import ServerConnection, serve
from wsgiprocess import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SUPPORT = Path(ways.__file__).parent
UWSGI_PROGRAM = Path(sys.executable).with_name("uwsgi")
# How often each way is gone at least, and how often the rules change meanwhile.
TIMES = 10
CHANGES = 6
WSGI: dict[Way, float] = {
    ways.reads: 5,
    ways.last_reads: 2,
    ways.uploads: 2,
    ways.chunked_uploads: 1,
    ways.streams: 1,
    ways.leaves: 1,
    ways.aborts: 1,
}
# Such a server does not tell an app where a body in chunks ends; what is to be forwarded is 411.
UWSGI = {way: share for way, share in WSGI.items() if way is not ways.chunked_uploads}
ASGI: dict[Way, float] = {**WSGI, ways.websockets: 1, ways.local_websockets: 1}


class Kind(NamedTuple):
    """A server.

    Attributes:
        command: as it is started, without the app.
        ways: of its clients.
        passes_on: an app gets the body of a request while it comes.
        graceful: after SIGTERM, it completes the requests that it has begun.
    """

    command: str
    ways: dict[Way, float]
    passes_on: bool = True
    graceful: bool = True

    @property
    def program(self) -> str:
        """Module, or program where the server is not one of Python."""
        return self.command.split()[0]


_UVICORN = "uvicorn --no-access-log --log-level warning --timeout-graceful-shutdown 15 --port {port}"
_GUNICORN = "gunicorn --no-control-socket --graceful-timeout 15 --keep-alive 60 --workers 2 --bind 127.0.0.1:{port}"
_GRANIAN = "granian --host 127.0.0.1 --port {port} --log-level warning --interface"
_UWSGI = (
    "uwsgi --http11-socket 127.0.0.1:{port} --master --processes 2 --threads 16 --enable-threads --die-on-term"
    " --disable-logging --virtualenv {prefix} --module"
)
KINDS = {
    "uvicorn": Kind(f"{_UVICORN} --loop uvloop --http httptools", ASGI),
    "uvicorn, asyncio and h11": Kind(f"{_UVICORN} --loop asyncio --http h11", ASGI),
    "uvicorn, guarded": Kind(f"{_UVICORN} --http canary_mw.protocol:GuardedProtocol", ASGI),
    "hypercorn": Kind("hypercorn --bind 127.0.0.1:{port} --graceful-timeout 15", ASGI),
    "granian": Kind(f"{_GRANIAN} asgi", ASGI),
    "daphne": Kind("daphne --bind 127.0.0.1 --port {port} --verbosity 0", ASGI, passes_on=False, graceful=False),
    "gunicorn, uvicorn workers": Kind(f"{_GUNICORN} --worker-class uvicorn_worker.UvicornWorker", ASGI),
    "gunicorn sync": Kind(_GUNICORN, WSGI),
    "gunicorn gthread": Kind(f"{_GUNICORN} --worker-class gthread --threads 16", WSGI),
    "gunicorn gthread, preload": Kind(f"{_GUNICORN} --worker-class gthread --threads 16 --preload", WSGI),
    "gunicorn gevent": Kind(f"{_GUNICORN} --worker-class gevent", WSGI),
    "gunicorn gevent, preload": Kind(f"{_GUNICORN} --worker-class gevent --preload", WSGI),
    "granian, WSGI": Kind(f"{_GRANIAN} wsgi --blocking-threads 16", WSGI),
    "waitress": Kind("waitress --listen 127.0.0.1:{port} --threads 16", WSGI, passes_on=False, graceful=False),
    "cheroot": Kind("cheroot --bind 127.0.0.1:{port} --threads 16", WSGI, graceful=False),
    "uwsgi": Kind(_UWSGI, UWSGI, graceful=False),
}


def rules(number: int) -> str:
    """Rules that differ from those before in a weight and in a Mapping."""
    common = {"rewrite": '""', "timeout_ms": 20000}
    return (
        mapping("stable", "/", "stable", **common)
        + mapping("gray", "/", "gray", weight=(20, 50, 80)[number % 3], **common)
        + mapping("tester", "/", "gray", headers="{gray: 'true'}", **common)
        + mapping("local", "/local/", "stable", allow_upgrade="[websocket]", **common)
        + mapping("sockets", "/ws/", "sockets", allow_upgrade="[websocket]", **common)
        + mapping(f"x{number}", f"/x{number}/", "gray", **common)
    )


class Rules:
    """The rules in a file.

    Attributes:
        number: that of the newest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.change()

    def change(self) -> None:
        """Swap them."""
        self.number += 1
        aside = self.path.with_suffix(".new")
        aside.write_text(rules(self.number))
        aside.replace(self.path)

    async def in_force(self, port: int) -> None:
        """Until all workers of a server have the newest, as far as some requests tell."""
        seen = 0
        while seen < 8:
            said = json.loads((await fetch(port, f"/x{self.number}/")).body)
            seen = 0 if said["who"] == LOCAL else seen + 1


class Gray:
    """The gray version. It answers a request for `/last/` when it is told to, and dates the answer for `/dated/`.

    Attributes:
        begun: such a request, or a part of it, has come.
        go_on: set to have it answered.
    """

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def script(self, peer: Peer) -> None:
        """For `serving`."""
        while True:
            head = await peer.head()
            if b" /dated/" in head.line:
                await peer.answer(b"", b"date: Thu, 01 Jan 1970 00:00:00 GMT", b"server: gray")
                continue
            last = b" /last/" in head.line
            if last:
                self.begun.set()
            whole = await peer.rest_of(head)
            if last:
                await self.go_on.wait()
            await echo(peer, "gray", whole)


async def check_headers(port: int) -> None:
    """A response from gray has one `date` and one `server`, whether the server adds its own or not."""
    dated = await fetch(port, "/dated/", headers=[("gray", "true")])
    names = Counter(name for name, _ in dated.headers)
    assert (dated.status, names[b"date"], names[b"server"]) == (200, 1, 1)


async def repeat(websocket: ServerConnection) -> None:
    """The gray version of a WebSocket."""
    async for message in websocket:
        await websocket.send(message)


@contextlib.asynccontextmanager
async def served(kind: Kind, folder: Path, gray: Gray) -> AsyncIterator[tuple[ServerProcess, int]]:
    """Run a server until the block ends; yields it and its port."""
    port = free_port()
    app = "echo_asgi:app" if kind.ways is ASGI else "echo_wsgi:app"
    program, *arguments = [*kind.command.format(port=port, prefix=sys.prefix).split(), app]
    start = [sys.executable, "-X", "dev", "-m", program]
    if program == "uwsgi":
        start = [str(UWSGI_PROGRAM)]
    async with serving(gray.script) as upstream, serve(repeat, "127.0.0.1", 0, compression=None) as sockets:
        ports = upstream.origin.port, sockets.sockets[0].getsockname()[1]
        environ = dict(zip(("ECHO_GRAY", "ECHO_SOCKETS"), (f"http://127.0.0.1:{each}" for each in ports), strict=True))
        environ["ECHO_RULES"] = str(folder / "rules.yaml")
        running = ServerProcess(arguments, SUPPORT, folder / "log", environ, start)
        try:
            await asyncio.to_thread(running.wait_for_port, port)
            yield running, port
        finally:
            running.stop()


async def end(running: ServerProcess, port: int, kind: Kind, gray: Gray) -> bytes | None:
    """Terminate a server in an upload; what its client gets, None for nothing."""
    body = os.urandom(200_000)
    head = request(b"POST", b"/last/", b"token", b"content-length: %d" % len(body), b"gray: true")
    async with wire_to(port) as wire:
        try:
            await wire.ask(head + body[: 50_000 if kind.passes_on else None])
            await gray.begun.wait()
            running.terminate()
            await ending(running, port)
            await wire.ask(body[50_000:] if kind.passes_on else b"")
            gray.go_on.set()
            answered = await wire.answer()
        except (OSError, AssertionError):
            return None
    assert answered.whole
    assert answered.body == answer("gray", "token", body)
    return answered.body


async def ending(running: ServerProcess, port: int) -> None:
    """Until a server takes no more connections, or for as long as some go on to take them."""
    with contextlib.suppress(OSError):
        for _ in range(100):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await asyncio.sleep(0.01)


def skip_without(kind: Kind) -> None:
    """Skip where a server is not installed."""
    if kind.program == "uwsgi":
        if not UWSGI_PROGRAM.exists():
            pytest.skip("uwsgi is not there: no C compiler has built it")
        return
    missing = [each for each in (kind.program, "uvicorn_worker") if each in kind.command and find_spec(each) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed; make test-slow installs it")


@pytest.mark.parametrize("name", KINDS)
def test_requests_get_their_own_answers_while_rules_change(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    skip_without(kind)

    async def main() -> None:
        newest, gray = Rules(tmp_path / "rules.yaml"), Gray()
        async with served(kind, tmp_path, gray) as (running, port):
            await check_headers(port)
            async with traffic(port, kind.ways, clients=8) as done:
                each = asyncio.create_task(done.each(kind.ways, TIMES))
                while newest.number < CHANGES or not each.done():
                    newest.change()
                    await asyncio.sleep(0.4)
                await newest.in_force(port)
            assert done.lost == []
            assert {*done.answered} == {LOCAL, "gray"}
            answered = await end(running, port, kind, gray)
            assert answered is not None or not kind.graceful
            assert await asyncio.to_thread(running.child.wait, 20) in (0, -signal.SIGTERM)
        # Nothing of ours in a traceback or a warning. The debug mode of asyncio tells what took long, too.
        assert [line for line in running.output.splitlines() if "/canary_mw/" in line and " took " not in line] == []

    run(main(), 100)
