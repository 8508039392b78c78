"""A root path (ASGI `root_path`, WSGI `SCRIPT_NAME`): rules do not see it, and a gray twin gets the path of stable."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from servers import Answer, fetch, mapping, respond, run, serving_app
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from upstream import Peer, Seen, serving
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from wsgiservers import respond as wsgi_respond
from wsgiservers import serving_wsgi

from canary_mw.control.sources.static import StaticSource
from canary_mw.http.mount import split_mount
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.observability.events import Finished
from canary_mw.observability.observers import Observer
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

GRAY = [("gray", "true")]


def gray(name: str, **more: Any) -> str:
    return mapping(name, f"/{name}/", "gray", headers="{gray: 'true'}", **more)


RULES = StaticSource(
    gray("kept", rewrite='""')
    + gray("shop")
    + gray("moved", rewrite="/x/")
    + gray("matched", regex_rewrite="{pattern: '^/matched/(.*)', substitution: '/r/\\1'}")
    + mapping("old", "/old/", "www.example.com", host_redirect="true", prefix_redirect="/new/")
)
# What the twin gets behind its root path.
REWRITTEN = {"/kept/a%2Fb": "/kept/a%2Fb", "/shop/a": "/a", "/moved/a": "/x/a", "/matched/a": "/r/a"}


class Twin:
    """An app that remembers the scopes of its requests; both versions of a service run it."""

    def __init__(self) -> None:
        self.paths: list[tuple[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.paths.append((scope["root_path"], scope["raw_path"].decode()))
            await respond(send, b"")


Wrap = Callable[[ASGIApp], ASGIApp]


def plain(app: ASGIApp) -> ASGIApp:
    return app


def mounted(app: ASGIApp) -> ASGIApp:
    """Below `/api`, where an escape of the client names it too."""
    return Starlette(routes=[Mount("/api", app)])


def documented(app: ASGIApp) -> ASGIApp:
    """A root path that the app itself sets: what is in front strips it, or does not."""
    outer = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    outer.root_path = "/api"
    outer.add_middleware(lambda _: app)
    return outer


@contextlib.asynccontextmanager
async def twins(wrap: Wrap, root_path: str, **options: Any) -> AsyncIterator[tuple[Twin, Twin, int]]:
    stable, other = Twin(), Twin()
    async with serving_app(wrap(other), root_path=root_path) as there:
        middleware = CanaryMiddleware(stable, rules=RULES, upstreams={"gray": f"http://127.0.0.1:{there}"})
        try:
            async with serving_app(wrap(middleware), root_path=root_path, **options) as port:
                yield stable, other, port
        finally:
            await middleware.aclose()


LAYERS = [(plain, "/api", ""), (mounted, "", "/api"), (mounted, "/outer", "/%61pi"), (documented, "", "/api")]


@pytest.mark.parametrize(("wrap", "root_path", "prefix"), [*LAYERS, (documented, "", ""), (documented, "/api", "")])
@pytest.mark.parametrize("lifespan", ["auto", "off"])
def test_a_twin_under_the_same_root_path_gets_the_same_path(
    wrap: Wrap, root_path: str, prefix: str, lifespan: str
) -> None:
    async def main() -> None:
        async with twins(wrap, root_path, lifespan=lifespan) as (stable, other, port):
            for path, rewritten in REWRITTEN.items():
                assert (await fetch(port, prefix + path)).status == 200
                assert (await fetch(port, prefix + path, headers=GRAY)).status == 200
                root, received = stable.paths.pop()
                assert other.paths.pop() == (root, received.removesuffix(path) + rewritten)
            assert stable.paths == other.paths == []

    run(main())


@pytest.mark.parametrize(("wrap", "root_path", "prefix"), LAYERS)
def test_a_redirect_leads_below_the_root_path(wrap: Wrap, root_path: str, prefix: str) -> None:
    async def main() -> None:
        async with twins(wrap, root_path) as (_, _, port):
            moved = await fetch(port, f"{prefix}/old/a?b")
            root = "/outer/api" if root_path == "/outer" else "/api"
            assert moved.header("location") == f"http://www.example.com{root}/new/a?b"

    run(main())


def test_observers_are_told_the_path_of_the_client() -> None:
    told: list[str] = []

    class Listener(Observer):
        def finished(self, record: Finished) -> None:
            told.append(record.path)

    async def main() -> None:
        for wrap, root_path, prefix in ((mounted, "", "/api"), (plain, "/api", "")):
            middleware = CanaryMiddleware(Twin(), rules=RULES, observers=[Listener()])
            async with serving_app(wrap(middleware), root_path=root_path) as port:
                await fetch(port, f"{prefix}/other/x?y")
            await middleware.aclose()

    run(main())
    assert told == ["/api/other/x", "/other/x"]


def test_dot_segments_do_not_leave_the_root_path() -> None:
    async def main() -> None:
        async with twins(mounted, "") as (_, other, port):
            await fetch(port, "/api/../kept/a", headers=GRAY)
            assert other.paths == [("/api", "/api/kept/a")]

    run(main())


@pytest.mark.parametrize("wrap", [plain, mounted])
def test_an_app_of_this_process_is_under_the_same_root_path(wrap: Wrap) -> None:
    async def main() -> None:
        stable, other = Twin(), Twin()
        middleware = CanaryMiddleware(stable, rules=RULES, services={"gray": other})
        root_path, prefix = ("/api", "") if wrap is plain else ("", "/api")
        async with serving_app(wrap(middleware), root_path=root_path) as port:
            for path in REWRITTEN:
                await fetch(port, prefix + path, headers=GRAY)
        await middleware.aclose()
        assert other.paths == [("/api", f"/api{path}") for path in REWRITTEN.values()]

    run(main())


def test_a_layer_that_hides_the_server_hides_no_root_path() -> None:
    """What wraps `receive`, without a lifespan, is what Starlette's own middleware classes do."""

    def hiding(app: ASGIApp) -> ASGIApp:
        async def layer(scope: Scope, receive: Receive, send: Send) -> None:
            async def own_receive() -> Any:
                return await receive()

            async def own_send(message: Any) -> None:
                await send(message)

            await app(scope, own_receive, own_send)

        return layer

    async def main() -> None:
        async with twins(hiding, "/api", lifespan="off") as (_, other, port):
            answer = await fetch(port, "/kept/a", headers=GRAY)
            assert other.paths == [("/api", "/api/kept/a")]
            assert names(answer).count("server") == 1

    run(main())


def names(answer: Answer) -> list[str]:
    return [name.decode() for name, _ in answer.headers]


@pytest.mark.parametrize(
    ("path", "root", "added", "expected"),
    [
        (b"/api/shop/", "/api", "", (b"/api", b"/api", b"", b"/shop/")),
        (b"/api/shop/", "/api", "/api", (b"/api", b"", b"/api", b"/shop/")),
        (b"/a/b/c", "/a/b", "/a", (b"/a/b", b"/b", b"/a", b"/c")),
        (b"/shop/", "/api", "", (b"/api", b"", b"", b"/shop/")),
        (b"/apis/", "/api", "", (b"/api", b"", b"", b"/apis/")),
        (b"/api", "/api", "", (b"/api", b"", b"", b"/api")),
        (b"/api//x", "/api/", "", (b"/api", b"/api", b"", b"//x")),
        (b"/caf%c3%a9/x", "/café", "", (b"/caf%C3%A9", b"/caf%c3%a9", b"", b"/x")),
        (b"/../x", "/..", "", (b"/..", b"", b"", b"/../x")),
        (b"/api/x", "/other", "/api", (b"/other", b"", b"/api", b"/x")),
        (b"/x", "/", "", (b"", b"", b"", b"/x")),
    ],
)
def test_a_root_path_is_taken_off_once(
    path: bytes, root: str, added: str, expected: tuple[bytes, bytes, bytes, bytes]
) -> None:
    mount, rest = split_mount(path, root, added)
    assert (*mount, rest) == expected


def wsgi_twin(seen: list[tuple[str, str]]) -> Any:
    def app(environ: Environ, start_response: StartResponse) -> Any:
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        return wsgi_respond(start_response, b"")

    return app


@pytest.mark.parametrize("in_process", [False, True])
def test_a_mounted_wsgi_app_and_its_twin_get_the_same_path(in_process: bool) -> None:
    stable: list[tuple[str, str]] = []
    other: list[tuple[str, str]] = []

    def below(app: Any) -> Any:
        return DispatcherMiddleware(wsgi_twin([]), {"/api": app})

    async def main() -> None:
        async with serving_wsgi(below(wsgi_twin(other))) as there:
            options: Any = {"services": {"gray": wsgi_twin(other)}} if in_process else {}
            upstreams = {"gray": f"http://127.0.0.1:{there}"}
            middleware = CanaryWSGIMiddleware(wsgi_twin(stable), rules=RULES, upstreams=upstreams, **options)
            async with serving_wsgi(below(middleware)) as port:
                for path in ("/kept/a", "/shop/a"):
                    await fetch(port, f"/api{path}")
                    await fetch(port, f"/api{path}", headers=GRAY)
                moved = await fetch(port, "/api/old/a")
                assert moved.header("location") == "http://www.example.com/api/new/a"
                await asyncio.to_thread(middleware.close)
        assert stable == [("/api", "/kept/a"), ("/api", "/shop/a")]
        assert other == [("/api", "/kept/a"), ("/api", "/a")]

    run(main())


def test_a_script_name_that_the_request_does_not_hold_is_not_sent() -> None:
    """As behind a proxy that strips it, and says so by `X-Forwarded-Prefix`."""
    seen: list[Seen] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.answer()

    async def main() -> None:
        async with serving(script) as upstream:
            app = wsgi_twin([])
            url = f"http://{upstream.origin.authority}"
            middleware = CanaryWSGIMiddleware(app, rules=RULES, upstreams={"gray": url})
            async with serving_wsgi(ProxyFix(middleware, x_prefix=1)) as port:
                prefix = [("x-forwarded-prefix", "/api")]
                await fetch(port, "/kept/a", headers=[*GRAY, *prefix])
                moved = await fetch(port, "/old/a", headers=prefix)
                assert moved.header("location") == "http://www.example.com/api/new/a"
                await asyncio.to_thread(middleware.close)
        assert [each.line for each in seen] == [b"GET /kept/a HTTP/1.1"]

    run(main())
