"""The ASGI lifespan of a wrapped app, with the start and the end of the middleware in it."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from canary_mw.middleware.asgi.host_server import HostProbe
from canary_mw.middleware.asgi.services import ServiceApps
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

    @property
    def services(self) -> ServiceApps:
        """Apps that start after the app, and end before it."""

    async def aclose(self) -> None:
        """Stop, and close what is open."""


async def run_lifespan(owner: LifespanOwner, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the lifespan of the app. The owner starts before the app, and is closed before the shutdown is confirmed.

    The services start after the app, and end before it; with an app that knows no lifespan, in its place.
    """
    asked = False
    remove_handler: Callable[[], None] | None = None
    owner.host.look_again(receive, send)

    async def receive_and_start() -> Message:
        nonlocal asked, remove_handler
        asked = True
        message = await receive()
        if message["type"] == "lifespan.startup":
            owner.start()
            # The server would close websockets with 1012 (service restart), and this may be no restart.
            remove_handler = on_sigterm(owner.end_websockets)
        elif message["type"] == "lifespan.shutdown":
            await owner.services.stop()
        return message

    async def close_and_send(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            await owner.services.start(scope)
        elif message["type"].startswith("lifespan.shutdown"):
            await owner.aclose()
        await send(message)

    try:
        try:
            await app(scope, receive_and_start, close_and_send)
        except Exception:
            if asked or not owner.services:
                raise
        if not asked and owner.services:
            await _without_app(receive_and_start, close_and_send)
    finally:
        await owner.services.stop()
        if remove_handler is not None:
            remove_handler()
        # An app may not support lifespan, or may fail. The owner may have started at a request then.
        if owner.started:
            await owner.aclose()


async def _without_app(receive: Receive, send: Send) -> None:
    """A lifespan in which no app takes part."""
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
