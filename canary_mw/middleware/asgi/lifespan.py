"""The lifespan of a wrapped app, with that of the middleware around it."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from canary_mw.middleware.asgi.shutdown import on_sigterm
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send


class LifespanOwner(Protocol):
    """What begins before the app and ends after it; it may begin by itself, too."""

    @property
    def started(self) -> bool:
        """It has begun."""

    def start(self) -> None:
        """Begin; harmless when it has."""

    def end_websockets(self) -> Collection[asyncio.Task[Any]]:
        """See `CanaryMiddleware`."""

    async def aclose(self) -> None:
        """End."""


async def run_lifespan(living: LifespanOwner, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the app have its lifespan: what lives with it starts before, and is closed before the end is confirmed."""
    unhear: Callable[[], None] | None = None

    async def starting() -> Message:
        nonlocal unhear
        message = await receive()
        if message["type"] == "lifespan.startup":
            living.start()
            # The server would end websockets with 1012, for a restart that this may not be.
            unhear = on_sigterm(living.end_websockets)
        return message

    async def ending(message: Message) -> None:
        if message["type"].startswith("lifespan.shutdown"):
            await living.aclose()
        await send(message)

    try:
        await app(scope, starting, ending)
    finally:
        if unhear is not None:
            unhear()
        # The app may know no lifespan, or fail; requests then start what they need.
        if living.started:
            await living.aclose()
