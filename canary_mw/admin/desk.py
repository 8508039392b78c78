"""Answers are worked out in a thread of their own, from figures that are read once a second at most.

To read the figures of many workers, or to examine many rules, takes longer than the loop of a proxy may wait.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from canary_mw.admin.subject import Subject
from canary_mw.forking import start_thread
from canary_mw.locks import new_lock
from canary_mw.observability.figures.values import Figures

T = TypeVar("T")
Job = Callable[[Subject, Figures], T]

# Seconds for which figures count as those of now.
FRESH = 1.0


class Desk:
    """Works out answers about a subject, one after the other.

    Its thread starts when something is asked, and ends when nothing is left.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._lock = new_lock()
        self._jobs: deque[tuple[Callable[[], Any], asyncio.AbstractEventLoop, asyncio.Future[Any]]] = deque()
        self._works = False
        self._read_at = -FRESH
        self._figures = Figures()
        # The results of jobs with a key, for as long as the figures count.
        self._kept: dict[object, Any] = {}

    async def ask(self, job: Job[T], key: object = None, *, anew: bool = False) -> T:
        """The result of a job; raises what it raises.

        Args:
            key: jobs of the same key have the same result for as long as the figures count.
            anew: of the figures of this moment, not of those that others have asked for.
        """
        return await self.run(partial(self._result, job, key, anew))

    async def run(self, job: Callable[[], T]) -> T:
        """The result of a job that needs no figures; raises what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            self._jobs.append((job, loop, future))
            begins, self._works = not self._works, True
        if begins:
            try:
                start_thread(self._work, "canary-mw-admin-answers")
            except RuntimeError:
                # No thread can be started: the answer is slow for the others, and is there.
                self._work()
        return await future

    def forget(self) -> None:
        """Work all answers out anew: something was changed. A job may call it."""
        self._kept.clear()

    def _result(self, job: Job[T], key: object, anew: bool) -> T:
        figures = self._fresh(anew)
        if key is None:
            return job(self.subject, figures)
        if key not in self._kept:
            self._kept[key] = job(self.subject, figures)
        found: T = self._kept[key]
        return found

    def _work(self) -> None:
        while (item := self._next()) is not None:
            job, loop, future = item
            try:
                result, error = job(), None
            except Exception as exc:  # noqa: BLE001 - raised where it is awaited
                result, error = None, exc
            # The loop may be closed by now; then nobody waits for the answer.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, future, result, error)

    def _next(self) -> tuple[Callable[[], Any], asyncio.AbstractEventLoop, asyncio.Future[Any]] | None:
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._works = False
            return None

    def _fresh(self, anew: bool) -> Figures:
        now = monotonic()
        if anew or now - self._read_at >= FRESH:
            self._figures, self._read_at = self.subject.read_figures(), now
            self._kept.clear()
        return self._figures


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
