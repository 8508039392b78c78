"""Django: a middleware below AuthenticationMiddleware, sync and async.

What is below it in MIDDLEWARE, and the view, are the app that the middleware wraps. Middlewares above it see answers of
other services too. Its arguments are `settings.CANARY_MW`, a map, or else variables.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import LazyObject

from canary_mw.middleware.asgi.middleware import CanaryMiddleware as ASGIMiddleware
from canary_mw.middleware.audience.registry import FIND_USER
from canary_mw.middleware.frameworks import django_asgi
from canary_mw.middleware.frameworks.below import BELOW, Below, LocalBody, ask
from canary_mw.middleware.frameworks.django_requests import REQUEST, environ_of, update_from_environ
from canary_mw.middleware.frameworks.django_responses import (
    Relayed,
    asynchronous,
    chunks_of,
    pairs_of,
    with_body,
    with_headers,
)
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.types import Environ, Scope, StartResponse


class CanaryMiddleware:
    """Routes the requests of a Django project by Mappings, behind what signs users in.

    Args:
        get_response: what is below it.

    Attributes:
        middleware: that of ASGI where it is called in a loop, else that of WSGI.

    Raises:
        ConfigError: an argument in `settings.CANARY_MW` is not valid.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        options: dict[str, Any] = dict(getattr(settings, "CANARY_MW", {}))
        self._sessions = django_asgi.SessionLoader()
        self.middleware: Any
        if self._is_async:
            markcoroutinefunction(self)
            self.middleware = ASGIMiddleware(django_asgi.serve_below, **options)
        else:
            self.middleware = CanaryWSGIMiddleware(self._serve_below, **options)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """See Django."""
        session = getattr(request, "session", None)
        if self._is_async:
            given = {REQUEST: request, "session": session, FIND_USER: _find_user_in_loop}
            scope: Scope = {**request.scope, **given}
            below_it = django_asgi.Below(request, self._get_response)
            return django_asgi.answer_of(self.middleware, scope, below_it, self._sessions)
        below = Below()
        environ = environ_of(request) | {"canary_mw.session": session, FIND_USER: _find_user}
        environ |= {REQUEST: request, BELOW: below}
        answer = ask(self.middleware, environ)
        if below.response is None:
            served_async = isinstance(request, ASGIRequest)
            return Relayed(answer.status, answer.headers, asynchronous(answer.body) if served_async else answer.body)
        response: HttpResponseBase = with_headers(below.response, answer.headers)
        return response if answer.body is below.body else with_body(response, answer.body)

    def _serve_below(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Let the rest of Django answer."""
        update_from_environ(environ[REQUEST], environ)
        response = self._get_response(environ[REQUEST])
        body: LocalBody = environ[BELOW].answered(response, LocalBody(chunks_of(response), None))
        start_response(f"{response.status_code} {response.reason_phrase}", pairs_of(response))
        return body


def _find_user(environ: Environ) -> Any:
    return _signed_in(getattr(environ[REQUEST], "user", None))


async def _find_user_in_loop(scope: Scope) -> Any:
    request = scope[REQUEST]
    user = request.__dict__.get("user")
    # `request.user` would look the user up in the loop.
    known = user is not None and not isinstance(user, LazyObject)
    return _signed_in(user if known or not hasattr(request, "auser") else await request.auser())


def _signed_in(user: Any) -> Any:
    return None if getattr(user, "is_authenticated", True) is False else user
