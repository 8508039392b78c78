"""What the fast path uses of the connection of a client."""

import asyncio
from typing import Any, Protocol

from canary_mw.middleware.asgi.relay import StartedRequest
from canary_mw.server.fast_path.plans import Sender


class ClientConnection(Protocol):
    """The connection of a client, as `GuardedProtocol` implements it. A request is a `FastPathRequest`.

    Attributes:
        sender: what `FastPath` knows of the client; None before its first request.
        started: what is decided already about the request that the parser reads next.
    """

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    sender: Sender | None
    started: StartedRequest | None

    @property
    def peer(self) -> tuple[str | None, str, str, int, int]:
        """Address, scheme, HTTP version and ports, as `RequestHead` takes them."""

    def on_fast_path(self, request: Any) -> None:
        """A request was sent to its upstream."""

    def continue_in_asgi(self, request: Any, started: StartedRequest) -> None:
        """Let the app continue with a request of the fast path."""

    def on_response_complete(self) -> None:
        """A response is written."""
