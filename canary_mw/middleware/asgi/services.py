"""Apps of this process that stand for a service: each has a lifespan and a state of its own."""

import asyncio
import logging
from collections.abc import Mapping as Dict
from typing import Any

from canary_mw.exceptions import UpstreamConnectError
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("canary_mw.relay")

# The apps whose lifespan is begun, in the scopes of their lifespans: an app may stand for a service inside of itself.
_BEGUN = "canary_mw.services"
# Seconds in which an app has to start, or to end: the wrapped app waits for it. Hypercorn gives as many to its app.
_TIMEOUT = 60.0
# Seconds in which it has to return after that.
_END_TIMEOUT = 5.0
_REMEDY = "mend its start-up, then restart this process"


class ServiceApp:
    """An app that stands for a service, as an ASGI app.

    Attributes:
        error: why it did not start, None when it did, or was never asked to.
    """

    def __init__(self, name: str, app: ASGIApp) -> None:
        self.error: str | None = None
        self.app = app
        self._name = name
        self._state: dict[str, Any] = {}
        self._lifespan: _Lifespan | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. The scope is changed: state and router of the wrapped app are not those of this one."""
        scope["state"] = self._state.copy()
        scope.pop("router", None)
        await self.app(scope, receive, send)

    async def start(self, scope: Scope) -> None:
        """Start it, in a task of its own; an app without lifespan is started by that."""
        self.error, self._state = None, {}
        lifespan = self._lifespan = _Lifespan(self.app, {**scope, "state": self._state})
        error = await lifespan.ask("lifespan.startup")
        if error is not None:
            # Frameworks give a traceback: its last line is the error, and the rest is for the log once.
            *traceback, text = error.strip().splitlines()
            self.error = f"its app did not start: {text}; {_REMEDY}"
            more = f"\n{error}" if traceback else ""
            line = "service %s: its app did not start: %s; its requests get 503: %s%s"
            logger.error(line, self._name, text, _REMEDY, more)
            await self.stop()

    async def stop(self) -> None:
        """End it; does nothing when it is not started."""
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is None:
            return
        error = await lifespan.end(started=self.error is None)
        if error is not None and self.error is None:
            logger.error("service %s: its app did not end well: %s", self._name, error)


class ServiceApps:
    """All of them; one that stands for several services is started once.

    Attributes:
        by_name: the apps by service.
    """

    def __init__(self, apps: Dict[str, ASGIApp] | None) -> None:
        self._apps: dict[int, ServiceApp] = {}
        for name, app in (apps or {}).items():
            self._apps.setdefault(id(app), ServiceApp(name, app))
        self.by_name: dict[str, ASGIApp] = {name: self._apps[id(app)] for name, app in (apps or {}).items()}

    def __bool__(self) -> bool:
        return bool(self._apps)

    async def start(self, scope: Scope) -> None:
        """Start them, one after the other.

        Args:
            scope: of the lifespan of the wrapped app.
        """
        begun: frozenset[int] = scope.get(_BEGUN, frozenset())
        inner = {"type": "lifespan", "asgi": scope.get("asgi", {"version": "3.0"}), _BEGUN: begun | self._apps.keys()}
        for key, app in self._apps.items():
            if key not in begun:
                await app.start(inner)

    async def stop(self) -> None:
        """End them, the last one first; does nothing when they are not started."""
        for app in reversed(self._apps.values()):
            await app.stop()


def start_error(app: ASGIApp) -> UpstreamConnectError | None:
    """Why an app gets no request, None when it gets some."""
    error = app.error if isinstance(app, ServiceApp) else None
    return None if error is None else UpstreamConnectError(error)


class _Lifespan:
    """The lifespan of one app: the place of the server in it."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[str | None]] = {}
        self._task = asyncio.get_running_loop().create_task(self._run(app, scope))

    async def ask(self, step: str) -> str | None:
        """Go one step; returns why it failed. An app that has ended, or knows no lifespan, fails in no step."""
        answer = self._answers[step] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait({"type": step})
        done, _ = await asyncio.wait((answer, self._task), timeout=_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return f"it took more than {_TIMEOUT:g} s"
        return answer.result() if answer.done() else None

    async def end(self, *, started: bool) -> str | None:
        """End the app; returns why it did not end well."""
        error = await self.ask("lifespan.shutdown") if started and not self._task.done() else None
        if started and error is None:
            await asyncio.wait((self._task,), timeout=_END_TIMEOUT)
        self._task.cancel()
        await asyncio.wait((self._task,), timeout=_END_TIMEOUT)
        return error

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._inbox.get, self._send)
        except Exception as exc:  # noqa: BLE001 - an app without lifespan raises anything; one that fails has said so
            logger.debug("the lifespan of an app that stands for a service: %r", exc)

    async def _send(self, message: Message) -> None:
        step, _, outcome = message["type"].rpartition(".")
        answer = self._answers.get(step)
        if answer is not None and not answer.done():
            text = message.get("message", "").strip() or "it gave no reason"
            answer.set_result(text if outcome == "failed" else None)
