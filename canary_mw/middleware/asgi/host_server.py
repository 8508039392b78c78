"""What the server around a middleware adds on its own: a root path before paths, `date` and `server` to responses.

ASGI does not tell. The callables that a server gives belong to it, where no layer in between has wrapped them, as they
always are in the lifespan.
"""

import sys
from functools import partial
from typing import Any, NamedTuple

from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.scope import mounted_request_head, request_head
from canary_mw.types import Message, Receive, Scope, Send

_HEADS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
_DATE_AND_SERVER = frozenset((b"date", b"server"))


class HostServer(NamedTuple):
    """What a server adds.

    Attributes:
        headers: of `date` and `server`, those that it adds: also where a response has them, or where it has not.
        root_path: what it puts before the path that the client sent; None for the whole root path of the scope.
    """

    headers: frozenset[bytes] = frozenset()
    root_path: str | None = ""


class HostProbe:
    """Finds out which server is around a middleware, and remembers it.

    Args:
        wraps: whether there is a wrapped app. A proxy hands on what it gets, whatever its server adds.
    """

    def __init__(self, *, wraps: bool = True) -> None:
        self._wraps = wraps
        self._known: HostServer | None = None

    def look(self, *callables: Any) -> HostServer:
        """The server that has given `receive` or `send`; where others have wrapped both, the one that is likely."""
        if self._known is None:
            self._known = _owner_of(callables)
        return self._known or _likely()

    def look_again(self, *callables: Any) -> None:
        """Forget what is known: the lifespan of a server begins."""
        self._known = _owner_of(callables)

    def request_head(self, scope: Scope, receive: Receive, send: Send) -> RequestHead:
        """The head that rules are matched against; see `scope.request_head` and `scope.mounted_request_head`."""
        if not (self._wraps and scope.get("root_path")):
            return request_head(scope)
        root = self.look(receive, send).root_path
        return mounted_request_head(scope, scope.get("app_root_path", scope["root_path"]) if root is None else root)

    def without_own_headers(self, receive: Receive, send: Send) -> Send:
        """A `send` that drops from responses what the server adds: a client gets one of each, that of its server."""
        if not self._wraps:
            return send
        own = self.look(receive, send).headers
        return partial(_send_without, own, send) if own else send


async def _send_without(own: frozenset[bytes], send: Send, message: Message) -> None:
    if message["type"] in _HEADS:
        message = {**message, "headers": [pair for pair in message.get("headers", ()) if pair[0] not in own]}
    await send(message)


def _owner_of(callables: tuple[Any, ...]) -> HostServer | None:
    for each in callables:
        owner = getattr(getattr(each, "func", each), "__self__", None)
        # Also of a class that extends that of the server.
        packages = {kind.__module__.partition(".")[0] for kind in type(owner).__mro__}
        if "uvicorn" in packages:
            return _uvicorn(owner)
        if "hypercorn" in packages:
            return _hypercorn(getattr(owner, "config", None))
        if "granian" in packages:
            return HostServer(_DATE_AND_SERVER)
        if "daphne" in packages:
            return HostServer(frozenset((b"server",)))
    return None


def _uvicorn(owner: Any) -> HostServer:
    """By its configuration: lifespan and WebSockets have it, and a request by the protocol that it belongs to."""
    protocol = getattr(getattr(owner, "on_response", None), "__self__", None)
    config = getattr(owner, "config", None) or getattr(protocol, "config", None)
    if config is None:
        return HostServer(_DATE_AND_SERVER, None)
    added = {name for name, _ in getattr(config, "encoded_headers", ())}
    if config.date_header:
        added.add(b"date")
    return HostServer(_DATE_AND_SERVER & added, config.root_path)


def _hypercorn(config: Any) -> HostServer:
    date, server = getattr(config, "include_date_header", True), getattr(config, "include_server_header", True)
    return HostServer(frozenset([b"date"] * bool(date) + [b"server"] * bool(server)))


def _likely() -> HostServer:
    """Of a server that has put in front of the middleware what wraps its callables."""
    if "uvicorn.server" in sys.modules:
        return HostServer(_DATE_AND_SERVER, None)
    return HostServer(_DATE_AND_SERVER if "hypercorn" in sys.modules else frozenset())
