"""The admin port beside an app: one worker of a server has it, and another one takes over when that one ends.

It is served by a thread of the system with an event loop of its own, under every server. The worker that holds a lock
in the run folder opens it; where there is no folder the first one that gets the port.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakMethod, WeakSet, ref

from canary_mw.admin.server import AdminServer, listen, url_of
from canary_mw.exceptions import ConfigError
from canary_mw.forking import JOIN_TIMEOUT, SystemThread, after_fork, ensure_forked_hooks, start_thread
from canary_mw.host import HostLogger
from canary_mw.locks import Latch, Mutex, after_patching, patches_later
from canary_mw.middleware.admin_app import Shown, admin_app
from canary_mw.middleware.options import Arguments, Options
from canary_mw.middleware.settings import MiddlewareSettings
from canary_mw.observability.observers import Observer
from canary_mw.observability.prometheus import Metrics
from canary_mw.run_folder.folder import Folder
from canary_mw.run_folder.lock import RETRY_INTERVAL, FolderLock
from canary_mw.run_folder.opened import run_folder
from canary_mw.run_folder.place import is_forked_worker, is_gunicorn
from canary_mw.upstreams.loop_thread import BackgroundLoop

if TYPE_CHECKING:
    from starlette.applications import Starlette

logger = HostLogger(logging.getLogger("canary_mw.admin"))

# Seconds until a port that another program uses is tried again.
_BUSY_INTERVAL = 0.5
# Seconds between two looks whether a worker is set up.
_SHORT_LOOK = 0.05


class Owner(Shown, Protocol):
    """The middleware whose admin port it is."""

    def start(self) -> None:
        """See `MiddlewareBase.start`."""


class AdminPort:
    """The admin port of a middleware, or what waits for it.

    Args:
        owner: it is not kept, nor is it yet wholly made.
        settings, arguments: what the middleware was given; they are shown.
    """

    def __init__(self, owner: Owner, settings: MiddlewareSettings, arguments: Arguments, options: Options) -> None:
        self._metrics: Metrics | None = None
        self._owner = ref(owner)
        self._settings = settings
        self._arguments = [name for name, value in arguments._asdict().items() if value is not None]
        self._host, self._port = options.admin_host, options.admin_port
        self._token_file = options.admin_token_file
        self._folder = partial(run_folder, options.run_dir)
        self._lock = Mutex()
        self._thread: SystemThread | None = None
        self._session: _Session | None = None
        self._made_in = os.getpid()
        # Whether a server has loaded the app, and may fork its workers.
        self._preloaded = False
        _ports.add(self)

    def with_metrics(self, observers: Sequence[Observer]) -> Sequence[Observer]:
        """The observers of the middleware with those metrics that are shown."""
        found = [each for each in observers if isinstance(each, Metrics)]
        self._metrics = found[0] if found else Metrics()
        return observers if found else (*observers, self._metrics)

    def _app(self) -> "Starlette | None":
        """What is shown; None where the middleware is gone."""
        owner = self._owner()
        if owner is None or self._metrics is None:
            return None
        self._metrics.follow(owner)
        return admin_app(owner, self._metrics, self._settings, token_file=self._token_file, arguments=self._arguments)

    def open(self, until: Callable[[], bool] | None = None) -> None:
        """Open the port as soon as no other worker has it; a second call does nothing.

        Args:
            until: given where the middleware is to be started first, as soon as this returns True.
        """
        ensure_forked_hooks()
        with self._lock:
            if self._thread is None:
                session = _Session(WeakMethod(self._app), self._host, self._port, self._folder)
                before = None if until is None else partial(_start_when, until, self._owner, session)
                self._session = session
                self._thread = start_thread(
                    partial(session.run, before), "canary-mw-admin", stop=session.stop, owner=self
                )

    def open_in_worker(self) -> None:
        """Open it without a request where this process is known to be a worker, or as soon as it has forked one.

        A server of WSGI tells an app nothing before the first request, for which probes of the admin port would wait.
        """
        if is_forked_worker():
            self.open(lambda: True)
        else:
            self._preloaded = True

    def open_after_fork(self) -> None:
        """In a child: open it if the child is a worker of a server that has loaded the app before."""
        if self._preloaded and self._thread is None and is_gunicorn() and os.getppid() == self._made_in:
            self._preloaded = False
            if patches_later():
                after_patching(partial(self.open, _is_set_up()))
            else:
                self.open(_is_set_up())

    def close(self) -> None:
        """Close it, so that another worker opens it."""
        ensure_forked_hooks()
        with self._lock:
            thread, self._thread, self._session = self._thread, None, None
        if thread is not None and thread.stop is not None:
            thread.stop()
            if not thread.is_current():
                thread.join(JOIN_TIMEOUT)

    def _reset(self) -> None:
        self._lock = Mutex()
        session, self._session, self._thread = self._session, None, None
        if session is not None:
            session.forget_listener()
            _inherited.append(session)


class _Session:
    """What one thread does for an admin port. It refers to no `AdminPort`."""

    def __init__(
        self,
        app: "WeakMethod[Callable[[], Starlette | None]]",
        host: str,
        port: int,
        folder: Callable[[], Folder | None],
    ) -> None:
        self._app, self._host, self._port = app, host, port
        self._lock = FolderLock(folder, f"admin-{port}.lock")
        self._stopping = Latch()
        self._listener: Any = None
        self._loop: BackgroundLoop | None = None
        self._wake: asyncio.Event | None = None
        self._reported = False

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None:
            loop.call(wake.set)

    def forget_listener(self) -> None:
        """In a forked child: leave the port to the parent, which may end before the child does."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                os.close(listener.detach())

    @property
    def stopping(self) -> Latch:
        """Set once the thread is asked to end."""
        return self._stopping

    def run(self, before: Callable[[], object] | None) -> None:
        """Wait for the port, and serve it until the end."""
        if before is not None:
            before()
        try:
            while not self._stopping.is_set():
                if not self._lock.acquire():
                    self._stopping.wait(RETRY_INTERVAL)
                elif self._serve():
                    return
                else:
                    self._stopping.wait(_BUSY_INTERVAL)
        finally:
            self._lock.release()

    def _serve(self) -> bool:
        """Serve the port until the end; False if that is to be tried again."""
        try:
            self._listener = listen(self._host, self._port, shared=False)
            loop = self._loop = BackgroundLoop()
        except OSError as exc:
            self._report(exc)
            return False
        try:
            loop.run_until_complete(self._serve_in_loop())
        except ConfigError as exc:
            # A library that does not fit, which no later attempt changes.
            logger.error("there is no admin port: %s", exc)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the app goes on without its admin port
            self._report(exc)
            return False
        finally:
            self._loop = None
            # Nothing is left to do but to cancel and to close.
            loop.call_soon(loop.stop)
            loop.run_until_stopped(None)
            self._close_listener()
        return True

    async def _serve_in_loop(self) -> None:
        self._wake = asyncio.Event()
        make_app = self._app()
        app = None if make_app is None else make_app()
        if app is None:
            self._stopping.set()
            return
        server = AdminServer.on(self._listener, app)
        del make_app
        logger.info("admin port: %s with /healthz, /readyz, /rules and /metrics", url_of(self._host, self._port))
        self._reported = False
        while not self._stopping.is_set() and not server.task.done():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), RETRY_INTERVAL)
            # Its file may be gone. Who is faster then waits for the port.
            self._lock.acquire()
        await server.stop()

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _report(self, error: Exception) -> None:
        """Say once that the app goes on without the port."""
        if not self._reported:
            self._reported = True
            logger.warning("%s; the app goes on without it, and it is tried again", error)


def _start_when(until: Callable[[], bool], owner: "ref[Owner]", session: _Session) -> None:
    """Start a middleware as soon as a server has set up its worker."""
    while not until():
        if session.stopping.wait(_SHORT_LOOK):
            return
    middleware = owner()
    if middleware is not None:
        try:
            middleware.start()
        except Exception as exc:  # noqa: BLE001 - the first request says it again
            logger.error("canary-mw cannot start: %s", exc)


def _is_set_up() -> Callable[[], bool]:
    """Whether gunicorn has set up the worker that it has just forked: its user, and then its handlers of signals."""
    before = signal.getsignal(signal.SIGTERM)
    return lambda: signal.getsignal(signal.SIGTERM) is not before


# Sessions of the parent in a forked child. They are never freed: that would change the epoll of the parent.
_inherited: list[_Session] = []
_ports: WeakSet[AdminPort] = WeakSet()


def _after_fork() -> None:
    for port in _ports:
        port._reset()


def _open_in_workers() -> None:
    # After the hooks: a thread starts only then.
    for port in _ports:
        port.open_after_fork()


after_fork(_after_fork)
os.register_at_fork(after_in_child=_open_in_workers)
