"""A WSGI app that an auth service guards over gRPC, for servers in processes of their own: it says who is let in.

Environment: `GUARDED_AUTH`, host and port of the service, and `GUARDED_EARLY`, where it is asked before any fork.
"""

import io
import json
import os
from collections.abc import Iterable

from auth_rules import auth_service
from wsgiservers import respond

from canary_mw import CanaryWSGIMiddleware
from canary_mw.control.sources.static import StaticSource
from canary_mw.types import Environ, StartResponse


def rules(service: str) -> str:
    """An AuthService over gRPC."""
    return auth_service(service=service, proto="grpc", protocol_version="v3", allowed_authorization_headers="[x-id]")


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Who was let in, and the process."""
    return respond(start_response, json.dumps({"id": environ.get("HTTP_X_ID"), "pid": os.getpid()}).encode())


def create_app() -> CanaryWSGIMiddleware:
    """The app behind the middleware."""
    made = CanaryWSGIMiddleware(app, rules=StaticSource(rules(os.environ["GUARDED_AUTH"])))
    if "GUARDED_EARLY" in os.environ:
        environ = {"REQUEST_METHOD": "GET", "RAW_URI": "/", "HTTP_X_TOKEN": "early", "HTTP_HOST": "app"}
        more = {"wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "REMOTE_ADDR": "127.0.0.1"}
        answer = made({**environ, **more}, lambda _status, _headers, _exc_info=None: print)
        assert json.loads(b"".join(answer))["id"] == "early"
    return made
