"""The hot path stays as short as it is: executed bytecodes and calls are counted, which no other load can disturb.

`hot_path.json` holds what they were when somebody last looked. A count that is a tenth larger fails, and so does one
that is a tenth smaller: what was won would else be lost again unseen. Where a change is meant, write the file anew, and
give the reason with the change:

    .venv/bin/python tests/project/test_hot_path.py

Bytecodes are those of this package's functions, by module; calls are those of Python functions and methods in C that
are made from there. What C code costs is not seen, nor what other packages do: for that there are the benchmarks. They
differ between versions of Python, and are compared on those alone that the file knows.
"""

import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NamedTuple

import pytest
import rules
import servers
import uvicorn
from upstream import until
from uvicorn.server import ServerState

from canary_mw.client.aio.connection import Connection
from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.environ import environ_key
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.server.app import Proxy
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.server.settings import Settings
from canary_mw.types import Environ, ExcInfo, Message, Receive, Scope, Send, StartResponse, Write

BASELINE = Path(__file__).with_name("hot_path.json")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TOLERANCE = 0.1

# As a browser behind a load balancer sends it.
HEADERS = {
    "host": "shop.example.com",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-encoding": "gzip, deflate, br",
    "cookie": "session=6f1c2b0e9d; theme=dark",
    "x-forwarded-for": "203.0.113.7",
    "x-forwarded-proto": "https",
    "x-request-id": "2f1b4c1e-5b0c-4f0e-9a57-1d2c3b4a5f60",
}
REQUEST = "".join(
    ["GET /shop/item?page=2 HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in HEADERS.items()), "\r\n"]
).encode()
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\netag: abc\r\n"
    b"cache-control: no-store\r\nserver: up\r\n\r\n{}"
)


class Cost(NamedTuple):
    """Of one run: bytecodes by module, and calls."""

    bytecodes: Counter[str]
    calls: int


def cost(work: Callable[[], object]) -> Cost:
    """Count what is executed, in this thread."""
    bytecodes: Counter[str] = Counter()
    calls = 0

    def ours(frame: FrameType | None) -> bool:
        return frame is not None and frame.f_globals.get("__name__", "").startswith("canary_mw.")

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            bytecodes[frame.f_globals["__name__"]] += 1
        elif event == "call":
            if not ours(frame):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return trace

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        if event == "call":
            calls += ours(frame) or ours(frame.f_back)
        elif event == "c_call":
            calls += ours(frame)

    tracing, profiling, collecting = sys.gettrace(), sys.getprofile(), gc.isenabled()
    # A collection would end objects of earlier tests here, and count their ends.
    gc.disable()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(profiling)
        sys.settrace(tracing)
        if collecting:
            gc.enable()
    return Cost(bytecodes, calls)


def warm(work: Callable[[], object]) -> Cost:
    """The cost when caches are filled."""
    for _ in range(3):
        work()
    return cost(work)


@cache
def table_of(count: int) -> RouteTable:
    """So many Mappings: half stable ones with a prefix each, half their twins for a header."""
    stable = [rules.mapping(f"stable-{n}", f"/svc-{n:05}/") for n in range(count // 2)]
    gray = [rules.mapping(f"gray-{n}", f"/svc-{n:05}/", conditions=rules.header("gray")) for n in range(count // 2)]
    return RouteTable.build([*stable, *gray])


def deciding(count: int) -> Cost:
    """A decision among so many Mappings."""
    table = table_of(count)
    head = rules.get(f"/svc-{count // 4:05}/item", HEADERS)
    decision = decide(table, head, 0.0)
    assert decision is not None
    assert decision.mapping.name == f"stable-{count // 4}"
    return warm(lambda: decide(table, head, 0.0))


def answering_locally() -> Cost:
    """A request that the wrapped app answers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["canary_mw"].mapping.name)

    async def receive() -> Message:
        raise AssertionError("nobody reads")

    async def send(message: Message) -> None:
        raise AssertionError("nobody answers")

    reached: list[str] = []
    source = StaticSource(servers.mapping("stable", "/shop/", "shop"))
    middleware = CanaryMiddleware(app, rules=source, local="shop")
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/shop/item",
        "raw_path": b"/shop/item",
        "query_string": b"page=2",
        "headers": [(name.encode(), value.encode()) for name, value in HEADERS.items()],
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8080),
    }
    found = warm(lambda: finished(middleware(scope, receive, send)))
    asyncio.run(middleware.aclose())
    assert reached == ["stable"] * 4
    return found


def answering_locally_in_a_thread() -> Cost:
    """The same by WSGI."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        reached.append(environ["canary_mw.decision"].mapping.name)
        return []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        raise AssertionError("nobody answers")

    reached: list[str] = []
    stable = servers.mapping("stable", "/shop/", "shop")
    gray = servers.mapping("gray", "/shop/", "shop-gray", headers="{gray: true}")
    middleware = CanaryWSGIMiddleware(app, rules=StaticSource(stable + gray), local="shop")
    environ: Environ = {
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/shop/item?page=2",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "40000",
        "SERVER_PORT": "8080",
        "wsgi.url_scheme": "http",
        **{environ_key(name.encode()): value for name, value in HEADERS.items()},
    }
    found = warm(lambda: middleware(environ, start_response))
    middleware.close()
    assert reached == ["stable"] * 4
    return found


def finished(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run what waits for nothing."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


class Memory(asyncio.Transport):
    """A connection that ends in a list."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 8080)})
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        """Nothing is ever held back."""

    def close(self) -> None:
        """Nobody is at the other end."""

    abort = close


class Loop(asyncio.SelectorEventLoop):
    """A loop whose connections to upstreams end in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.upstream: Connection | None = None
        self.far = Memory()

    async def create_connection(self, factory: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        self.upstream = factory()
        self.upstream.connection_made(self.far)
        return self.far, self.upstream


class Standalone(Proxy):
    """The proxy without a server around it."""

    @contextmanager
    def running(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """From the start of its lifespan to the end."""
        loop.run_until_complete(self._start())
        yield
        loop.run_until_complete(self._stop())


def forwarding(admin_port: int = 0) -> Cost:
    """A request on the short way: from the bytes of the client to those for the upstream, and back."""
    with TemporaryDirectory() as folder, asyncio.Runner(loop_factory=Loop) as runner:
        path = Path(folder) / "rules.yaml"
        path.write_text(servers.mapping("stable", "/shop/", "shop"))
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        app = Standalone(Settings(rules=(str(path),), upstream=("*=http://127.0.0.1:9",), admin_port=admin_port))
        with app.running(loop):
            return forwarded_by(app, loop)


def forwarded_by(app: Proxy, loop: Loop) -> Cost:
    config = uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False, lifespan="off")
    config.load()
    client, near = GuardedProtocol(config, ServerState(), {}, loop), Memory()
    client.connection_made(near)
    # The first one has the connection to the upstream opened, the ASGI way.
    client.data_received(REQUEST)
    loop.run_until_complete(until(lambda: loop.far.written))
    upstream = loop.upstream
    assert upstream is not None
    upstream.data_received(ANSWER)
    loop.run_until_complete(until(lambda: near.written and not client.tasks))

    def once() -> None:
        client.data_received(REQUEST)
        upstream.data_received(ANSWER)

    found = warm(once)
    # Nothing of it waited for a turn of the loop.
    assert [len(near.written), len(loop.far.written)] == [5, 5]
    assert set(near.written) == {ANSWER}
    assert loop.far.written[-1].startswith(b"GET /item?page=2 HTTP/1.1\r\nhost: shop.example.com\r\n")
    client.connection_lost(None)
    upstream.connection_lost(None)
    return found


PATHS: dict[str, Callable[[], Cost]] = {
    "decide, 10 Mappings": lambda: deciding(10),
    "decide, 10,000 Mappings": lambda: deciding(10_000),
    "middleware, a local request": answering_locally,
    "middleware for WSGI, a local request": answering_locally_in_a_thread,
    "standalone, a request on the short way": forwarding,
    "standalone, a request on the short way with metrics": lambda: forwarding(servers.free_port()),
}
measured = cache(lambda path: PATHS[path]())


def as_json(found: Cost) -> dict[str, Any]:
    """As the baseline holds it."""
    return {"bytecodes": dict(sorted(found.bytecodes.items())), "calls": found.calls}


def complaint(path: str, found: Cost, before: dict[str, Any]) -> str | None:
    """What has changed by more than it may, or None."""
    pairs = {
        "bytecodes": (found.bytecodes.total(), sum(before["bytecodes"].values())),
        "calls": (found.calls, before["calls"]),
    }
    changes = [
        f"{now} {what} instead of {was} ({now / was - 1:+.1%})"
        for what, (now, was) in pairs.items()
        if abs(now - was) > TOLERANCE * was
    ]
    if not changes:
        return None
    modules = {
        name: found.bytecodes[name] - before["bytecodes"].get(name, 0)
        for name in {*found.bytecodes, *before["bytecodes"]}
    }
    moved = sorted((item for item in modules.items() if item[1]), key=lambda item: -abs(item[1]))
    where = ", ".join(f"{name.removeprefix('canary_mw.')} {change:+}" for name, change in moved)
    return (
        f"{path}: {'; '.join(changes)}. Bytecodes by module: {where or 'as before'}. If that is meant, run"
        f" `.venv/bin/python tests/{Path(__file__).name}` and commit {BASELINE.name} with the reason."
    )


@pytest.mark.parametrize("path", PATHS)
def test_the_hot_path_is_as_long_as_it_was(path: str) -> None:
    known = json.loads(BASELINE.read_text())
    if VERSION not in known:
        pytest.skip(f"{BASELINE.name} has no counts for Python {VERSION}, only for {', '.join(known)}")
    found = complaint(path, measured(path), known[VERSION][path])
    assert found is None, found


@pytest.mark.parametrize("path", PATHS)
def test_counts_are_the_same_every_time(path: str) -> None:
    assert PATHS[path]() == measured(path)


def test_a_decision_does_not_grow_with_the_rules() -> None:
    few, many = measured("decide, 10 Mappings"), measured("decide, 10,000 Mappings")
    assert many.bytecodes.total() <= few.bytecodes.total() * (1 + TOLERANCE)


@pytest.mark.parametrize(("now", "told"), [(109, None), (111, "+11.0%"), (91, None), (89, "-11.0%")])
def test_what_grows_or_shrinks_by_more_than_a_tenth_is_told(now: int, told: str | None) -> None:
    before: dict[str, Any] = {"bytecodes": {"canary_mw.a": 60, "canary_mw.b": 40}, "calls": 10}
    found = complaint("a path", Cost(Counter({"canary_mw.a": 60, "canary_mw.c": now - 60}), 10), before)
    if told is None:
        assert found is None
    else:
        assert found is not None
        assert f"a path: {now} bytecodes instead of 100 ({told})" in found
        assert f"c {now - 60:+}" in found
        assert "b -40" in found
    assert "calls instead of 10 (+20.0%)" in str(complaint("a path", Cost(Counter(before["bytecodes"]), 12), before))


def test_only_what_this_package_executes_is_counted() -> None:
    assert cost(lambda: json.loads("[1, 2, 3]")) == (Counter(), 0)
    table, head = rules.table(rules.mapping()), rules.get()
    found = cost(lambda: [decide(table, head, 0.0) for _ in range(3)])
    assert found.bytecodes["canary_mw.routing.decision"] > 3
    assert cost(lambda: [decide(table, head, 0.0) for _ in range(6)]).bytecodes == Counter(
        {name: 2 * count for name, count in found.bytecodes.items()}
    )


def main() -> None:
    """Write the baseline of this version of Python anew."""
    known = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    known[VERSION] = {path: as_json(measured(path)) for path in PATHS}
    BASELINE.write_text(json.dumps(known, indent=2) + "\n")
    for path in PATHS:
        print(f"{path}: {measured(path).bytecodes.total()} bytecodes, {measured(path).calls} calls")


if __name__ == "__main__":
    main()
