"""Apps of this process that stand for a service: their lifespan and their state."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from servers import fetch, hello, mapping, respond, run, serving_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

RULES = StaticSource(
    mapping("gray", "/", "gray", rewrite='""', headers='{gray: "true"}')
    + mapping("other", "/other/", "other", rewrite='""')
    + mapping("moved", "/old/", "gray", host_redirect="true")
)
GRAY = [("gray", "true")]


def made(name: str, events: list[str], fails: str = "") -> Starlette:
    """An app that tells of its lifespan, and answers with its state."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        events.append(f"{name} starts")
        if fails == "start":
            raise LookupError("no database")
        yield {"name": name}
        events.append(f"{name} ends")
        if fails == "end":
            raise LookupError("no end")

    async def page(request: Request) -> Response:
        request.state.visited = name
        return PlainTextResponse(f"{request.state.name} {request.url_for('page').path}")

    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.state.name)
        await websocket.close()

    routes = [Route("/page", page, name="page"), Route("/other/", page), WebSocketRoute("/chat", chat)]
    return Starlette(routes=routes, lifespan=lifespan)


def around(app: ASGIApp, **services: ASGIApp) -> CanaryMiddleware:
    return CanaryMiddleware(app, rules=RULES, services=services)


async def without_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise ValueError("only HTTP")
    await respond(send, b"plain %r" % sorted(scope["state"]))


def test_each_app_starts_after_the_wrapped_one_and_ends_before_it() -> None:
    events: list[str] = []

    async def main() -> None:
        middleware = around(made("stable", events), gray=made("gray", events), other=made("other", events))
        async with serving_app(middleware) as port:
            events.append("requests")
            assert (await fetch(port, "/page")).body == b"stable /page"
            assert (await fetch(port, "/page", headers=GRAY)).body == b"gray /page"
            assert (await fetch(port, "/other/")).body == b"other /page"
            async with connect(f"ws://127.0.0.1:{port}/chat", additional_headers=GRAY) as websocket:
                assert await websocket.recv() == "gray"

    run(main())
    starts = ["stable starts", "gray starts", "other starts"]
    assert events == [*starts, "requests", "other ends", "gray ends", "stable ends"]


def test_one_app_for_two_services_starts_once_each_time() -> None:
    events: list[str] = []
    gray = made("gray", events)
    middleware = around(hello, gray=gray, other=gray)

    async def main() -> None:
        for _ in range(2):
            async with serving_app(middleware) as port:
                assert (await fetch(port, "/page", headers=GRAY)).body == b"gray /page"
                assert (await fetch(port, "/other/")).body == b"gray /page"

    run(main())
    assert events == ["gray starts", "gray ends"] * 2


def test_its_state_and_its_app_stay_inside() -> None:
    seen: list[Scope] = []
    stable = made("stable", [])
    middleware = around(stable, gray=made("gray", []))

    async def outside(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = scope["router"] = stable
        await middleware(scope, receive, send)
        seen.append(scope)

    async def main() -> None:
        async with serving_app(outside) as port:
            # Its own router builds the URL.
            assert (await fetch(port, "/page", headers=GRAY)).body == b"gray /page"

    run(main())
    scope = next(each for each in seen if each["type"] == "http")
    assert (scope["state"], scope["app"], scope["router"]) == ({"name": "stable"}, stable, stable)
    assert scope["endpoint"].__name__ == "page"


@pytest.mark.parametrize("kind", ["raises", "says so"])
def test_an_app_that_does_not_start_is_held_back(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []

    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    async def main() -> None:
        gray = made("gray", events, fails="start") if kind == "raises" else failing
        middleware = around(made("stable", events), gray=gray, other=made("other", events))
        async with serving_app(middleware) as port:
            assert (await fetch(port, "/page")).body == b"stable /page"
            assert (await fetch(port, "/other/")).body == b"other /page"
            answer = await fetch(port, "/page", headers=GRAY)
            assert (answer.status, answer.body) == (503, b"upstream gray is not reachable\n")
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{port}/chat", additional_headers=GRAY)
            assert refused.value.response.status_code == 503
            assert (await fetch(port, "/old/", headers=[])).status == 301
            assert middleware.upstream_errors() == {("gray", "connect"): 2}

    run(main())
    lines = [record.getMessage() for record in caplog.records if record.name == "canary_mw.relay"]
    levels = [record.levelno for record in caplog.records if record.name == "canary_mw.relay"]
    assert levels == [logging.ERROR, logging.WARNING]
    for line in (each.splitlines()[0] for each in lines):
        assert "gray" in line
        assert "no database" in line
        assert "mend its start-up, then restart this process" in line


@pytest.mark.parametrize("step", ["startup", "shutdown"])
def test_an_app_that_hangs_holds_up_nothing(
    step: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canary_mw.middleware.asgi.services._TIMEOUT", 0.1)
    events: list[str] = []

    async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != f"lifespan.{step}":
            await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    async def main() -> None:
        async with serving_app(around(made("stable", events), gray=hanging)) as port:
            assert (await fetch(port, "/page")).body == b"stable /page"
            if step == "startup":
                assert (await fetch(port, "/page", headers=GRAY)).status == 503

    run(main())
    assert events == ["stable starts", "stable ends"]
    assert "it took more than 0.1 s" in caplog.text


def test_an_app_without_a_lifespan_is_served_with_an_empty_state() -> None:
    async def main() -> None:
        async with serving_app(around(made("stable", []), gray=without_lifespan)) as port:
            assert (await fetch(port, "/page", headers=GRAY)).body == b"plain []"

    run(main())


@pytest.mark.parametrize("raises", [True, False])
def test_services_start_also_where_the_wrapped_app_has_no_lifespan(raises: bool) -> None:
    events: list[str] = []

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, b"")

    async def main() -> None:
        wrapped = without_lifespan if raises else silent
        async with serving_app(around(wrapped, gray=made("gray", events)), lifespan="on") as port:
            assert (await fetch(port, "/page")).status == 200
            assert (await fetch(port, "/page", headers=GRAY)).body == b"gray /page"

    run(main())
    assert events == ["gray starts", "gray ends"]


def test_services_do_not_start_where_the_wrapped_app_fails() -> None:
    events: list[str] = []
    middleware = around(made("stable", events, fails="start"), gray=made("gray", events))
    sent: list[str] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    async def main() -> None:
        with pytest.raises(LookupError):
            await middleware({"type": "lifespan", "state": {}}, receive, send)

    run(main())
    assert sent == ["lifespan.startup.failed"]
    assert events == ["stable starts"]


def test_an_app_that_does_not_end_well_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []

    async def main() -> None:
        async with serving_app(around(made("stable", events), gray=made("gray", events, fails="end"))):
            pass

    run(main())
    assert events[-1] == "stable ends"
    (line,) = [record.getMessage() for record in caplog.records if record.name == "canary_mw.relay"]
    assert "gray" in line
    assert "no end" in line


def test_an_app_may_stand_for_a_service_inside_of_itself() -> None:
    async def main() -> None:
        holder: list[ASGIApp] = []

        async def outer(scope: Scope, receive: Receive, send: Send) -> None:
            await holder[0](scope, receive, send)

        holder.append(around(made("stable", []), gray=outer))
        async with serving_app(outer) as port:
            assert (await fetch(port, "/page")).body == b"stable /page"
            assert (await fetch(port, "/page", headers=GRAY)).status == 508

    run(main())
