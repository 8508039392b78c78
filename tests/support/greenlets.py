"""A shop for servers whose threads are greenlets: names under ".test" are looked up by a resolver that blocks.

Environment: `GREENLETS_RULES`, the folder of the rules, and `GREENLETS_RELEASE`, a file: no name is found before it is
there. A look-up that blocks in native code must not hold up the requests of others.
"""

import _socket
import json
import os
from collections.abc import Iterable
from typing import Any

from wsgiservers import respond

from canary_mw import CanaryWSGIMiddleware
from canary_mw.locks import original
from canary_mw.types import Environ, StartResponse


def slow_resolver() -> None:
    """Put a resolver for names of tests in the place of the system's."""
    real, sleep = _socket.getaddrinfo, original("time", "sleep")

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith(".test"):
            return real(host, port, *rest, **more)
        while not os.path.exists(os.environ["GREENLETS_RELEASE"]):
            sleep(0.01)
        return real("127.0.0.1", port, *rest, **more)

    _socket.getaddrinfo = getaddrinfo


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The stable version: it says how many bytes it got."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    got = len(environ["wsgi.input"].read(length)) if length else 0
    return respond(start_response, json.dumps({"who": "stable", "bytes": got}).encode())


def create_app() -> CanaryWSGIMiddleware:
    """The app behind the middleware."""
    slow_resolver()
    return CanaryWSGIMiddleware(app, rules=os.environ["GREENLETS_RULES"], local="shop-stable", dns_interval=0.1)
