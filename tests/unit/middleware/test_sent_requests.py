"""Stable and gray pods that run one app with the same rules: who has decided decides for both."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from middlewares import ASGI_ONLY, Middleware, current, middleware, serving_middleware
from servers import Pairs, fetch, mapping, respond, run
from upstream import until
from websockets.asyncio.client import connect
from wsgiservers import respond as wsgi_respond

from canary_mw.control.sources.static import StaticSource
from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.observers import Observer
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

RULES = (
    mapping("stable", "/shop/", "shop-stable", rewrite='""')
    + mapping("gray", "/shop/", "shop-gray", rewrite='""', weight=50)
    + mapping("login", "/shop/login/", "auth", rewrite='""')
)
KEY, OTHER_KEY = "5" * 64, "6" * 64


class Records(Observer):
    """Keeps which requests were sent here, and which were not."""

    def __init__(self) -> None:
        self.decided_: Counter[bool] = Counter()
        self.finished_: Counter[bool] = Counter()

    def decided(self, record: Decided) -> None:
        self.decided_[record.sent] += 1

    def finished(self, record: Finished) -> None:
        self.finished_[record.sent] += 1

    async def ended(self, count: int) -> Counter[bool]:
        """Those that have ended, once there are so many: an answer may be read before its request has ended."""
        await until(lambda: self.finished_.total() >= count)
        return self.finished_


def app_called(name: str) -> Any:
    """An app of the current interface that answers with its name."""

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, name.encode())
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": name})
            await send({"type": "websocket.close"})

    def wsgi(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return wsgi_respond(start_response, name.encode())

    return asgi if current() == "asgi" else wsgi


class Rolls:
    """Every other request is for gray."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> float:
        self.count += 1
        return 75.0 if self.count % 2 else 25.0


class Pods(NamedTuple):
    """A pod of each kind."""

    stable: int
    gray: int
    records: dict[str, Records]


@contextlib.asynccontextmanager
async def pods(rules: str = RULES, gray: Any = None, **options: Any) -> AsyncIterator[Pods]:
    """Both know the other by its port; `gray` changes the options of the gray pod."""
    records = {"stable": Records(), "gray": Records()}
    ports: dict[str, int] = {}

    def pod(name: str, **more: Any) -> Middleware:
        given = {"rules": StaticSource(rules), "local": f"shop-{name}", "hop_id": name, "roll": Rolls(), **options}
        urls = {f"shop-{each}": f"http://127.0.0.1:{port}" for each, port in ports.items()}
        urls |= {"*": "http://127.0.0.1:1"}
        return middleware(app_called(name), observers=[records[name]], upstreams=urls, **{**given, **more})

    # The port of the stable pod is known to nobody before it listens, so that the gray pod asks a relay.
    relay: list[int] = []

    async def to_stable(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near, far = await asyncio.open_connection("127.0.0.1", relay[0])

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                sink.close()

        await asyncio.gather(pump(reader, far), pump(near, writer))

    server = await asyncio.start_server(to_stable, "127.0.0.1", 0)
    ports["stable"] = server.sockets[0].getsockname()[1]
    try:
        async with serving_middleware(pod("gray", **(gray or {}))) as gray_port:
            ports["gray"] = gray_port
            async with serving_middleware(pod("stable")) as stable_port:
                relay.append(stable_port)
                yield Pods(stable_port, gray_port, records)
    finally:
        server.close()
        await server.wait_closed()


async def answers(
    port: int, count: int = 20, target: str = "/shop/", headers: Pairs = ()
) -> Counter[tuple[int, bytes]]:
    found: Counter[tuple[int, bytes]] = Counter()
    for _ in range(count):
        answer = await fetch(port, target, headers=headers)
        found[answer.status, answer.body if answer.status == 200 else b""] += 1
    return found


@pytest.mark.parametrize("keyed", [False, True], ids=["bare", "signed"])
def test_what_a_pod_sends_is_not_drawn_again(interface: str, keyed: bool, tmp_path: Path) -> None:
    options = key_of(tmp_path, KEY) if keyed else {}

    async def main() -> None:
        async with pods(**options) as there:
            for port in (there.stable, there.gray):
                assert await answers(port) == {(200, b"stable"): 10, (200, b"gray"): 10}
            for name in ("stable", "gray"):
                # Twenty of clients, and ten of the other pod.
                assert await there.records[name].ended(30) == {False: 20, True: 10}
                assert there.records[name].decided_ == {False: 20, True: 10}

    run(main())


def key_of(folder: Path, *keys: str) -> dict[str, Any]:
    """The options of a key file."""
    path = folder / "-".join(key[0] for key in keys)
    path.write_text("\n".join(keys))
    return {"header_key_file": path, "trusted_headers": ["gray"]}


def test_without_a_key_a_false_via_gets_at_most_what_half_of_all_get(interface: str) -> None:
    async def main() -> None:
        async with pods() as there:
            false = [("via", "1.1 x (shop-stable)")]
            assert await answers(there.stable, headers=false) == {(200, b"stable"): 20}
            assert await answers(there.stable, 2, "/shop/login/", false) == {(503, b""): 2}
            assert await there.records["stable"].ended(22) == {True: 20, False: 2}

    run(main())


def test_with_a_key_a_false_via_changes_nothing(interface: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with pods(**key_of(tmp_path, KEY)) as there:
            for comment in ("shop-stable", "0" * 64):
                false = [("via", f"1.1 x ({comment})"), ("x-request-id", "a")]
                assert await answers(there.stable, headers=false) == {(200, b"stable"): 10, (200, b"gray"): 10}
            assert await there.records["stable"].ended(40) == {False: 40}

    run(main())


@pytest.mark.parametrize("gray_keys", [(KEY, OTHER_KEY), (OTHER_KEY, KEY)])
def test_keys_can_be_changed(interface: str, gray_keys: tuple[str, str], tmp_path: Path) -> None:
    async def main() -> None:
        async with pods(gray=key_of(tmp_path, *gray_keys), **key_of(tmp_path, KEY, OTHER_KEY)) as there:
            assert await answers(there.stable) == {(200, b"stable"): 10, (200, b"gray"): 10}
            assert await there.records["gray"].ended(10) == {True: 10}

    run(main())


# WSGI has no WebSockets.
@ASGI_ONLY
@pytest.mark.parametrize("keyed", [False, True], ids=["bare", "signed"])
def test_a_websocket_that_a_pod_sends_is_not_drawn_again(interface: str, keyed: bool, tmp_path: Path) -> None:
    rules = mapping("stable", "/shop/", "shop-stable", rewrite='""', allow_upgrade="[websocket]")
    rules += mapping("gray", "/shop/", "shop-gray", rewrite='""', weight=50, allow_upgrade="[websocket]")
    options = key_of(tmp_path, KEY) if keyed else {}

    async def main() -> None:
        async with pods(rules, **options) as there:
            found: Counter[str | bytes] = Counter()
            for _ in range(8):
                async with connect(f"ws://127.0.0.1:{there.stable}/shop/", proxy=None) as websocket:
                    found[await websocket.recv()] += 1
            assert found == {"stable": 4, "gray": 4}
            assert await there.records["gray"].ended(4) == {True: 4}

    run(main())
