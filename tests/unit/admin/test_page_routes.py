"""The routes of the pages, over sockets: HTML, the stream that keeps a page up to date, colours and static files."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from admin_examples import ABOUT, EXPLAIN
from admin_release_examples import OVERVIEW, RELEASE
from servers import run, serving_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount

from canary_mw.admin.errors import Refused
from canary_mw.admin.pages import live
from canary_mw.admin.pages.frame import Page
from canary_mw.admin.pages.routes import Answerer, page_routes
from canary_mw.admin.pages.static_files import hashed_name
from canary_mw.admin.streams import Streams

DIAG = "/ambassador/v0/diag/"


async def at_once(job: Callable[[], str]) -> str:
    return job()


def saying(answer: Mapping[str, Any]) -> Answerer:
    async def answerer(_: Request) -> Mapping[str, Any]:
        return answer

    return answerer


async def release(request: Request) -> Mapping[str, Any]:
    if request.path_params["name"] != RELEASE["name"]:
        raise Refused(404, "no-release", f"no release is called {request.path_params['name']}")
    return RELEASE


def answerers(**changed: Answerer) -> dict[Page, Answerer]:
    found: dict[Page, Answerer] = {"overview": saying(OVERVIEW), "about": saying(ABOUT), "explain": saying(EXPLAIN)}
    return {**found, "release": release, **changed}  # type: ignore[dict-item]


def app_of(streams: Streams | None = None, **changed: Answerer) -> Starlette:
    return Starlette(routes=page_routes(answerers(**changed), streams or Streams(), at_once, JSONResponse))


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving_app(app, lifespan="off") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """(name, data) of each event."""
    name, data = "", []
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line and data:
            yield name, "\n".join(data)
            name, data = "", []


def with_client(test: Callable[[httpx.AsyncClient], Awaitable[None]], app: Any = None) -> None:
    async def main() -> None:
        async with client_of(app or app_of()) as client:
            await test(client)

    run(main())


def test_the_root_leads_to_the_pages_and_each_is_html() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path in ("/", DIAG.rstrip("/")):
            assert (await client.get(path)).headers["location"] == DIAG
        for path in ("", "about", "explain", "releases/checkout-2026-11"):
            answer = await client.get(DIAG + path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/html; charset=utf-8"
            assert (await client.head(DIAG + path)).content == b""
            assert (await client.post(DIAG + path)).status_code == 405

    with_client(test)


def test_the_same_answer_is_there_as_json() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.get(f"{DIAG}?json=true")).json() == OVERVIEW

    with_client(test)


def test_links_lead_below_where_the_app_is_mounted() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"/inner app{DIAG}about")
        assert f'href="/inner%20app{DIAG}rules"' in answer.text
        assert (await client.get("/inner app/")).headers["location"] == f"/inner%20app{DIAG}"

    with_client(test, Starlette(routes=[Mount("/inner app", app_of())]))


def test_a_release_that_is_not_there_has_a_page_that_says_so() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for name in ("other", "<script>", "a%2Fb", "%E2%80%AE"):
            answer = await client.get(f"{DIAG}releases/{name}")
            assert answer.status_code == 404
            assert "There is no such page" in answer.text
            assert "called <script>" not in answer.text
            assert "\u202e" not in answer.text
            shown = (await client.get(f"{DIAG}releases/{name}?json=true")).json()
            assert shown["error"]["code"] == "no-release"

    with_client(test)


def test_static_files_may_be_kept_for_ever() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"{DIAG}static/{hashed_name('pages.css')}")
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        for name in ("pages.css", "..%2Fapp.py", "x"):
            assert (await client.get(f"{DIAG}static/{name}")).status_code == 404

    with_client(test)


def test_the_chosen_colours_are_kept_and_the_page_comes_back() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"{DIAG}colours?to=dark&from=explain%3Furl%3D%2Fa%2526b")
        assert answer.status_code == 303
        assert answer.headers["location"] == f"{DIAG}explain?url=%2Fa%26b"
        assert f"path={DIAG}" in answer.headers["set-cookie"].lower()
        dark = await client.get(DIAG)
        assert '<html lang="en" data-theme="dark">' in dark.text
        assert 'name="to" value="auto" aria-label="Colours: dark"' in dark.text
        assert "set-cookie" not in (await client.get(f"{DIAG}colours?to=pink")).headers

    with_client(test)


def test_the_button_of_the_colours_leads_to_pages_alone() -> None:
    elsewhere = (
        "//evil.example",
        "https://evil.example",
        "\\evil",
        "../x",
        "explain/../../x",
        "/x",
        "%0d%0aset-cookie: a=b",
    )

    async def test(client: httpx.AsyncClient) -> None:
        for path in elsewhere:
            answer = await client.get(f"{DIAG}colours", params={"to": "dark", "from": path})
            assert answer.headers["location"] == DIAG

    with_client(test)


def test_a_page_is_sent_again_when_it_has_changed_and_not_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PAUSE", 0.01)
    answers = [OVERVIEW, {**OVERVIEW, "finding": "All is well."}]

    async def changing(_: Request) -> Mapping[str, Any]:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def test(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", f"{DIAG}events?page=overview&window=5m") as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            found: list[tuple[str, str]] = []
            async for event in events(response):
                found.append(event)
                if len(found) == 5:
                    break
        assert [name for name, _ in found] == ["", "tick", "", "tick", "tick"]
        assert "All is well." in found[2][1]
        assert "All is well." not in found[0][1]
        assert found[0][1].lstrip().startswith("<header")

    with_client(test, app_of(overview=changing))


def test_a_stream_of_a_release_that_is_no_more_says_so() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"{DIAG}events?page=release&name=gone&once=1")
        assert "no release is called gone" in answer.text
        answer = await client.get(f"{DIAG}events?page=release&name={RELEASE['name']}&once=1")
        assert RELEASE["name"] in answer.text
        assert (await client.get(f"{DIAG}events?page=nothing")).status_code == 400

    with_client(test)


def test_there_are_so_many_streams_and_not_more() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        address = f"{DIAG}events?page=about"
        async with client.stream("GET", address) as one, client.stream("GET", address) as two:
            assert [(await anext(events(each)))[0] for each in (one, two)] == ["", ""]
            third = await client.get(address)
            assert third.status_code == 503
            assert "asks now and then" in third.text

    with_client(test, app_of(Streams(most=2)))


def test_streams_end_when_they_are_stopped_and_none_is_opened_any_more() -> None:
    streams = Streams()

    async def test(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", f"{DIAG}events?page=about") as response:
            found = events(response)
            assert (await anext(found))[0] == ""
            await asyncio.to_thread(streams.stop)
            assert [name async for name, _ in found] == ["tick"]
        assert (await client.get(f"{DIAG}events?page=about")).status_code == 503

    with_client(test, app_of(streams))


def test_a_question_is_answered_once_and_not_each_second() -> None:
    asked: list[str] = []

    async def explained(request: Request) -> Mapping[str, Any]:
        asked.append(request.url.query)
        return EXPLAIN

    async def test(client: httpx.AsyncClient) -> None:
        await client.get(f"{DIAG}explain?url=/shop/")
        async with client.stream("GET", f"{DIAG}events?page=explain&url=/shop/") as response:
            await anext(events(response))
        assert asked == ["url=/shop/", ""]

    with_client(test, app_of(explain=explained))


def test_what_nobody_looks_at_any_more_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_KEPT", -1)
    regions = live.Regions()

    async def make() -> tuple[str, str]:
        return "<p>", "2026-11-27T14:06:59.000Z"

    async def main() -> None:
        for number in range(5):
            await regions.get(str(number), make)
        assert list(regions._made) == ["4"]
        monkeypatch.setattr(live, "_KEPT", 60)
        monkeypatch.setattr(live, "_MOST", 3)
        for number in range(5, 12):
            await regions.get(str(number), make)
        assert list(regions._made) == ["9", "10", "11"]

    run(main())


def test_the_head_of_a_stream_is_no_reader() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            assert (await client.head(f"{DIAG}events?page=about")).status_code == 200

    with_client(test, app_of(Streams(most=1)))


def test_a_stream_ends_by_itself_where_nobody_would_stop_it() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", f"{DIAG}events?page=about") as response:
            assert [name async for name, _ in events(response)] == ["", "tick"]

    with_client(test, app_of(Streams(lifetime=0.01)))


def test_those_who_look_at_the_same_share_what_is_made() -> None:
    made = 0

    async def counted(_: Request) -> Mapping[str, Any]:
        nonlocal made
        made += 1
        return OVERVIEW

    async def test(client: httpx.AsyncClient) -> None:
        address = f"{DIAG}events?page=overview&once=1"
        await asyncio.gather(*(client.get(address) for _ in range(8)))
        assert made == 1

    with_client(test, app_of(overview=counted))
