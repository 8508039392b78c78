"""The admin port beside an app: who has it, who gets it next, and what it leaves alone."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from load import eventually
from servers import Answer, fetch_admin, free_port, mapping, run

from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware, Metrics, StaticSource
from canary_mw.admin.server import listen
from canary_mw.forking import running_threads
from canary_mw.middleware import admin_port
from canary_mw.run_folder import opened

# Python 3.12 warns of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
RULES = mapping("a", "/a/", "shop-stable")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    opened._after_fork()


@pytest.fixture(params=[CanaryMiddleware, CanaryWSGIMiddleware])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


def made(kind: Any, port: int, folder: Path | None = None, **more: Any) -> Any:
    return kind(print, rules=StaticSource(RULES), local="shop-stable", admin_port=port, run_dir=folder, **more)


def stop(*middlewares: Any) -> None:
    for each in middlewares:
        each._stop()


async def answer(port: int, path: str = "/readyz") -> Answer:
    found: list[Answer] = []

    async def asked() -> bool:
        try:
            found.append(await fetch_admin(port, path))
        except (OSError, AssertionError):
            return False
        return True

    async with asyncio.timeout(20):
        while not await asked():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    return found[0]


def has_port(middleware: Any) -> bool:
    """Whether it serves the port."""
    session = middleware.admin_port._session
    return session is not None and session._wake is not None


def test_health_rules_and_metrics_are_answered(kind: Any, tmp_path: Path) -> None:
    port = free_port()
    middleware = made(kind, port, tmp_path / "run")
    middleware.start()

    async def main() -> None:
        assert b"rules 1 are in force" in (await answer(port)).body
        assert b'"a"' in (await answer(port, "/rules")).body
        assert b"canary_mw_rules" in (await answer(port, "/metrics")).body

    run(main())
    stop(middleware)
    assert [each.name for each in running_threads() if each.name == "canary-mw-admin"] == []


def test_the_metrics_of_the_app_are_those_that_are_shown(kind: Any) -> None:
    metrics = Metrics()
    middleware = made(kind, free_port(), observers=[metrics])
    assert middleware.admin_port._metrics is metrics
    assert sum(isinstance(each, Metrics) for each in middleware._counting) == 1


def test_without_a_port_nothing_is_made(kind: Any) -> None:
    assert made(kind, 0).admin_port is None


def test_the_next_worker_gets_the_port(tmp_path: Path) -> None:
    port = free_port()
    first, second = (made(CanaryMiddleware, port, tmp_path / "run") for _ in range(2))

    async def main() -> None:
        first.start()
        await answer(port)
        second.start()
        assert has_port(first)
        assert not has_port(second)
        await asyncio.to_thread(stop, first)
        await answer(port)
        assert has_port(second)
        await asyncio.to_thread(stop, second)

    run(main())


def test_a_port_that_is_taken_is_said_once_and_used_when_it_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admin_port, "_BUSY_INTERVAL", 0.01)
    attempts = []

    def counted(*arguments: Any, **more: Any) -> socket.socket:
        attempts.append(1)
        return listen(*arguments, **more)

    monkeypatch.setattr(admin_port, "listen", counted)

    async def main() -> None:
        with listen("127.0.0.1", 0, shared=True) as other:
            other.listen()
            port = other.getsockname()[1]
            middleware = made(CanaryMiddleware, port)
            middleware.start()
            await eventually(lambda: len(attempts) > 3)
        await answer(port)
        await asyncio.to_thread(stop, middleware)

    run(main())
    texts = [each.getMessage() for each in caplog.records]
    assert sum("the app goes on without it" in text for text in texts) == 1


def test_a_child_that_is_forked_keeps_the_port_from_nobody(tmp_path: Path) -> None:
    port = free_port()
    first, second = (made(CanaryMiddleware, port, tmp_path / "run") for _ in range(2))

    async def main() -> None:
        first.start()
        await answer(port)
        child = os.fork()
        if not child:
            signal.pause()
        try:
            await asyncio.to_thread(stop, first)
            second.start()
            await answer(port)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # noqa: ASYNC222 - it is killed
        await asyncio.to_thread(stop, second)

    run(main())


def test_the_loggers_of_a_server_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    access = logging.getLogger("uvicorn.access")
    handler = logging.NullHandler()
    access.addHandler(handler)
    before = access.handlers[:], access.propagate
    port = free_port()
    middleware = made(CanaryMiddleware, port)
    middleware.start()

    async def main() -> None:
        await answer(port)

    run(main())
    stop(middleware)
    assert (access.handlers, access.propagate) == before
    access.removeHandler(handler)
    assert [each.name for each in caplog.records if each.name.startswith("uvicorn")] == []


def test_a_page_that_fails_is_logged_and_the_port_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    middleware = made(CanaryMiddleware, port)
    monkeypatch.setattr("canary_mw.admin.app.describe_rules", lambda _: 1 / 0)
    middleware.start()

    async def main() -> None:
        assert (await answer(port, "/rules")).status == 500
        assert (await answer(port, "/healthz")).status == 200

    run(main())
    stop(middleware)
    assert [each.name for each in caplog.records if each.levelno >= logging.ERROR] == ["canary_mw.admin"]


def test_a_middleware_that_is_dropped_gives_up_its_port(kind: Any) -> None:
    port = free_port()
    middleware = made(kind, port)
    middleware.start()
    kept = ref(middleware)

    async def main() -> None:
        await answer(port)

    run(main())
    del middleware
    gc.collect()
    assert kept() is None

    def ended() -> bool:
        # Each time: the thread of the port has the rules until it ends, and that of the rules ends with them.
        gc.collect()
        return {"canary-mw-admin", "canary-mw-rules"}.isdisjoint(each.name for each in running_threads())

    run(eventually(ended))


def test_the_port_may_be_opened_again(kind: Any) -> None:
    port = free_port()
    middleware = made(kind, port)

    async def main() -> None:
        for _ in range(2):
            await asyncio.to_thread(middleware.start)
            await answer(port)
            await asyncio.to_thread(stop, middleware)

    run(main())
