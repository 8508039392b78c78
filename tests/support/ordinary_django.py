"""An ordinary app of Django, with the middlewares of a new project. `ordinary_django:served` is for servers."""

import time
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.shortcuts import redirect
from django.urls import path
from ordinary import EVENTS, KEY, digest, wrapped_if_told

from canary_mw.types import WSGIApp


def home(request: HttpRequest) -> HttpResponse:
    """A page that caches may keep."""
    if request.headers.get("if-none-match") == '"1"':
        return HttpResponse(status=304, headers={"etag": '"1"'})
    return JsonResponse({"hello": "world"}, headers={"etag": '"1"', "cache-control": "no-store"})


def token(request: HttpRequest) -> HttpResponse:
    """Sets the cookie without which there is no POST."""
    get_token(request)
    return HttpResponse("taken")


def login(request: HttpRequest) -> HttpResponse:
    """Begins a session."""
    request.session["user"] = request.POST["user"]
    return redirect("/me")


def me(request: HttpRequest) -> HttpResponse:
    """Who has begun the session."""
    return HttpResponse(request.session.get("user", "nobody"))


def upload(request: HttpRequest) -> HttpResponse:
    """Takes a body."""
    return HttpResponse(digest(request.body), status=201)


def stream(request: HttpRequest) -> Any:
    """A body in pieces, with a pause after each."""
    pause = float(request.GET.get("pause", 0))

    def chunks() -> Iterator[bytes]:
        for event in EVENTS:
            yield event
            time.sleep(pause)

    return StreamingHttpResponse(chunks(), content_type=request.GET.get("type", "text/plain"))


def where(request: HttpRequest, rest: str) -> HttpResponse:
    """All that the app knows of the target."""
    return JsonResponse([rest, request.path, request.META["SCRIPT_NAME"], request.build_absolute_uri()], safe=False)


def cookies(_: HttpRequest) -> HttpResponse:
    """Two cookies."""
    response = HttpResponse(status=204)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2", path="/sub")
    return response


def fails(_: HttpRequest) -> HttpResponse:
    """A mistake."""
    raise LookupError("as it happens")


def item(_: HttpRequest, number: int) -> HttpResponse:
    """A page whose address ends with a slash."""
    return JsonResponse({"number": number})


urlpatterns = [
    path("", home),
    path("token", token),
    path("login", login),
    path("me", me),
    path("upload", upload),
    path("stream", stream),
    path("where/<path:rest>", where),
    path("cookies", cookies),
    path("fails", fails),
    path("sub/items/<int:number>/", item),
]


def served() -> WSGIApp:
    """See the module. Settings of Django are global, so that it has a process for itself."""
    settings.configure(
        SECRET_KEY=KEY,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
    )
    app: WSGIApp = get_wsgi_application()
    return wrapped_if_told(app)
