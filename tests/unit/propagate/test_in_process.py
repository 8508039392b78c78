"""The lane of a request in an app: carried by itself, or with help, and gone when the request is over."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from io import BytesIO
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from rules import document
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse

from canary_mw import (
    CanaryMiddleware,
    CanaryWSGIMiddleware,
    RequestHead,
    RouteTable,
    StaticSource,
    current,
    decide,
    propagate,
)
from canary_mw.propagate.carried import Carried, headers_for
from canary_mw.types import Environ, StartResponse

RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
stable: shop
gray: {gray: 100}
sticky: [{header: x-user}]
"""
RULES = document("shop", prefix="/shop/") + document("gray", prefix="/shop/", weight=0) + RELEASE
HEADERS = {"x-user": "u", "x-canary-lane": "before=blue"}
GRAY = "r=gray, before=blue"
Answer = Callable[[str | None], None]


def lane() -> str | None:
    found = current()
    return None if found is None else found.lane


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    propagate.uninstall()


def options(**changes: Any) -> dict[str, Any]:
    """Both sides are the app itself, and the peer may tell of lanes."""
    given = {"rules": StaticSource(RULES), "local": ("shop", "gray"), "trusted": ["127.0.0.1"]}
    return {**given, **changes}


async def asked(app: Any, path: str = "/shop/", headers: dict[str, str] | None = None) -> httpx.Response:
    """The answer of an ASGI app, in the process."""
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        return await client.get(path, headers=headers or HEADERS)


async def awaited(answer: Answer) -> None:
    await asyncio.sleep(0)
    answer(lane())


async def in_a_task(answer: Answer) -> None:
    await asyncio.create_task(awaited(answer))


async def in_a_task_group(answer: Answer) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(awaited(answer))


async def gathered(answer: Answer) -> None:
    await asyncio.gather(awaited(answer))


async def called_soon(answer: Answer) -> None:
    found: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: found.set_result(lane()))
    answer(await found)


async def in_an_async_generator(answer: Answer) -> None:
    async def lanes() -> AsyncIterator[str | None]:
        yield lane()

    async for each in lanes():
        answer(each)


async def to_a_thread(answer: Answer) -> None:
    answer(await asyncio.to_thread(lane))


async def in_an_anyio_thread(answer: Answer) -> None:
    answer(await anyio.to_thread.run_sync(lane))


async def in_an_anyio_task_group(answer: Answer) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(awaited, answer)


BY_ITSELF = [
    *(awaited, in_a_task, in_a_task_group, gathered, called_soon, in_an_async_generator, to_a_thread),
    *(in_an_anyio_thread, in_an_anyio_task_group),
]


async def in_an_executor(answer: Answer, carried: bool) -> None:
    with ThreadPoolExecutor(1) as pool:
        executor = propagate.carrying(pool) if carried else pool
        answer(await asyncio.get_running_loop().run_in_executor(executor, lane))


async def submitted(answer: Answer, carried: bool) -> None:
    with ThreadPoolExecutor(1) as pool:
        executor = propagate.carrying(pool) if carried else pool
        answer(await asyncio.wrap_future(executor.submit(lane)))


async def mapped(answer: Answer, carried: bool) -> None:
    with ThreadPoolExecutor(1) as pool:
        executor = propagate.carrying(pool) if carried else pool
        answer(*executor.map(lambda _: lane(), [1]))


def with_help(function: Callable[[], None], carried: bool) -> Callable[[], None]:
    return propagate.carry(function) if carried else function


async def in_a_thread(answer: Answer, carried: bool) -> None:
    thread = threading.Thread(target=with_help(lambda: answer(lane()), carried))
    thread.start()
    thread.join()


async def by_a_timer(answer: Answer, carried: bool) -> None:
    timer = threading.Timer(0, with_help(lambda: answer(lane()), carried))
    timer.start()
    timer.join()


async def called_from_a_foreign_thread(answer: Answer, carried: bool) -> None:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[str | None] = loop.create_future()
    call = with_help(lambda: found.set_result(lane()), carried)
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(call,))
    thread.start()
    thread.join()
    answer(await found)


NEEDS_HELP = [in_an_executor, submitted, mapped, in_a_thread, by_a_timer, called_from_a_foreign_thread]


async def seen_in_an_app(way: Callable[[Answer], Awaitable[None]]) -> list[str | None]:
    seen: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await way(seen.append)
        await PlainTextResponse("app")(scope, receive, send)

    served = CanaryMiddleware(app, **options())
    assert (await asked(served)).text == "app"
    assert lane() is None
    await served.aclose()
    return seen


@pytest.mark.parametrize("way", BY_ITSELF, ids=lambda way: way.__name__)
def test_what_carries_the_lane_by_itself(way: Callable[[Answer], Awaitable[None]]) -> None:
    assert asyncio.run(seen_in_an_app(way)) == [GRAY]


@pytest.mark.parametrize("way", NEEDS_HELP, ids=lambda way: way.__name__)
def test_what_carries_the_lane_with_help_alone(way: Callable[..., Awaitable[None]]) -> None:
    assert asyncio.run(seen_in_an_app(partial(way, carried=True))) == [GRAY]
    assert asyncio.run(seen_in_an_app(partial(way, carried=False))) == [None]


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent, threading
from concurrent.futures import ThreadPoolExecutor
from canary_mw import propagate

pool, found = ThreadPoolExecutor(1), []
pool.submit(bool).result()
with propagate.lane("a=b"):
    for work in (propagate.header, propagate.carry(propagate.header)):
        found += [gevent.spawn(work).get(), pool.submit(work).result()]
    found.append(propagate.carrying(pool).submit(propagate.header).result())
print([len(each) for each in found])
"""


@pytest.mark.slow
def test_greenlets_need_help() -> None:
    command = [sys.executable, "-c", GREENLETS]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    assert found.stdout == "[0, 0, 1, 1, 1]\n"


def test_a_carried_coroutine_function() -> None:
    async def work() -> str | None:
        await asyncio.sleep(0)
        return lane()

    async def main() -> str | None:
        with propagate.lane("a=b"):
            carried = propagate.carry(work)
        return await carried()

    assert asyncio.run(main()) == "a=b"


def test_an_executor_of_another_is_shut_down_with_it() -> None:
    inner = ThreadPoolExecutor(1)
    with propagate.carrying(inner) as executor:
        found: Future[str | None] = executor.submit(lane)
    assert found.result() is None
    with pytest.raises(RuntimeError):
        inner.submit(lane)


def test_sync_endpoints_and_both_kinds_of_background_tasks_of_fastapi() -> None:
    app, seen = FastAPI(), []

    def note(way: str) -> None:
        seen.append((way, lane()))

    async def note_async(way: str) -> None:
        seen.append((way, lane()))

    @app.get("/shop/", response_class=PlainTextResponse)
    def shop(tasks: BackgroundTasks) -> str:
        note("sync endpoint")
        tasks.add_task(note, "sync task")
        tasks.add_task(note_async, "async task")
        return "app"

    @app.get("/shop/starlette")
    async def starlette() -> PlainTextResponse:
        return PlainTextResponse("app", background=BackgroundTask(note, "task of a response"))

    async def main() -> None:
        served = CanaryMiddleware(app, **options())
        for path in ("/shop/", "/shop/starlette"):
            assert (await asked(served, path)).text == "app"
        await served.aclose()

    asyncio.run(main())
    assert seen == [(way, GRAY) for way in ("sync endpoint", "sync task", "async task", "task of a response")]


def start(app: Any, headers: dict[str, str], path: str = "/shop/", **more: Any) -> Any:
    """The body of a WSGI app, of which nothing is taken yet."""
    environ: Environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
        "SERVER_NAME": "shop",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "shop",
        "wsgi.input": BytesIO(),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
        **more,
    }
    return app(environ, lambda *_: None)


class Body:
    """A body that asks for the lane whenever it is used."""

    def __init__(self, seen: list[str | None]) -> None:
        self.seen = seen
        self.left = 2

    def __iter__(self) -> Iterator[bytes]:
        self.seen.append(lane())
        return self

    def __next__(self) -> bytes:
        self.seen.append(lane())
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return b"x"

    def close(self) -> None:
        self.seen.append(lane())


class SizedBody(Body):
    """One that says how many pieces it has."""

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("kind", [Body, SizedBody])
def test_a_streamed_body_of_wsgi_has_the_lane_and_leaves_none(kind: type[Body]) -> None:
    """The bodies of two requests of one thread are taken in turns, as a server of greenlets does."""
    seen: tuple[list[str | None], list[str | None]] = ([], [])

    def app(environ: Environ, _: StartResponse) -> Iterable[bytes]:
        notes = seen[environ["PATH_INFO"] == "/other/"]
        notes.append(lane())
        return kind(notes)

    served = CanaryWSGIMiddleware(app, **options())
    bodies = [start(served, HEADERS), start(served, HEADERS, "/other/")]
    assert [hasattr(body, "__len__") for body in bodies] == [kind is SizedBody] * 2
    iterators = [iter(body) for body in bodies]
    assert [next(each) for each in (*iterators, *iterators)] == [b"x"] * 4
    assert [next(each, b"end") for each in iterators] == [b"end"] * 2
    for body in bodies:
        body.close()
        assert lane() is None
    served.close()
    assert seen == ([GRAY] * 6, ["before=blue"] * 6)


def test_what_a_server_sends_by_itself_is_handed_on_as_it_is() -> None:
    class Wrapper:
        """As `wsgi.file_wrapper` of a server, which tells its own by their type."""

        def __iter__(self) -> Iterator[bytes]:
            return iter(())

    bodies: list[Any] = [[b"a"], (b"a",), Wrapper()]
    served = CanaryWSGIMiddleware(lambda environ, _: environ["body"], **options())
    for body in bodies:
        assert start(served, HEADERS, **{"body": body, "wsgi.file_wrapper": Wrapper}) is body
    served.close()


@pytest.mark.parametrize("peer", [True, False], ids=["trusted", "untrusted"])
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "not installed"])
def test_a_service_without_releases_carries_on_what_it_may_believe(peer: bool, installed: bool) -> None:
    """Only where something tells others; else it costs nothing, and the header is one like any other."""
    if installed:
        propagate.install(["pay"], clients=())
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((lane(), dict(scope["headers"]).get(b"x-canary-lane")))
        await PlainTextResponse("app")(scope, receive, send)

    def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((lane(), environ.get("HTTP_X_CANARY_LANE", "").encode() or None))
        return []

    given = options(rules=StaticSource(document("shop", prefix="/shop/")), trusted=["127.0.0.1"] if peer else [])

    async def main() -> None:
        served = CanaryMiddleware(app, **given)
        await asked(served)
        await served.aclose()

    asyncio.run(main())
    wsgi = CanaryWSGIMiddleware(wsgi_app, **given)
    start(wsgi, HEADERS)
    wsgi.close()
    believed = ("before=blue", b"before=blue") if peer else ("", None)
    assert seen == [believed if installed else (None, b"before=blue")] * 2


def test_what_outlives_a_request_keeps_no_table() -> None:
    """Connections and tasks that were made in a request keep its context, and reloads make new tables."""
    table = RouteTable.from_yaml(RULES)
    gone = weakref.ref(table)
    head = RequestHead("GET", "/shop/", HEADERS)
    with Carried(head.headers, decide(table, head, 1.0), table):
        kept = copy_context()
    del table
    gc.collect()
    assert gone() is None
    assert kept.run(lane) == GRAY


def test_an_outsider_takes_no_part_in_baggage() -> None:
    """The members of others stay, in both interfaces."""
    baggage = "user=1, canary-lane=r%3Dstable, k=v"
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((dict(scope["headers"])[b"baggage"], lane()))
        await PlainTextResponse("app")(scope, receive, send)

    def wsgi_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((environ["HTTP_BAGGAGE"].encode(), lane()))
        return []

    given = options(rules=StaticSource(RULES + "propagate: {baggage: true}\n"))

    async def main(given: dict[str, Any]) -> None:
        served = CanaryMiddleware(app, **given)
        await asked(served, headers={"x-user": "u", "baggage": baggage})
        await served.aclose()

    for trusted in ([], ["127.0.0.1"]):
        asyncio.run(main({**given, "trusted": trusted}))
        wsgi = CanaryWSGIMiddleware(wsgi_app, **{**given, "trusted": trusted})
        start(wsgi, {"x-user": "u", "baggage": baggage})
        wsgi.close()
    assert seen == [(b"user=1, k=v", "r=gray")] * 2 + [(baggage.encode(), "r=stable")] * 2


def test_baggage_is_written_for_listed_hosts() -> None:
    propagate.install(["pay"], clients=())
    seen: list[dict[str, str]] = []

    def app(environ: Environ, _: StartResponse) -> Iterable[bytes]:
        seen.extend(headers_for(host, 80, {"Baggage": "u=1"}) for host in ("pay", "else"))
        return []

    served = CanaryWSGIMiddleware(app, **options(rules=StaticSource(RULES + "propagate: {baggage: true}\n")))
    start(served, {"x-user": "u"})
    served.close()
    assert seen == [{"x-canary-lane": "r=gray", "baggage": "u=1,canary-lane=r%3Dgray"}, {}]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_stable_in_place_of_a_failing_gray_speaks_for_stable(kind: str) -> None:
    seen: list[str | None] = []

    async def gray(scope: Any, receive: Any, send: Any) -> None:
        seen.append(lane())
        await PlainTextResponse("gray fails", 503)(scope, receive, send)

    async def stable(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        seen.append(lane())
        await PlainTextResponse("stable")(scope, receive, send)

    def wsgi_gray(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(lane())
        start_response("503 Service Unavailable", [])
        return [b"gray fails"]

    def wsgi_stable(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(lane())
        start_response("200 OK", [])
        yield b"stable"
        seen.append(lane())

    rules = StaticSource(RULES + "fallback: {}\n")

    async def main() -> None:
        served = CanaryMiddleware(stable, **options(rules=rules, local="shop", services={"gray": gray}))
        assert (await asked(served)).text == "stable"
        await served.aclose()

    if kind == "asgi":
        asyncio.run(main())
    else:
        served = CanaryWSGIMiddleware(wsgi_stable, **options(rules=rules, local="shop", services={"gray": wsgi_gray}))
        assert b"".join(start(served, HEADERS)) == b"stable"
        served.close()
        assert seen.pop() == "r=stable, before=blue"
    assert seen == [GRAY, "r=stable, before=blue"]
