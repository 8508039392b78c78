"""Endpoints that are watched by a thread of our own, and asked for by any other."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakMethod, WeakSet

from canary_mw.exceptions import ConfigError
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.host import HostLogger
from canary_mw.locks import Mutex, new_lock
from canary_mw.observability.source_status import SourceStatus
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.loop_thread import LoopThread

logger = HostLogger(logging.getLogger("canary_mw.endpoints"))

# What names a service: a value that can be a key.
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]
Publish = Callable[[dict[S, Answer]], None]


class Watch(Protocol[S_contra]):
    """Watches services in an event loop."""

    def follow(self, services: frozenset[S_contra], /) -> None:
        """Watch these services and no others; called in the event loop."""

    def status(self) -> list[SourceStatus]:
        """How it goes; any thread may call it."""


class WatchedEndpoints(Generic[S]):
    """The endpoints of the services that rules ask for.

    The first service starts the watches, in a thread of its own; each process watches by itself.

    Args:
        open_watch: begins to watch, at the first service; it gets what takes the new answers, all of them, whenever one
            has changed. It may raise ConfigError or OSError.
        otherwise: what happens while it cannot, for the log.
    """

    def __init__(self, open_watch: Callable[[Publish[S]], Watch[S]], otherwise: str) -> None:
        self._open_watch, self._otherwise = open_watch, otherwise
        self._thread = LoopThread()
        self._services: frozenset[S] = frozenset()
        self._reset()
        _instances.add(self)

    def _reset(self) -> None:
        """Create what each process has for itself."""
        self._thread.reset_after_fork()
        self._lock, self._waiters_lock = Mutex(), new_lock()
        self._watch: Watch[S] | None = None
        self._answers: dict[S, Answer] = {}
        self._waiters: dict[S, set[_Waiter]] = {}
        # Why the API cannot be asked at all.
        self._problem: str | None = None
        # When the first service was asked for; and whether the first answers are no longer waited for.
        self._began: float | None = None
        self._settled = False

    def follow(self, services: Callable[[], Iterable[S]]) -> None:
        """Watch these services from now on, and no others; without any, nothing is watched.

        Args:
            services: says which; one call after the other, so that the newest counts whichever thread calls last.
        """
        with self._lock:
            self._services = frozenset(services())
            if self._services:
                self._apply()
            else:
                self._stop()

    def ensure(self, service: S) -> None:
        """Watch this service too."""
        if self._watch is None or service not in self._services:
            with self._lock:
                self._services |= {service}
                self._apply()

    def stop(self) -> None:
        """End the watches; the next service starts them again."""
        with self._lock:
            self._stop()

    def answer(self, service: S) -> Answer | None:
        """What is known of a service; None before the first answer."""
        if self._problem is not None:
            return Answer(None, self._problem)
        return self._answers.get(service)

    def missing_at_start(self, seconds: float) -> list[S]:
        """The services that nothing is known of, in the first seconds after a process has begun to ask for any.

        Once all are known, or the time is over, there are none: a service that is asked for later holds up nobody.
        """
        if self._settled or self._began is None:
            return []
        found = [each for each in self._services if (known := self.answer(each)) is None or known.addresses is None]
        self._settled = not found or monotonic() - self._began >= seconds
        return [] if self._settled else found

    async def moved(self, service: S, seen: Answer | None, seconds: float) -> bool:
        """Wait until the answer is another one, at most so many seconds; whether it is."""
        loop = asyncio.get_running_loop()
        waiter = loop, loop.create_future()
        with self._waiters_lock:
            self._waiters.setdefault(service, set()).add(waiter)
        try:
            if self.answer(service) == seen:
                await asyncio.wait({waiter[1]}, timeout=seconds)
            return self.answer(service) != seen
        finally:
            with self._waiters_lock:
                self._waiters.get(service, set()).discard(waiter)

    def status(self) -> list[SourceStatus]:
        """How it goes with the watches."""
        watch = self._watch
        return [] if watch is None else watch.status()

    def _apply(self) -> None:
        ensure_forked_hooks()
        if self._began is None:
            self._began = monotonic()
        if self._watch is None:
            try:
                self._watch = self._open_watch(_publisher(self))
            except (ConfigError, OSError) as exc:
                self._note_problem(f"endpoints cannot be asked for: {exc}")
                return
            self._problem = None
        self._thread.call(self._watch.follow, self._services)

    def _note_problem(self, text: str) -> None:
        if text != self._problem:
            self._problem = text
            logger.error("%s: %s", text, self._otherwise)

    def _stop(self) -> None:
        if self._thread.started:
            self._thread.stop()
        self._watch, self._answers = None, {}

    def _publish(self, answers: dict[S, Answer]) -> None:
        before, self._answers = self._answers, answers
        changed = [each for each in {**before, **answers} if before.get(each) != answers.get(each)]
        with self._waiters_lock:
            waiters = [waiter for service in changed for waiter in self._waiters.get(service, ())]
        for loop, future in waiters:
            # The loop of a waiter may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_wake, future)


def _publisher(owner: WatchedEndpoints[S]) -> Publish[S]:
    """What takes answers of the thread; it does not keep their owner, so that one that nobody uses is collected."""
    method = WeakMethod(owner._publish)

    def publish(answers: dict[S, Answer]) -> None:
        take = method()
        if take is not None:
            take(answers)

    return publish


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


_instances: WeakSet[WatchedEndpoints[Any]] = WeakSet()
# Watches of the parent in a forked child. They are never freed: that would close connections in the loop of the parent.
_inherited: list[Watch[Any]] = []


def _after_fork() -> None:
    for each in _instances:
        if each._watch is not None:
            _inherited.append(each._watch)
        each._reset()


after_fork(_after_fork)
