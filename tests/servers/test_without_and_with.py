"""An ordinary app behaves with the middleware around it, from either version, as it does without it.

The same requests go to the app alone, to the app in the middleware, and through the middleware to its gray version.
Status, headers and bodies are the same, but for dates and for what signs a time.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import ordinary
import ordinary_asgi
import ordinary_flask
import pytest
from ordinary import digest
from servers import Answer, client_of, run, serving_app
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from wsgiprocess import served
from wsgiservers import serving_wsgi

from canary_mw.types import ASGIApp

STABLE: list[tuple[str, str]] = []
GRAY = [("gray", "true")]
FORM = [("content-type", "application/x-www-form-urlencoded")]
BODY = bytes(range(256)) * 1200


class Step(NamedTuple):
    """A request."""

    method: str
    target: str
    headers: list[tuple[str, str]] = []  # noqa: RUF012 - nobody changes it
    body: bytes = b""


STEPS = [
    # Django takes no POST without what this sets.
    Step("GET", "/token"),
    Step("GET", "/"),
    Step("HEAD", "/"),
    Step("GET", "/", [("if-none-match", '"1"')]),
    Step("OPTIONS", "/"),
    Step("GET", "/me"),
    Step("POST", "/login", FORM, b"user=ann"),
    Step("GET", "/me"),
    Step("GET", "/login"),
    Step("POST", "/upload", [("expect", "100-continue")], BODY[:1000]),
    Step("POST", "/upload", body=BODY),
    Step("PUT", "/upload", body=b""),
    Step("GET", "/stream"),
    Step("GET", "/stream?type=text/event-stream"),
    Step("HEAD", "/stream"),
    Step("GET", "/where/a%2Fb/%C3%A4;c=d//e?x=%20&y=1&y=2"),
    Step("GET", "/cookies"),
    Step("DELETE", "/cookies"),
    Step("GET", "/fails"),
    Step("GET", "/nowhere"),
    Step("GET", "/sub/items/7"),
    Step("GET", "/sub/items/x"),
    Step("GET", "/sub/items/7/"),
    Step("GET", "/sub"),
]


class Session:
    """One client with its cookies."""

    def __init__(self, port: int, prefix: str) -> None:
        self._port = port
        self._prefix = prefix
        self.cookies: dict[str, str] = {}

    async def ask(self, step: Step, version: list[tuple[str, str]]) -> Answer:
        """Send a request to a version, on a connection of its own."""
        headers = [*step.headers, *version]
        if self.cookies:
            headers.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        if token := self.cookies.get("csrftoken"):
            headers.append(("x-csrftoken", token))
        async with client_of(self._port) as client:
            answer = await client.get(step.method, self._prefix + step.target, headers, step.body)
        for name, value in answer.headers:
            if name == b"set-cookie":
                cookie, _, rest = value.decode().partition("=")
                self.cookies[cookie] = rest.partition(";")[0]
        return answer


def seen(answer: Answer) -> tuple[int, list[tuple[bytes, bytes]], bytes, bool]:
    """What of an answer does not depend on the time, or on the process."""
    headers = []
    for name, value in answer.headers:
        if name == b"allow":
            value = b", ".join(sorted(value.split(b", ")))
        value = re.sub(rb"^(session|sessionid|csrftoken)=[^;]+|expires=[^;]+", rb"\1", value)
        # An answer without a body has no length: what Django says of a 304 is not that of the page.
        if name != b"date" and not (name == b"content-length" and answer.status in (204, 304)):
            headers.append((name, value))
    return answer.status, sorted(headers), answer.body, answer.whole


async def record(port: int, version: list[tuple[str, str]], prefix: str = "") -> dict[str, Any]:
    """All steps of one client."""
    session = Session(port, prefix)
    answers = {}
    for number, step in enumerate(STEPS):
        answers[f"{number} {step.method} {step.target}"] = await session.ask(step, version)
    assert b"".join(answers["7 GET /me"].body.split()) == b"ann"
    dates = [[name for name, _ in answer.headers].count(b"date") for answer in answers.values()]
    return {"dates": dates, **{name: seen(answer) for name, answer in answers.items()}}


async def chat(port: int, version: list[tuple[str, str]], prefix: str = "", pause: float = 0) -> list[object]:
    """One WebSocket, from the handshake to its close code."""
    url = f"ws://127.0.0.1:{port}{prefix}/chat"
    said: list[object] = []
    async with connect(url, subprotocols=["chat"], additional_headers=version) as websocket:  # type: ignore[list-item]
        said.append(websocket.subprotocol)
        for text in ("abc", "", "bye"):
            await asyncio.sleep(pause)
            await websocket.send(text)
            with contextlib.suppress(ConnectionClosed):
                said.append(await websocket.recv())
        return [*said, websocket.close_code, websocket.close_reason]


def in_mount(app: ASGIApp) -> ASGIApp:
    return Starlette(routes=[Mount("/outer", app)])


def plain(app: ASGIApp) -> ASGIApp:
    return app


@contextlib.asynccontextmanager
async def asgi(wrap: Callable[[ASGIApp], ASGIApp] = plain, **options: Any) -> AsyncIterator[tuple[int, int]]:
    """The ports of the app alone, which is the gray version too, and of the app in the middleware."""
    options |= {"date_header": True}
    async with serving_app(wrap(ordinary_asgi.app()), **options) as alone:
        middleware = ordinary.wrapped(ordinary_asgi.app(), f"http://127.0.0.1:{alone}")
        try:
            async with serving_app(wrap(middleware), **options) as port:
                yield alone, port
        finally:
            await middleware.aclose()


@pytest.mark.parametrize(
    ("wrap", "options", "prefix"),
    [
        (plain, {}, ""),
        pytest.param(plain, {"http": "h11"}, "", marks=pytest.mark.slow),
        (plain, {"root_path": "/api"}, ""),
        pytest.param(in_mount, {}, "/outer", marks=pytest.mark.slow),
    ],
    ids=["httptools", "h11", "root path", "mount"],
)
def test_an_asgi_app_is_the_same_in_both_versions(wrap: Any, options: dict[str, Any], prefix: str) -> None:
    async def main() -> None:
        async with asgi(wrap, **options) as (alone, port):
            bare = await record(alone, STABLE, prefix)
            assert await record(port, STABLE, prefix) == bare
            assert await record(port, GRAY, prefix) == bare
            said = await chat(alone, STABLE, prefix)
            assert said == ["chat", "cba", "", 4000, "bye"]
            assert await chat(port, STABLE, prefix) == said
            assert await chat(port, GRAY, prefix) == said

    run(main())


def test_a_session_goes_on_in_the_other_version() -> None:
    async def main() -> None:
        async with asgi() as (_, port):
            session = Session(port, "")
            await session.ask(Step("POST", "/login", FORM, b"user=ann"), STABLE)
            assert (await session.ask(Step("GET", "/me"), GRAY)).body == b"ann"

    run(main())


@contextlib.asynccontextmanager
async def waitress() -> AsyncIterator[tuple[int, int]]:
    async with serving_wsgi(ordinary_flask.app()) as alone:
        middleware = ordinary.wrapped_wsgi(ordinary_flask.app(), f"http://127.0.0.1:{alone}")
        async with serving_wsgi(middleware) as port:
            yield alone, port
            await asyncio.to_thread(middleware.close)


def test_a_flask_app_is_the_same_in_both_versions() -> None:
    async def main() -> None:
        async with waitress() as (alone, port):
            bare = await record(alone, STABLE)
            assert await record(port, STABLE) == bare
            assert await record(port, GRAY) == bare

    run(main())


def gunicorn(app: str, folder: Path, gray: int | None = None, script_name: str = "") -> Any:
    """An app in a process, in the middleware where there is a port of its gray version; yields process and port."""
    environ = {"SCRIPT_NAME": script_name} if script_name else {}
    if gray:
        environ["ORDINARY_GRAY"] = f"http://127.0.0.1:{gray}"
    log = folder / ("wrapped.log" if gray else "alone.log")
    return served("16 threads", f"ordinary_{app}:served", log, **environ)


@pytest.mark.slow
@pytest.mark.parametrize("script_name", ["", "/api"])
@pytest.mark.parametrize("app", ["flask", "django"])
def test_a_wsgi_app_under_gunicorn_is_the_same_in_both_versions(app: str, script_name: str, tmp_path: Path) -> None:
    with (
        gunicorn(app, tmp_path, script_name=script_name) as (_, alone),
        gunicorn(app, tmp_path, alone, script_name) as (_, port),
    ):

        async def main() -> None:
            bare = await record(alone, STABLE, script_name)
            assert await record(port, STABLE, script_name) == bare
            assert await record(port, GRAY, script_name) == bare

        run(main())


# Seconds: more than the default of `timeout_ms`.
LONG = 6


async def stream(port: int, version: list[tuple[str, str]], kind: str) -> object:
    """A response whose body takes longer than the default of `timeout_ms`."""
    async with client_of(port) as client:
        return seen(await client.get("GET", f"/stream?type={kind}&pause={LONG / 3}", version))


async def upload(port: int, version: list[tuple[str, str]], size: int) -> object:
    """A body that takes longer than that."""
    async with client_of(port) as client:
        await client.ask("POST", "/upload", [*version, ("content-length", str(2 * size))])
        await client.put(BODY[:size])
        await asyncio.sleep(LONG)
        await client.put(BODY[:size])
        answer = await client.answer()
        assert answer.body.decode() == digest(2 * BODY[:size])
        return seen(answer)


async def patient(port: int, version: list[tuple[str, str]], *more: Coroutine[Any, Any, object]) -> list[object]:
    """What takes long, all at once."""
    streams = (stream(port, version, kind) for kind in ("text/plain", "text/event-stream"))
    uploads = (upload(port, version, size) for size in (100, len(BODY)))
    return await asyncio.gather(*streams, *uploads, *more)


@pytest.mark.slow
def test_what_takes_long_in_an_asgi_app_is_not_cut() -> None:
    async def main() -> None:
        async with asgi() as (alone, port):
            ways = (alone, STABLE), (port, STABLE), (port, GRAY)
            bare, stable, gray = await asyncio.gather(
                *(patient(port, version, chat(port, version, pause=LONG / 3)) for port, version in ways)
            )
            assert stable == bare
            assert gray == bare

    run(main())


@pytest.mark.slow
def test_what_takes_long_in_a_wsgi_app_is_not_cut(tmp_path: Path) -> None:
    with gunicorn("flask", tmp_path) as (_, alone), gunicorn("flask", tmp_path, alone) as (_, port):

        async def main() -> None:
            ways = (alone, STABLE), (port, STABLE), (port, GRAY)
            bare, stable, gray = await asyncio.gather(*(patient(port, version) for port, version in ways))
            assert stable == bare
            assert gray == bare

        run(main())
