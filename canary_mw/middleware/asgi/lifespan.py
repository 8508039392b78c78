"""The ASGI lifespan of a wrapped app, with the start and the end of the middleware in it."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from canary_mw.middleware.asgi.host_server import HostProbe
from canary_mw.middleware.asgi.shutdown import on_sigterm
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send


class LifespanOwner(Protocol):
    """What starts before the app and ends after it. It may also start without a lifespan, at the first request."""

    @property
    def started(self) -> bool:
        """Whether it has started."""

    @property
    def host(self) -> HostProbe:
        """Finds out which server runs the lifespan."""

    def start(self) -> None:
        """Start; does nothing when started already."""

    def end_websockets(self) -> Collection[asyncio.Task[Any]]:
        """See `CanaryMiddleware`."""

    async def aclose(self) -> None:
        """Stop, and close what is open."""


async def run_lifespan(owner: LifespanOwner, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the lifespan of the app. The owner starts before the app, and is closed before the shutdown is confirmed."""
    remove_handler: Callable[[], None] | None = None
    owner.host.look_again(receive, send)

    async def receive_and_start() -> Message:
        nonlocal remove_handler
        message = await receive()
        if message["type"] == "lifespan.startup":
            owner.start()
            # The server would close websockets with 1012 (service restart), and this may be no restart.
            remove_handler = on_sigterm(owner.end_websockets)
        return message

    async def close_and_send(message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown"):
            await owner.aclose()
        await send(message)

    try:
        await app(scope, receive_and_start, close_and_send)
    finally:
        if remove_handler is not None:
            remove_handler()
        # An app may not support lifespan, or may fail. The owner may have started at a request then.
        if owner.started:
            await owner.aclose()
