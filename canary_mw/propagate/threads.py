"""Lanes in threads and callbacks, which do not take over the context of who starts them."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar

from canary_mw.propagate.carried import carried, carry_on, end
from canary_mw.propagate.context import resumed, snapshot

P = ParamSpec("P")
T = TypeVar("T")


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """A function that runs with the lanes of the request in which `carry` is called, in whatever thread.

    `record` counts for this request, too. Other context variables stay those of the thread.
    """
    lanes, recorded = carried(), snapshot()

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        token = carry_on(lanes)
        try:
            with resumed(recorded):
                return function(*args, **kwargs)
        finally:
            end(token)

    async def run_async(*args: Any, **kwargs: Any) -> Any:
        token = carry_on(lanes)
        try:
            with resumed(recorded):
                return await function(*args, **kwargs)  # type: ignore[misc]
        finally:
            end(token)

    return wraps(function)(run_async) if iscoroutinefunction(function) else run  # type: ignore[return-value]


class CarryingExecutor(Executor):
    """An executor of threads whose calls run with the lanes of who submits them."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """See `Executor.submit`; `map` stands on it."""
        return self._executor.submit(carry(fn), *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor.shutdown`."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def carrying(executor: Executor) -> Executor:
    """An executor that hands calls to another one, each with the lanes of who submits it. It is for threads only."""
    return CarryingExecutor(executor)
