"""One shop in every place where a middleware can be: around ASGI and WSGI apps, and inside of frameworks.

A user signs in by the header `x-login: ID:PLAN`, which only the authentication of the shop reads.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import django
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from direct import Direct, ask_asgi, ask_wsgi, environ_of, scope_of
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.test.utils import override_settings
from django.urls import path as django_path
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from flask import Flask, g, request, session
from servers import Pairs, respond
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

import canary_mw.flask
from canary_mw import CanaryMiddleware, CanaryWSGIMiddleware
from canary_mw import user as user_of_canary_mw
from canary_mw.control.sources.static import StaticSource
from canary_mw.django import CanaryMiddleware as DjangoMiddleware

ASGI_SHELLS = ("asgi", "starlette", "fastapi", "django asgi")
WSGI_SHELLS = ("wsgi", "flask", "django", "django sync in asgi")
# FastAPI is Starlette, and slower to build: it is not part of what runs for all.
SHELLS = (*(each for each in ASGI_SHELLS if each != "fastapi"), *WSGI_SHELLS)


class Shop(NamedTuple):
    """A shop that can be asked.

    Attributes:
        interface: "asgi" or "wsgi", that of its server.
        counts: what its middleware has counted, by the labels of metrics.
        middleware: that of ASGI or WSGI in it.
    """

    app: Any
    interface: str
    middleware: Any
    counts: Counter[tuple[str, ...]]

    def ask(self, target: str = "/shop/", *headers: tuple[str, str], method: str = "GET", body: bytes = b"") -> Direct:
        """The answer to one request."""
        (answer,) = self.ask_all((target, headers), method=method, body=body)
        return answer

    def ask_all(self, *requests: tuple[str, Pairs], method: str = "GET", body: bytes = b"") -> list[Direct]:
        """The answers to requests, one after the other."""
        if self.interface == "wsgi":
            return [ask_wsgi(self.app, environ_of(target, pairs, body, method)) for target, pairs in requests]

        async def main() -> list[Direct]:
            try:
                return [await ask_asgi(self.app, scope_of(*each, method), body) for each in requests]
            finally:
                if isinstance(self.middleware, CanaryMiddleware):
                    await self.middleware.aclose()

        return asyncio.run(main())


@contextlib.contextmanager
def shop(shell: str, rules: str, services: Any = None, **options: Any) -> Iterator[Shop]:
    """A shop with the rules, in one of SHELLS.

    Args:
        services: by the interface of the middleware, "asgi" or "wsgi", functions that make an app for it.
    """
    inner = "asgi" if shell in ASGI_SHELLS else "wsgi"
    apps = {name: make(inner) for name, make in (services or {}).items()}
    given = {"rules": StaticSource(rules), "local": "shop", "services": apps, "roll": lambda: 50.0, **options}
    with _MAKERS[shell](given) as (app, middleware):
        counts: Counter[tuple[str, ...]] = Counter()
        middleware.answers._tally = lambda *key, count=1: counts.update([key])
        try:
            yield Shop(app, "asgi" if "asgi" in shell or inner == "asgi" else "wsgi", middleware, counts)
        finally:
            if inner == "wsgi":
                middleware.close()


def service(text: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> Callable[[str], Any]:
    """Makes an app that answers every request with a text, and with the body of the request."""

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await respond(send, text + body, status, headers)

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        body = text + environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        pairs = [(name.decode(), value.decode()) for name, value in headers]
        start_response(f"{status} Said", [*pairs, ("content-length", str(len(body)))])
        return [body]

    return lambda interface: asgi_app if interface == "asgi" else wsgi_app


def signed_in(login: str | None) -> dict[str, str] | None:
    """The user of a log-in."""
    number, _, plan = (login or "").partition(":")
    return {"id": number, "plan": plan} if login else None


def page(login: Any, lane: Any, added: Any, body: bytes, decision: Any) -> dict[str, Any]:
    """What a view of the shop tells."""
    variant = None if decision is None or decision.release is None else decision.release.variant
    return {"app": "shop", "user": login, "lane": lane, "added": added, "body": body.decode(), "variant": variant}


def _outcome(path: str) -> int:
    """The status that a path asks for: /shop/status/503; 0 for an error of the view."""
    return int(path.rpartition("/")[2])


# -- plain ASGI, Starlette, FastAPI


async def _asgi_view(request: Request) -> Any:
    path, headers = request.url.path, request.headers
    if path.startswith("/shop/status/"):
        if _outcome(path) == 0:
            raise ZeroDivisionError("of the view")
        return PlainTextResponse("shop fails", _outcome(path))
    if path == "/shop/stream":
        return StreamingResponse(_pieces_async(), media_type="text/plain")
    if not path.startswith("/shop/"):
        return PlainTextResponse("no such page", 404)
    user = request.scope.get("user")
    login = None if user is None or getattr(user, "is_authenticated", True) is False else user.values
    decision = request.scope["canary_mw"]
    told = page(login, headers.get("x-canary-lane"), headers.get("x-added"), await request.body(), decision)
    return JSONResponse(told, headers={"x-page": "1"})


async def _pieces_async() -> Any:
    for piece in (b"one ", b"two"):
        yield piece


class User(BaseUser):
    """A user of Starlette."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.plan, self.id = values["plan"], values["id"]

    @property
    def is_authenticated(self) -> bool:
        """Whether somebody is signed in."""
        return True


class _Backend(AuthenticationBackend):
    async def authenticate(self, conn: Any) -> Any:
        values = signed_in(conn.headers.get("x-login"))
        return None if values is None else (AuthCredentials(["authenticated"]), User(values))


class _Session:
    """Sets the session, as SessionMiddleware does."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            login = dict(scope["headers"]).get(b"x-login")
            scope["session"] = signed_in(login.decode() if login else None) or {}
        await self._app(scope, receive, send)


class _Kept(CanaryMiddleware):
    """Is found again, though Starlette makes it."""

    made: Any = None

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        type(self).made = self


@contextlib.contextmanager
def _asgi(options: Any) -> Iterator[tuple[Any, Any]]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (await _asgi_view(Request(scope, receive)))(scope, receive, send)

    middleware = CanaryMiddleware(app, **options)

    async def signing_in(scope: Any, receive: Any, send: Any) -> None:
        login = dict(scope["headers"]).get(b"x-login")
        values = signed_in(login.decode() if login else None)
        scope["user"] = None if values is None else User(values)
        await _Session(middleware)(scope, receive, send)

    yield signing_in, middleware


@contextlib.contextmanager
def _starlette(options: Any) -> Iterator[tuple[Any, Any]]:
    kept: Any = _Kept
    inside = Middleware(kept, **options)
    outside = [Middleware(AuthenticationMiddleware, backend=_Backend()), Middleware(_Session)]
    methods = ["GET", "POST"]
    app = Starlette(routes=[Route("/shop/{rest:path}", _asgi_view, methods=methods)], middleware=[*outside, inside])
    app.middleware_stack = app.build_middleware_stack()
    yield app, _Kept.made


@contextlib.contextmanager
def _fastapi(options: Any) -> Iterator[tuple[Any, Any]]:
    app = FastAPI()

    @app.api_route("/shop/{rest:path}", methods=["GET", "POST"])
    async def view(request: FastAPIRequest) -> Any:
        return await _asgi_view(request)

    # The last one that is added is the outermost.
    kept: Any = _Kept
    app.add_middleware(kept, **options)
    app.add_middleware(AuthenticationMiddleware, backend=_Backend())
    app.add_middleware(_Session)
    app.middleware_stack = app.build_middleware_stack()
    yield app, _Kept.made


# -- plain WSGI, Flask


@contextlib.contextmanager
def _wsgi(options: Any) -> Iterator[tuple[Any, Any]]:
    def app(environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        status, headers = "200 OK", [("content-type", "application/json"), ("x-page", "1")]
        if path.startswith("/shop/status/"):
            if _outcome(path) == 0:
                raise ZeroDivisionError("of the view")
            status, data = f"{_outcome(path)} Said", [b"shop fails"]
        elif path == "/shop/stream":
            data = (piece for piece in (b"one ", b"two"))  # type: ignore[assignment]
        elif not path.startswith("/shop/"):
            status, data = "404 Not Found", [b"no such page"]
        else:
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            lane, added = environ.get("HTTP_X_CANARY_LANE"), environ.get("HTTP_X_ADDED")
            told = page(environ["canary_mw.user"], lane, added, body, environ["canary_mw.decision"])
            data = [json.dumps(told).encode()]
        start_response(status, headers)
        return data

    middleware = CanaryWSGIMiddleware(app, **options)

    def signing_in(environ: Any, start_response: Any) -> Any:
        found = signed_in(environ.get("HTTP_X_LOGIN"))
        environ["canary_mw.user"], environ["canary_mw.session"] = found, found or {}
        return middleware(environ, start_response)

    yield signing_in, middleware


@contextlib.contextmanager
def _flask(options: Any) -> Iterator[tuple[Any, Any]]:
    app = Flask("shop")
    app.secret_key = "of a test"

    @app.before_request
    def sign_in() -> None:
        g.user = signed_in(request.headers.get("x-login"))
        session.update(g.user or {})

    middleware = canary_mw.flask.init_app(app, **options)
    user_of_canary_mw(lambda environ: g.user)

    @app.route("/shop/", methods=["GET", "POST"])
    def index() -> Any:
        lane, added = request.headers.get("x-canary-lane"), request.headers.get("x-added")
        told = page(g.user, lane, added, request.get_data(), request.environ["canary_mw.decision"])
        return told, 200, {"x-page": "1"}

    @app.route("/shop/status/<int:status>", methods=["GET", "POST"])
    def failing(status: int) -> Any:
        if status == 0:
            raise ZeroDivisionError("of the view")
        return "shop fails", status

    @app.get("/shop/stream")
    def stream() -> Any:
        return (piece for piece in ("one ", "two"))

    yield app, middleware


# -- Django


class SignIn:
    """Signs in, above the middleware of canary-mw."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Set the user and the session."""
        request.user = signed_in(request.headers.get("x-login"))
        request.session = request.user or {}
        return self._get_response(request)


class OnlySync:
    """A middleware that cannot be async, so that Django calls those above it in a thread."""

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response

    def __call__(self, request: Any) -> Any:
        """See Django."""
        return self._get_response(request)


class KeptDjango(DjangoMiddleware):
    """Is found again, though Django makes it."""

    made: Any = None

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        type(self).made = self


def _django_view(request: Any, rest: str = "") -> Any:
    if rest.startswith("status/"):
        if _outcome(rest) == 0:
            raise ZeroDivisionError("of the view")
        return HttpResponse("shop fails", status=_outcome(rest))
    headers = request.headers
    decision = request.META["canary_mw.decision"]
    told = page(request.user, headers.get("x-canary-lane"), headers.get("x-added"), request.body, decision)
    return JsonResponse(told, headers={"x-page": "1"})


def _django_stream(request: Any) -> Any:
    return StreamingHttpResponse(piece for piece in (b"one ", b"two"))


async def _django_view_async(request: Any, rest: str = "") -> Any:
    return _django_view(request, rest)


async def _django_stream_async(request: Any) -> Any:
    return StreamingHttpResponse(_pieces_async())


class Urls:
    """The paths of the sync views, and of the async ones."""

    sync = (
        django_path("shop/stream", _django_stream),
        django_path("shop/<path:rest>", _django_view),
        django_path("shop/", _django_view),
    )
    asynchronous = (
        django_path("shop/stream", _django_stream_async),
        django_path("shop/<path:rest>", _django_view_async),
        django_path("shop/", _django_view_async),
    )


urlpatterns: list[Any] = []


def configure_django() -> None:
    """Once in a process; the rest of the settings is that of each test."""
    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of a test", LOGGING_CONFIG=None)
        django.setup()


def _django(asgi: bool, *below: str) -> Any:
    @contextlib.contextmanager
    def made(options: Any) -> Iterator[tuple[Any, Any]]:
        configure_django()
        names = [f"{__name__}.SignIn", f"{__name__}.KeptDjango", *below]
        urls = Urls.sync if below or not asgi else Urls.asynchronous
        module = type("urls", (), {"urlpatterns": urls})
        with override_settings(MIDDLEWARE=names, CANARY_MW=options, ROOT_URLCONF=module):
            yield get_asgi_application() if asgi else get_wsgi_application(), KeptDjango.made.middleware

    return made


_MAKERS: dict[str, Any] = {
    "asgi": _asgi,
    "starlette": _starlette,
    "fastapi": _fastapi,
    "django asgi": _django(True),
    "wsgi": _wsgi,
    "flask": _flask,
    "django": _django(False),
    "django sync in asgi": _django(True, f"{__name__}.OnlySync"),
}
