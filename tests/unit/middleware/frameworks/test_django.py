"""Django: answers pass as they come, a client that leaves ends what was begun, and users are looked up where needed."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from direct import ask_asgi, ask_wsgi, environ_of, scope_of
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.test.utils import override_settings
from django.urls import path
from django.utils.asyncio import async_unsafe
from django.utils.functional import SimpleLazyObject
from rules import document
from shells import configure_django

import canary_mw
from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.audience import registry
from canary_mw.observability.events import Finished
from canary_mw.observability.observers import Observer

RULES = (
    document("shop", prefix="/shop/")
    + document("gray", prefix="/shop/", weight=0)
    + "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: r\nstable: shop\ngray: {gray: 100}\n"
    + "sticky: [{user: id}]\naudience: {user: {plan: pro}}\n"
)
PRO, FREE = ("x-login", "pro"), ("x-login", "free")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No function of other tests gives the user."""
    monkeypatch.setattr(registry, "users", [])


class User:
    """A user with a plan."""

    is_authenticated = True
    id = 1

    def __init__(self, plan: str) -> None:
        self.plan = plan


class LazyLogin:
    """Signs in as Django does: `user` may not be used in a loop, where `auser` gives it."""

    sync_capable = True
    async_capable = True
    looked_up: tuple[str, ...] = ()

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Set the user."""

        def look_up() -> User:
            type(self).looked_up += (request.path,)
            return User(request.headers["x-login"])

        async def auser() -> User:
            return look_up()

        request.user = SimpleLazyObject(async_unsafe("users are in the database")(look_up))
        request.auser = auser
        return self._get_response(request)


class Log(Observer):
    """Keeps the records."""

    def __init__(self) -> None:
        self.ends: list[Finished] = []

    def finished(self, record: Finished) -> None:
        """See `Observer`."""
        self.ends.append(record)


@contextlib.contextmanager
def project(asgi: bool, view: Any, gray: Any = None, **options: Any) -> Iterator[Any]:
    """Django with one view, and with the service "gray" in the process."""
    configure_django()
    LazyLogin.looked_up = ()
    given = {"rules": StaticSource(RULES), "local": "shop", "services": {"gray": gray} if gray else None, **options}
    names = [f"{__name__}.LazyLogin", "canary_mw.django.CanaryMiddleware"]
    urls = type("urls", (), {"urlpatterns": (path("shop/", view), path("other/", view))})
    with override_settings(MIDDLEWARE=names, CANARY_MW=given, ROOT_URLCONF=urls):
        yield get_asgi_application() if asgi else get_wsgi_application()


def page(request: Any) -> HttpResponse:
    return HttpResponse("shop")


async def page_async(request: Any) -> HttpResponse:
    return HttpResponse("shop")


def test_the_user_is_looked_up_where_a_release_needs_it() -> None:
    def gray(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-length", "4")])
        return [b"gray"]

    with project(False, page, gray) as app:
        asked = [ask_wsgi(app, environ_of(*each)).body for each in (("/shop/", [PRO]), ("/other/", [PRO]))]
    assert (asked, LazyLogin.looked_up) == ([b"gray", b"shop"], ("/shop/",))


def test_in_a_loop_the_user_is_looked_up_without_a_block() -> None:
    async def gray(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"gray"})

    async def main() -> list[bytes]:
        targets = (("/shop/", [PRO]), ("/shop/", [FREE]), ("/other/", [PRO]))
        return [(await ask_asgi(app, scope_of(*each))).body for each in targets]

    with project(True, page_async, gray) as app:
        assert asyncio.run(main()) == [b"gray", b"shop", b"shop"]
    assert LazyLogin.looked_up == ("/shop/", "/shop/")


class Endless:
    """A body without end."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> "Endless":
        return self

    def __next__(self) -> bytes:
        return b"piece"

    def close(self) -> None:
        """Note it."""
        self.closed += 1


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("login", [PRO, FREE], ids=["forwarded", "of a view"])
def test_a_stream_is_not_collected_and_ends_with_its_client(login: tuple[str, str], observed: bool) -> None:
    body, log = Endless(), Log()

    def gray(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/event-stream")])
        return body

    with project(False, lambda _: StreamingHttpResponse(body), gray, observers=[log] if observed else []) as app:
        answer = app(environ_of("/shop/", [login]), lambda *given: bytes)
        pieces = iter(answer)
        assert [next(pieces) for _ in range(3)] == [b"piece"] * 3
        assert body.closed == 0
        answer.close()
    assert body.closed >= 1
    assert [each.reason for each in log.ends] == (["client left"] if observed else [])


@pytest.mark.parametrize("login", [PRO, FREE], ids=["forwarded", "of a view"])
def test_in_a_loop_a_stream_is_not_collected_and_ends_with_its_client(login: tuple[str, str]) -> None:
    log = Log()

    async def main() -> None:
        closed, left, taken = asyncio.Event(), asyncio.Event(), 0

        async def pieces() -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield b"piece"
                    await asyncio.sleep(0)
            finally:
                closed.set()

        async def gray(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async with contextlib.aclosing(pieces()) as chunks:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})

        async def view(request: Any) -> StreamingHttpResponse:
            return StreamingHttpResponse(pieces())

        messages = [{"type": "http.request", "body": b""}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal taken
            taken += message["type"] == "http.response.body"
            if taken == 3:
                left.set()

        with project(True, view, gray, observers=[log]) as app:
            await app(scope_of("/shop/", [login]), receive, send)
            async with asyncio.timeout(20):
                await closed.wait()
        assert taken >= 3

    asyncio.run(main())
    assert len(log.ends) == 1


def test_a_body_that_was_read_above_is_forwarded() -> None:
    class Reading(LazyLogin):
        def __call__(self, request: Any) -> Any:
            assert request.body == b"posted"
            return super().__call__(request)

    globals()["Reading"] = Reading

    def gray(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("content-length", str(len(body)))])
        return [body]

    async def gray_async(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    names = [f"{__name__}.LazyLogin", f"{__name__}.Reading", "canary_mw.django.CanaryMiddleware"]
    with project(False, page, gray), override_settings(MIDDLEWARE=names):
        answer = ask_wsgi(get_wsgi_application(), environ_of("/shop/", [PRO], b"posted", "POST"))
        assert answer.body == b"posted"
    with project(True, page_async, gray_async), override_settings(MIDDLEWARE=names):
        asked = ask_asgi(get_asgi_application(), scope_of("/shop/", [PRO], "POST"), b"posted")
        assert asyncio.run(asked).body == b"posted"


@pytest.mark.parametrize("asgi", [False, True])
def test_a_path_that_only_django_has_decoded_is_forwarded_as_it_was(asgi: bool) -> None:
    seen: list[str] = []

    def gray(environ: Any, start_response: Any) -> Any:
        seen.append(environ["PATH_INFO"])
        start_response("204 No Content", [])
        return []

    async def gray_async(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"].encode().decode("latin-1"))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    written = "/shop/käse ü".encode().decode("latin-1")
    with project(asgi, page_async if asgi else page, gray_async if asgi else gray) as app:
        if asgi:
            scope = {**scope_of("/shop/käse ü", [PRO]), "raw_path": b""}
            assert asyncio.run(ask_asgi(app, scope)).status == 204
        else:
            environ = environ_of("/shop/", [PRO]) | {"PATH_INFO": written}
            del environ["RAW_URI"]
            assert ask_wsgi(app, environ).status == 204
    assert seen in ([written], [written.removeprefix("/shop")])


class Session:
    """A session in a database: it has to be loaded before its items can be read in a loop."""

    def __init__(self) -> None:
        self.accessed = self.loaded = False

    async def ahas_key(self, key: str) -> bool:
        """See Django."""
        self.accessed = self.loaded = True
        return False

    def __getitem__(self, key: str) -> str:
        if not self.loaded:
            raise RuntimeError("the session is in the database")
        return "pro"


def test_in_a_loop_the_session_is_loaded_where_a_release_asks_for_it() -> None:
    sessions: list[Session] = []

    class WithSession(LazyLogin):
        def __call__(self, request: Any) -> Any:
            request.session = Session()
            sessions.append(request.session)
            return super().__call__(request)

    async def gray(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"gray"})

    globals()["WithSession"] = WithSession
    names = [f"{__name__}.WithSession", "canary_mw.django.CanaryMiddleware"]
    for text, loaded in ((RULES.replace("{user: {plan", "{session: {plan"), True), (RULES, False)):
        arguments = {"rules": StaticSource(text), "local": "shop", "services": {"gray": gray}}
        with project(True, page_async), override_settings(MIDDLEWARE=names, CANARY_MW=arguments):
            assert asyncio.run(ask_asgi(get_asgi_application(), scope_of("/shop/", [PRO]))).body == b"gray"
        assert (sessions[-1].loaded, sessions[-1].accessed) == (loaded, False)


def echo(request: Any) -> HttpResponse:
    return HttpResponse(request.body)


@pytest.mark.parametrize("login", ["pro", "free"])
def test_the_test_clients_of_django_are_answered(login: str) -> None:
    def gray(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        start_response("200 OK", [("x-host", environ["HTTP_HOST"])])
        return [body]

    async def gray_async(scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope["headers"])[b"host"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-host", host)]})
        await send({"type": "http.response.body", "body": (await receive())["body"]})

    asked: dict[str, Any] = {"content_type": "text/plain", "headers": {"x-login": login}}

    async def main() -> tuple[str | None, bytes]:
        response: Any = await AsyncClient().post("/shop/", b"posted", **asked)
        body = b"".join([each async for each in response]) if response.streaming else response.content
        return response.headers.get("x-host"), body

    expected = ("testserver" if login == "pro" else None, b"posted")
    with project(True, echo, gray_async):
        assert asyncio.run(main()) == expected
    with project(False, echo, gray):
        response = Client().post("/shop/", b"posted", **asked)
        body = b"".join(response)
        assert (response.headers.get("x-host"), body) == expected
        response = Client().post("/shop/", b"posted", **asked, SERVER_PORT="8080")
        assert response.headers.get("x-host") == (None if login == "free" else "testserver:8080")


def test_in_a_loop_a_stream_that_is_taken_in_a_thread_has_its_lane() -> None:
    def pieces() -> Iterator[str]:
        yield ""
        found = canary_mw.current()
        yield "none" if found is None else found.lane

    warned = pytest.warns(Warning, match="must consume synchronous iterators")
    with project(True, lambda _: StreamingHttpResponse(pieces())) as app, warned:
        answer = asyncio.run(ask_asgi(app, scope_of("/shop/", [FREE])))
    assert answer.body == b"r=stable"
