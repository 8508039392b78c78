"""Asks the functions of an app in its event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import isawaitable
from typing import Any

from canary_mw.http.messages import RequestHead
from canary_mw.middleware.audience.answers import Answers, no_answer
from canary_mw.middleware.audience.pool import Job, pool
from canary_mw.middleware.audience.registry import call_of
from canary_mw.routing.decided import Decision
from canary_mw.routing.person import Person, Question
from canary_mw.routing.releases.questions import deciding
from canary_mw.routing.table import RouteTable
from canary_mw.types import Scope


class Asker:
    """Decides about requests whose releases ask the app."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def decide(
        self,
        decide: Callable[..., Decision | None],
        table: RouteTable,
        head: RequestHead,
        roll: float,
        person: Person,
        scope: Scope,
    ) -> tuple[Decision | None, Person]:
        """The decision, and who sends the request as far as that had to be known; see `deciding`."""
        steps = deciding(decide, table, head, roll, person)
        try:
            question = next(steps)
            while True:
                question = steps.send(await self._ask(question, head, scope))
        except StopIteration as stop:
            decided: tuple[Decision | None, Person] = stop.value
            return decided

    async def _ask(self, question: Question, head: RequestHead, scope: Scope) -> object:
        answers = self._answers
        function = answers.find(question, scope)
        if function is None:
            return no_answer(question.predicate)
        since = answers.clock()
        call = call_of(function, head, scope)
        try:
            value = _in_thread(call) if function.threaded else _called(call)
            if isawaitable(value):
                task = await _within(value, function.timeout - (answers.clock() - since))
                if task is None:
                    return answers.timed_out(function)
                value = task.result()
        except Exception as exc:  # noqa: BLE001 - it is the code of the app
            return answers.raised(function, exc)
        return answers.answered(function, value, since)


def _called(call: Callable[[], Any]) -> Any:
    """What a call gives. Where it raises `CancelledError`, what it calls was cancelled, and the request was not."""
    try:
        return call()
    except asyncio.CancelledError as exc:
        raise RuntimeError("it was cancelled") from exc


async def _within(waited: Awaitable[Any], seconds: float) -> "asyncio.Future[Any] | None":
    """The finished task of an awaitable; None where it is not finished in time, and is cancelled.

    Raises:
        RuntimeError: it was cancelled by somebody else.
    """
    task = asyncio.ensure_future(waited)
    # One that is left behind is not reported as one whose error was never looked at.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await asyncio.wait((task,), timeout=max(seconds, 0.0))
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        return None
    if task.cancelled():
        raise RuntimeError("it was cancelled")
    return task


async def _in_thread(call: Callable[[], Any]) -> Any:
    """What a call in a thread gives; raises what it raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def done() -> None:
        # The loop may be closed by now; then nothing waits.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    job = Job(call, done)
    pool().submit(job)
    try:
        await future
    finally:
        job.left = True
    if job.error is not None:
        raise job.error
    return await job.value if isawaitable(job.value) else job.value
