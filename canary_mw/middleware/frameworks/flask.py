"""Flask: a function that runs before requests, behind what signs users in.

The rest of Flask (later functions before requests, the view, handlers of errors) is the app that the middleware wraps.
What runs after requests runs once, for answers of other services too.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from flask import Flask, Response, request, session
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from canary_mw.exceptions import ConfigError
from canary_mw.middleware.base import Rules
from canary_mw.middleware.frameworks.below import BELOW, Answer, Below, LocalBody, ask, use_up
from canary_mw.middleware.frameworks.kept_input import KeptInput
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.types import Environ, StartResponse

_EXTENSION = "canary_mw"
# Bytes of a body that earlier functions may read, as those of a form.
_KEPT = 1 << 20


def init_app(app: Flask, rules: Rules | None = None, **options: Any) -> CanaryWSGIMiddleware:
    """Route the requests of an app by Mappings: before its views, behind its earlier `before_request` functions.

    `@canary_mw.user` gives the signed-in user: its function may use `g`, `session` and `current_user`.

    Args:
        options: the arguments of `CanaryWSGIMiddleware`.

    Returns:
        The middleware, which is also `app.extensions["canary_mw"]`.

    Raises:
        ConfigError: an argument is not valid, or the app has a middleware already.
    """
    if _EXTENSION in app.extensions:
        raise ConfigError("the Flask app has canary-mw already", hint="call init_app once")
    middleware = CanaryWSGIMiddleware(partial(_serve_below, app), rules=rules, **options)
    app.extensions[_EXTENSION] = middleware
    relayed = _relayed_class(app.response_class)

    def route() -> Response:
        environ = request.environ
        below = environ[BELOW] = Below()
        environ["canary_mw.session"] = session
        _unread_body(environ)
        answer = ask(middleware, environ)
        if below.response is not None:
            return _as_answered(below, answer)
        response: Response = relayed(answer.body, status=answer.status)
        response.headers = Headers(answer.headers)
        return response

    app.extensions[f"{_EXTENSION}.route"] = route
    app.before_request_funcs.setdefault(None, []).insert(0, _keep_body)
    app.before_request(route)
    return middleware


def _serve_below(app: Flask, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Let the rest of Flask answer."""
    request.environ["wsgi.input"] = environ["wsgi.input"]
    request.environ["canary_mw.decision"] = environ["canary_mw.decision"]
    try:
        result = _rest_of(app)
    except Exception as exc:  # noqa: BLE001 - what nobody handles is raised there
        result = app.handle_user_exception(exc)
    response = app.make_response(result)
    close = getattr(response.response, "close", None)
    below: Below = environ[BELOW]
    body = below.answered(response, LocalBody(response.iter_encoded(), close))
    start_response(response.status, response.headers.to_wsgi_list())
    return body


def _rest_of(app: Flask) -> Any:
    """The result of the functions behind ours, or of the view."""
    names = (None, *reversed(request.blueprints))
    functions = [each for name in names for each in app.before_request_funcs.get(name, ())]
    for function in functions[functions.index(app.extensions[f"{_EXTENSION}.route"]) + 1 :]:
        result = app.ensure_sync(function)()
        if result is not None:
            return result
    return app.dispatch_request()


def _as_answered(below: Below, answer: Answer) -> Response:
    """The response of Flask with the headers of the middleware."""
    response: Response = below.response
    response.headers.clear()
    response.headers.extend(answer.headers)
    if answer.body is below.body:
        return response
    if response.is_sequence:
        use_up(answer.body)
    else:
        response.response = answer.body
    return response


def _keep_body() -> None:
    """Keep what earlier functions read of a body: it may have to be forwarded."""
    environ = request.environ
    if environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING"):
        environ["wsgi.input"] = KeptInput(environ["wsgi.input"], _KEPT)


def _unread_body(environ: Environ) -> None:
    """Give back a body that an earlier function has read."""
    kept = environ["wsgi.input"]
    if isinstance(kept, KeptInput):
        environ["wsgi.input"] = kept.again()


def _relayed_class(base: type[Response]) -> Any:
    """The response class of an app for answers of other services, which are sent as they are."""

    class Relayed(base):  # type: ignore[valid-type, misc]
        def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response(self.status, self.headers.to_wsgi_list())
            # `close` also closes the body.
            return ClosingIterator(map(bytes, self.response), self.close)

    return Relayed
