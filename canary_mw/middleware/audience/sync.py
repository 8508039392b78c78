"""Asks the functions of an app in the thread of a request: the twin of `audience.aio`, which awaits."""

from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from inspect import isawaitable
from typing import Any, Protocol

from canary_mw.http.messages import RequestHead
from canary_mw.locks import threads_are_greenlets, wait_for
from canary_mw.middleware.audience.answers import Answers, no_answer
from canary_mw.middleware.audience.pool import Job, ended_by, pool
from canary_mw.middleware.audience.registry import call_of
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person, Question
from canary_mw.routing.releases.questions import deciding
from canary_mw.routing.table import RouteTable
from canary_mw.types import Environ
from canary_mw.upstreams.loop_thread import LoopThread, run_in_thread


class HasBackground(Protocol):
    """Upstreams with a loop beside the threads."""

    background: LoopThread


class SyncAsker:
    """Decides about requests whose releases ask the app; the counterpart of `Asker`.

    Args:
        upstreams: async functions run in their loop.
    """

    def __init__(self, answers: Answers, upstreams: HasBackground) -> None:
        self._answers = answers
        self._upstreams = upstreams

    def decide(
        self,
        decide: Callable[..., Decision | None],
        table: RouteTable,
        head: RequestHead,
        roll: float,
        person: Person,
        environ: Environ,
    ) -> tuple[Decision | None, Person]:
        """See `Asker.decide`."""
        steps = deciding(decide, table, head, roll, person)
        try:
            question = next(steps)
            while True:
                question = steps.send(self._ask(question, head, environ))
        except StopIteration as stop:
            decided: tuple[Decision | None, Person] = stop.value
            return decided

    def _ask(self, question: Question, head: RequestHead, environ: Environ) -> object:
        answers = self._answers
        function = answers.find(question, environ)
        if function is None:
            return no_answer(question.predicate)
        since = answers.clock()
        call = call_of(function, head, environ)
        try:
            value = self._in_thread(call, function.timeout) if function.threaded else call()
            if isawaitable(value):
                value = self._in_loop(value, function.timeout - (answers.clock() - since))
        except _TooLate:
            return answers.timed_out(function)
        except (Exception, CancelledError) as exc:  # noqa: BLE001 - it is the code of the app
            # What it calls may be cancelled, and the request is not.
            return answers.raised(function, exc)
        return answers.answered(function, value, since)

    def _in_thread(self, call: Callable[[], Any], seconds: float) -> Any:
        if threads_are_greenlets():
            # A greenlet, to whose hub its locks and sockets belong.
            return self._in_loop(run_in_thread(call), seconds)
        job = Job(call)
        pool().submit(job)
        in_time = wait_for(job.done, seconds)
        job.left = True
        if not in_time:
            raise _TooLate
        if job.error is not None:
            raise job.error
        return job.value

    def _in_loop(self, awaitable: Any, seconds: float) -> Any:
        try:
            value, error = self._upstreams.background.run(_outcome(awaitable), max(seconds, 0.0))
        except TimeoutError:
            raise _TooLate from None
        if error is not None:
            raise error
        return value


class _TooLate(Exception):
    """There was no answer in time."""


def _outcome(awaitable: Any) -> Coroutine[Any, Any, tuple[Any, Exception | None]]:
    """The result of an awaitable, or the error that it raises: a TimeoutError of the app is none of ours."""

    async def outcome() -> tuple[Any, Exception | None]:
        try:
            return await awaitable, None
        except Exception as exc:  # noqa: BLE001 - it is the code of the app, and told where it is waited for
            return None, exc
        except (SystemExit, KeyboardInterrupt) as exc:
            # It would end the loop, for all that is in it.
            return None, ended_by(exc)

    return outcome()
