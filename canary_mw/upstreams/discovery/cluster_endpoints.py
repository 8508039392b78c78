"""The endpoints of Services, as the API of a cluster has them: asked for by any thread, watched by one of our own."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakMethod, WeakSet

from canary_mw.exceptions import ConfigError
from canary_mw.forking import after_fork, ensure_forked_hooks
from canary_mw.host import HostLogger
from canary_mw.locks import Mutex, new_lock
from canary_mw.observability.source_status import SourceStatus
from canary_mw.rules.upstream import KubernetesService
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.loop_thread import LoopThread

if TYPE_CHECKING:
    from canary_mw.kubernetes.credentials import Connection
    from canary_mw.upstreams.discovery.cluster_watch import ClusterWatch

logger = HostLogger(logging.getLogger("canary_mw.endpoints"))

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class ClusterEndpoints:
    """The endpoints of the Services that rules ask for.

    The first Service starts the watches, in a thread of its own; each process watches by itself.

    Args:
        connect: gives the way to the API, at the first Service; it may raise ConfigError or OSError.
        zone: that of the node that this process runs on, empty where it is not known.
    """

    def __init__(self, connect: "Callable[[], Connection]", zone: str = "") -> None:
        self._connect, self._zone = connect, zone
        self._thread = LoopThread()
        self._services: frozenset[KubernetesService] = frozenset()
        self._reset()
        _instances.add(self)

    def _reset(self) -> None:
        """Create what each process has for itself."""
        self._thread.reset_after_fork()
        self._lock, self._waiters_lock = Mutex(), new_lock()
        self._watch: ClusterWatch | None = None
        self._answers: dict[KubernetesService, Answer] = {}
        self._waiters: dict[KubernetesService, set[_Waiter]] = {}
        # Why the API cannot be asked at all.
        self._problem: str | None = None

    def follow(self, services: Callable[[], Iterable[KubernetesService]]) -> None:
        """Watch these Services from now on, and no others; without any, nothing is watched.

        Args:
            services: says which; one call after the other, so that the newest counts whichever thread calls last.
        """
        with self._lock:
            self._services = frozenset(services())
            if self._services:
                self._apply()
            else:
                self._stop()

    def ensure(self, service: KubernetesService) -> None:
        """Watch this Service too."""
        if self._watch is None or service not in self._services:
            with self._lock:
                self._services |= {service}
                self._apply()

    def stop(self) -> None:
        """End the watches; the next Service starts them again."""
        with self._lock:
            self._stop()

    def answer(self, service: KubernetesService) -> Answer | None:
        """What is known of a Service; None while the first lists are on their way."""
        if self._problem is not None:
            return Answer(None, self._problem)
        return self._answers.get(service)

    async def moved(self, service: KubernetesService, seen: Answer | None, seconds: float) -> bool:
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
        if self._watch is None:
            try:
                connection = self._connect()
            except (ConfigError, OSError) as exc:
                self._note_problem(f"endpoints cannot be asked for: {exc}")
                return
            # Whoever names an API has loaded it.
            from canary_mw.upstreams.discovery.cluster_watch import ClusterWatch

            self._problem = None
            self._watch = ClusterWatch(connection, self._zone, _publisher(self))
            logger.info("endpoints of Services are watched at %s", connection.server)
        self._thread.call(self._watch.follow, self._services)

    def _note_problem(self, text: str) -> None:
        if text != self._problem:
            self._problem = text
            logger.error("%s: services are looked up by DNS", text)

    def _stop(self) -> None:
        if self._thread.started:
            self._thread.stop()
        self._watch, self._answers = None, {}

    def _publish(self, answers: dict[KubernetesService, Answer]) -> None:
        before, self._answers = self._answers, answers
        changed = [each for each in {**before, **answers} if before.get(each) != answers.get(each)]
        with self._waiters_lock:
            waiters = [waiter for service in changed for waiter in self._waiters.get(service, ())]
        for loop, future in waiters:
            # The loop of a waiter may be closed by now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_wake, future)


def _publisher(owner: ClusterEndpoints) -> Callable[[dict[KubernetesService, Answer]], None]:
    """What takes answers of the thread; it does not keep their owner, so that one that nobody uses is collected."""
    method = WeakMethod(owner._publish)

    def publish(answers: dict[KubernetesService, Answer]) -> None:
        take = method()
        if take is not None:
            take(answers)

    return publish


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


_instances: WeakSet[ClusterEndpoints] = WeakSet()
# Watches of the parent in a forked child. They are never freed: that would close connections in the loop of the parent.
_inherited: list["ClusterWatch"] = []


def _after_fork() -> None:
    for each in _instances:
        if each._watch is not None:
            _inherited.append(each._watch)
        each._reset()


after_fork(_after_fork)
