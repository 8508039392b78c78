"""The ASGI lifespan of a wrapped app, with the start and the end of the middleware in it."""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Protocol

from canary_mw.exceptions import ConfigError
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


def in_event_loop() -> bool:
    """Whether an event loop runs in this thread.

    A framework that makes its middlewares at the first call (`add_middleware` of Starlette) does so there. Servers take
    an error in that place for an app without lifespan, and serve.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def run_lifespan(owner: LifespanOwner, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the lifespan of the app. The owner starts before the app, and is closed before the shutdown is confirmed.

    The services start after the app, and end before it; with an app that knows no lifespan, in its place.

    Raises:
        ConfigError: the owner cannot start. The server was told why, and does not start.
    """
    asked = False
    remove_handler: Callable[[], None] | None = None
    owner.host.look_again(receive, send)
    error: ConfigError | None = None

    async def receive_and_start() -> Message:
        nonlocal asked, error, remove_handler
        asked = True
        message = await receive()
        if message["type"] == "lifespan.startup":
            error = await _start(owner, send)
            if error is not None:
                raise error
            # The server would close websockets with 1012 (service restart), and this may be no restart.
            remove_handler = on_sigterm(owner.end_websockets)
        elif message["type"] == "lifespan.shutdown":
            await owner.services.stop()
        return message

    async def close_and_send(message: Message) -> None:
        # After a failure the app has nothing to say: it may take the exception for one of its own.
        if error is not None:
            return
        if message["type"] == "lifespan.startup.complete":
            await owner.services.start(scope)
        elif message["type"].startswith("lifespan.shutdown"):
            await owner.aclose()
        await send(message)

    app = _with_lifespan(app, lambda: asked) if owner.services else app
    try:
        await app(scope, receive_and_start, close_and_send)
    finally:
        if remove_handler is not None:
            remove_handler()
        await _end(owner)
    if error is not None:
        raise error


async def _start(owner: LifespanOwner, send: Send) -> ConfigError | None:
    """Start the owner; tell the server why it cannot start."""
    try:
        owner.start()
    except ConfigError as exc:
        await send({"type": "lifespan.startup.failed", "message": f"canary-mw cannot start: {exc}"})
        return exc
    return None


async def _end(owner: LifespanOwner) -> None:
    await owner.services.stop()
    # An app may not support lifespan, or may fail. The owner may have started at a request then.
    if owner.started:
        await owner.aclose()


def _with_lifespan(app: ASGIApp, asked: Callable[[], bool]) -> ASGIApp:
    """The app, with a lifespan in its place where it ends or raises before it has asked for a message."""

    async def app_or_nothing(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception:
            if asked():
                raise
        if not asked():
            await _without_app(receive, send)

    return app_or_nothing


async def _without_app(receive: Receive, send: Send) -> None:
    """A lifespan in which no app takes part."""
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
