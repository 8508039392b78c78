"""Releases with steps in every phase, served by processes: their states in a folder, and who gets gray."""

import contextlib
import json
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from servers import mapping

from canary_mw.control.rollouts.sqlite import SQLiteStore
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.rollout.commands import Command, CommandName, Who, command
from canary_mw.rollout.engine import Now, tick
from canary_mw.rollout.state import ReleaseState, from_json
from canary_mw.rules.release import GrayRelease
from canary_mw.run_folder.folder import Folder

# The steps of all of them: nothing happens by itself within a test, unless it asks for that.
LONG = {"pause": {"duration": "600s"}}
STEPS = [{"setWeight": 20}, LONG, {"setWeight": 50}, LONG, {"setWeight": 100}]
# The commands by which a release comes from its first step into a phase; the others are put there.
_COMMANDS: dict[str, tuple[dict[str, Any], ...]] = {
    "pending": (),
    "progressing": ({"name": "promote"},),
    "paused": ({"name": "promote"}, {"name": "pause"}),
    "held": ({"name": "promote"},),
    "baking": ({"name": "promote", "full": True},),
    "completed": ({"name": "promote", "full": True}, {"name": "promote"}),
    "rolledback": ({"name": "promote"},),
    "aborted": ({"name": "promote"}, {"name": "abort"}),
}
PHASES = tuple(_COMMANDS)
_KEYS = 100
_WHO = Who("a test")
# A limit for what must happen, not a measure of it.
DEADLINE = 30.0


def rules(*names: str, steps: Any = STEPS, **more: Any) -> str:
    """A release for each name, below a path of that name."""
    text = ""
    for name in names:
        text += mapping(name, f"/{name}/", "stable") + mapping(f"{name}-gray", f"/{name}/", "gray", weight=0)
        fields = {"salt": name, "stable": name, "gray": [f"{name}-gray"], "sticky": [{"header": "x-user"}], **more}
        fields |= {"steps": steps, "bake": {"duration": "600s"}, "choice": {"header": "x-choose"}}
        if name == "pending":
            fields["hooks"] = [{"type": "confirm-rollout", "url": "http://127.0.0.1:9/"}]
        lines = [f"{key}: {json.dumps(value)}" for key, value in fields.items()]
        text += "\n".join(["---", "apiVersion: canary-mw/v1", "kind: GrayRelease", f"name: {name}", *lines, ""])
    return text


def put_states(folder: Path, text: str) -> None:
    """Put each release of some rules into the phase that it is named after."""
    store = RuleStore(StaticSource(text))
    store.reload()
    assert store.error is None, store.error
    states = SQLiteStore(Folder(str(folder)))
    for document in store.table.documents.in_force:
        assert states.compare_and_set(document.name, _state(document), None)
    states.close()


def _state(document: GrayRelease) -> ReleaseState:
    now = Now(controller=True)
    state = tick(document, None, None, now).state
    assert state is not None
    for each in _COMMANDS[document.name]:
        name: CommandName = each["name"]
        following = command(document, state, Command(name=name, full=each.get("full", False)), _WHO).state
        assert following is not None
        state = following
    if document.name == "held":
        return replace(state, phase="Held", held_by="metric", reason="a metric says so")
    if document.name == "rolledback":
        return replace(state, phase="RolledBack", weights=dict.fromkeys(state.weights, 0.0))
    return state


class States:
    """The states that processes keep in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> dict[str, tuple[ReleaseState, int]]:
        """States and versions by name, with the seconds of the last checkpoint."""
        with contextlib.closing(sqlite3.connect(self.folder / "state.db")) as connection:
            rows = connection.execute("select name, state, version from states").fetchall()
            kept = dict(connection.execute("select name, data from checkpoints").fetchall())
        found = {}
        for name, text, version in rows:
            state = from_json(text)
            progress = json.loads(kept[name].partition(b"\n")[0]) if name in kept else {}
            if (progress.get("attempt"), progress.get("visit")) == (state.attempt, state.visit):
                state = replace(state, elapsed=max(state.elapsed, progress["elapsed"]))
            found[name] = (state, version)
        return found

    def log_writes(self) -> None:
        """Keep every state that is written from now on."""
        with contextlib.closing(sqlite3.connect(self.folder / "state.db")) as connection:
            connection.execute("create table writes (name text, version integer, state text)")
            for event in ("insert", "update"):
                connection.execute(
                    f"create trigger on_{event} after {event} on states begin"
                    " insert into writes values (new.name, new.version, new.state); end"
                )
            connection.commit()

    def writes(self, name: str) -> list[tuple[int, ReleaseState]]:
        """The versions of a release that were written, in their order."""
        with contextlib.closing(sqlite3.connect(self.folder / "state.db")) as connection:
            found = connection.execute("select version, state from writes where name = ? order by rowid", (name,))
            return [(version, from_json(text)) for version, text in found]

    def controller(self) -> int:
        """The number of the process that controls, 0 before there is one."""
        try:
            content = (self.folder / "latches").read_bytes()
        except FileNotFoundError:
            return 0
        return int(struct.unpack_from("<Q", content, 16)[0]) if len(content) > 24 else 0


class Upstreams:
    """The two versions of a service.

    Attributes:
        failing: whether gray fails.
    """

    def __init__(self) -> None:
        self.failing = False
        self._servers = {name: self._serve(name) for name in ("stable", "gray")}

    def _serve(self, name: str) -> ThreadingHTTPServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body go out together: else a client waits for one of the two.
            wbufsize = -1

            def do_GET(self) -> None:
                failed = name == "gray" and owner.failing
                self.send_response(500 if failed else 200)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    @property
    def options(self) -> list[str]:
        """Where they are, for `canary-mw serve`."""
        found = ((name, each.server_address[1]) for name, each in self._servers.items())
        return [part for name, port in found for part in ("--upstream", f"{name}=http://127.0.0.1:{port}")]

    def close(self) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def upstreams() -> Iterator[Upstreams]:
    """Both versions, until the block ends."""
    found = Upstreams()
    try:
        yield found
    finally:
        found.close()


def ask(port: int, name: str, *keys: str) -> list[str]:
    """Who answers each of some keys."""
    found = []
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        for key in keys:
            connection.request("GET", f"/{name}/", headers={"x-user": key})
            found.append(connection.getresponse().read().decode())
    return found


def gray_share(port: int, name: str, *, keys: int = _KEYS, **headers: str) -> float:
    """The percent of the keys that gets gray, each over the same connection."""
    gray = 0
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        for key in range(keys):
            connection.request("GET", f"/{name}/", headers={"x-user": f"user-{key}", **headers})
            gray += connection.getresponse().read() == b"gray"
    return 100 * gray / keys


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A file system of 1 MiB on a folder; yields what fills it, and what makes room again."""
    folder.mkdir(mode=0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", folder], check=False).returncode:
        pytest.skip("a file system of a bounded size cannot be mounted here")

    def fill() -> None:
        with contextlib.suppress(OSError), (folder / "fill").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    try:
        yield fill
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """What a condition gives as soon as that is true."""
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, what or condition
        time.sleep(0.02)
    return found


def serve_options(path: Path, state: Path, found: Upstreams, port: int, workers: int = 1) -> list[str]:
    """The arguments of `canary-mw serve`."""
    places = ["--rules", str(path), "--state", str(state), *found.options]
    return ["serve", *places, "--port", str(port), "--workers", str(workers), "--admin-port", "0"]
