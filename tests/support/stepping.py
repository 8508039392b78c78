"""A release with steps under `canary-mw serve` with several workers: upstreams with knobs, users, and its state."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from servers import free_port, mapping, process
from upstream import Peer, serving

from canary_mw.control.rollouts.checkpoints import Progress, progress_in
from canary_mw.rollout.state import ReleaseState, from_json
from canary_mw.routing.sticky import digest_function
from canary_mw.rules.release import SLOTS, HashFunction

NAME, SALT = "shop", "salt"
KEYS = 2000
_CLIENTS = 16


@dataclass
class Knobs:
    """What an upstream does: the part of its answers that fail, seconds before each, and users that always fail."""

    error: float = 0.0
    delay: float = 0.0
    failing: set[bytes] = field(default_factory=set)


class Users:
    """Requests of users with sticky keys, whose slots are spread evenly: weights are met by keys, not by chance."""

    def __init__(self, port: int) -> None:
        self.seen: list[tuple[int, bytes]] = []
        self.failed = 0
        self._port = port
        self._random = Random(1)
        self._keys = _even_keys()
        self._order: list[int] = []

    async def send(self, count: int) -> list[tuple[int, bytes]]:
        """Send requests, of all users in turn; returns (slot, who answered) of each."""
        begun = len(self.seen)
        shares = [count // _CLIENTS + (number < count % _CLIENTS) for number in range(_CLIENTS)]
        await asyncio.gather(
            *(self._ask(share, self._next, network=each) for each, share in enumerate(shares) if share)
        )
        return self.seen[begun:]

    async def send_as(self, key: bytes, count: int, *, chosen: bool = False) -> list[bytes]:
        """Send requests of one user, who may choose gray by name; returns who answered each."""
        begun = len(self.seen)
        header = b"x-choose: gray\r\n" if chosen else b""
        await self._ask(count, lambda: (0, key), header)
        return [who for _, who in self.seen[begun:]]

    def key_below(self, percent: float) -> bytes:
        """A user who is in gray at this weight, and at less."""
        slot, key = self._keys[int(percent / 100 * KEYS) // 2]
        assert slot < percent / 100 * SLOTS
        return key

    def _next(self) -> tuple[int, bytes]:
        if not self._order:
            self._order = self._random.sample(range(KEYS), KEYS)
        return self._keys[self._order.pop()]

    async def _ask(
        self, count: int, following: Callable[[], tuple[int, bytes]], more: bytes = b"", *, network: int = 0
    ) -> None:
        # Of a network, some failures a minute count.
        local = f"127.1.{network}.1", 0
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=local)
        try:
            for _ in range(count):
                slot, key = following()
                writer.write(b"GET /shop/ HTTP/1.1\r\nhost: shop.example\r\nx-user: %b\r\n%b\r\n" % (key, more))
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                self.failed += not head.startswith(b"http/1.1 200 ")
                self.seen.append((slot, body))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _even_keys() -> list[tuple[int, bytes]]:
    """(slot, key) of a user in each of as many equal parts of all slots."""
    digest = digest_function(HashFunction("sha256", SALT))
    found: dict[int, tuple[int, bytes]] = {}
    number = 0
    while len(found) < KEYS:
        key = b"user-%d" % number
        slot = digest(key) * SLOTS >> 64
        found.setdefault(slot * KEYS // SLOTS, (slot, key))
        number += 1
    return [found[part] for part in range(KEYS)]


class Release:
    """A release that is served.

    Attributes:
        stable, gray: what the upstreams do.
        users: who ask.
        admin: the admin port.
    """

    def __init__(self, port: int, folder: Path, rules: Path) -> None:
        self.admin = 0
        self.stable, self.gray = Knobs(), Knobs()
        self.users = Users(port)
        self._folder, self._rules = folder, rules
        self._services: tuple[str, str] = ("", "")

    def write(self, **fields: Any) -> None:
        """Put a document in force; `fields` are those of the release."""
        gray, stable = self._services
        given = {"gray": ["gray"], "salt": SALT, "sticky": [{"header": "x-user"}], "choice": {"header": "x-choose"}}
        lines = [f"{key}: {json.dumps(value)}" for key, value in {**given, "missing": "stable", **fields}.items()]
        release = "\n".join(["---", "apiVersion: canary-mw/v1", "kind: GrayRelease", f"name: {NAME}", *lines, ""])
        text = mapping("stable", "/shop/", stable) + mapping("gray", "/shop/", gray, weight=0) + release
        written = self._rules.with_suffix(".new")
        written.write_text(text, encoding="utf-8")
        written.replace(self._rules)

    @property
    def state(self) -> ReleaseState:
        """The state that all processes share."""
        return from_json(self._stored("select state from states where name = ?"))

    def _stored(self, query: str) -> bytes:
        with contextlib.closing(sqlite3.connect(f"file:{self._folder}/state.db?mode=ro", uri=True)) as database:
            (value,) = database.execute(query, (NAME,)).fetchone()
        return value if isinstance(value, bytes) else str(value).encode()

    async def until(self, condition: Callable[[ReleaseState], bool], *, load: int = 0) -> ReleaseState:
        """The state once it is so, with requests by the way."""
        while True:
            with contextlib.suppress(sqlite3.Error, TypeError):
                state = self.state
                if condition(state):
                    return state
            await (self.users.send(load) if load else asyncio.sleep(0.05))

    async def next_look(self) -> ReleaseState:
        """The state after the controller has looked once more, and has stored how far it is."""
        before = self._progress()
        while self._progress() == before:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.05)
        return self.state

    def _progress(self) -> Progress | None:
        with contextlib.suppress(sqlite3.Error, TypeError):
            return progress_in(self._stored("select data from checkpoints where name = ?"))
        return None

    def script(self, name: bytes, knobs: Knobs) -> Callable[[Peer], Any]:
        """What an upstream answers."""
        random = Random(name)

        async def answer(peer: Peer) -> None:
            while True:
                seen = await peer.request()
                key = next(line[8:] for line in seen.headers if line.startswith(b"x-user: "))
                if knobs.delay:
                    await asyncio.sleep(knobs.delay)
                failing = key in knobs.failing or random.random() < knobs.error
                head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n"
                peer.writer.write(head % (b"500 Bad" if failing else b"200 OK", len(name)) + name)
                await peer.writer.drain()

        return answer


@contextlib.asynccontextmanager
async def stepping(tmp_path: Path, *, workers: int = 4, hook_hosts: str = "", **fields: Any) -> AsyncIterator[Release]:
    """Serve a release; `fields` are those of its document."""
    port, folder, rules = free_port(), tmp_path / "state", tmp_path / "rules.yaml"
    release = Release(port, folder, rules)
    async with (
        serving(release.script(b"stable", release.stable)) as stable,
        serving(release.script(b"gray", release.gray)) as gray,
    ):
        release._services = gray.origin.authority, stable.origin.authority
        release.write(**fields)
        release.admin = free_port()
        options = ["serve", "--rules", str(rules), "--port", str(port), "--admin-port", str(release.admin)]
        options += ["--workers", str(workers), "--state", str(folder), "--hook-hosts", hook_hosts]
        environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
        with process(*options, log=tmp_path / "log", wait_for=[port], **environ) as running:
            await release.until(lambda state: True)
            yield release
        assert "Traceback" not in running.output
