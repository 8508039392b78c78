"""What a suite that runs an app puts in place of decisions and of gray versions: `all_stable` and `gray_answered_by`.

They count for all middlewares of the process, for those that the app under test has made already too, and in all
threads: a test client often runs the app in a thread of its own. They may be nested, and the one that was begun last
counts. Without any, the middlewares have their own functions and look for nothing.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple

from canary_mw.exceptions import ConfigError
from canary_mw.http.messages import RequestHead
from canary_mw.locks import new_lock
from canary_mw.middleware.asgi.services import ServiceApp
from canary_mw.middleware.base import MiddlewareBase
from canary_mw.middleware.settings import ENABLED, is_enabled
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.types import ASGIApp, WSGIApp
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.sync import SyncUpstreams


class _Override:
    """One use of `all_stable`, or of `gray_answered_by` with its app."""

    def __init__(self, gray_app: object = None) -> None:
        self.gray_app = gray_app


class _Original(NamedTuple):
    """What a class has while there is no override; `value` as the class holds it, so with its `staticmethod`."""

    owner: type
    name: str
    value: Any


# In the order in which they began. Replaced as a whole, so that a request reads it without a lock.
_overrides: tuple[_Override, ...] = ()
_changing = new_lock()
# By which one the present request was decided: others may begin and end before it is answered.
_decided_by: ContextVar[_Override | None] = ContextVar("canary_mw_decided_by", default=None)


@contextmanager
def all_stable() -> Iterator[None]:
    """Every decision is stable: what would go to a gray version goes to the stable one, and no shadow gets a copy.

    Rules are followed in all else: Mappings are matched in their order, and redirects are answered. A group without a
    stable Mapping is passed over. In a middleware the wrapped app takes what is left.
    """
    with _in_force(_Override()):
        yield


@contextmanager
def gray_answered_by(app: ASGIApp | WSGIApp) -> Iterator[None]:
    """Requests are decided by the rules, and `app` answers those that would be forwarded to a gray version.

    It gets them as the gray version would: with the path rewritten and the headers changed. No shadow gets a copy. An
    ASGI app has a state of its own, which is empty, because its lifespan is not run.

    Args:
        app: an ASGI app where `CanaryMiddleware` is under test, a WSGI app for `CanaryWSGIMiddleware`.

    Raises:
        ConfigError: the middlewares of the process are off.
    """
    if not is_enabled(os.environ):
        hint = "leave the variable out for this test; all_stable keeps the others from gray"
        raise ConfigError(f"nothing is gray where {ENABLED} is 0", hint=hint)
    with _in_force(_Override(app)):
        yield


@contextmanager
def _in_force(override: _Override) -> Iterator[None]:
    global _overrides
    with _changing:
        if not _overrides:
            _replace_originals()
        _overrides = (*_overrides, override)
    try:
        yield
    finally:
        with _changing:
            _overrides = tuple(each for each in _overrides if each is not override)
            if not _overrides:
                _restore_originals()


def _replace_originals() -> None:
    for (owner, name, _), function in zip(_ORIGINALS, _REPLACEMENTS, strict=True):
        setattr(owner, name, function)


def _restore_originals() -> None:
    for owner, name, value in _ORIGINALS:
        setattr(owner, name, value)


def _decide(table: RouteTable, head: RequestHead, roll: float, *rest: Any) -> Decision | None:
    """`decide` under the last override. A request may have begun before the last one ended; it is decided as usual."""
    last = _overrides[-1] if _overrides else None
    _decided_by.set(last)
    if last is None:
        return decide(table, head, roll, *rest)
    decision = decide(table, head, roll, *rest) if last.gray_app is not None else stable_decision(table, head, roll)
    if decision is None or decision.shadow is None:
        return decision
    return replace(decision, shadow=None)


def stable_decision(table: RouteTable, head: RequestHead, roll: float) -> Decision | None:
    """The decision of the rules without their gray versions.

    A draw that is stable stays. One that is gray goes to the stable Mapping of the group that has the largest share; in
    a group without one, to the groups behind it.
    """
    leftover: Decision | None = None
    for group in table.candidates(head):
        if not all(matches(head) for matches in group.checks):
            continue
        if group.governed is not None:
            decision = group.governed.stable_decision(head, roll)
            if decision is not None:
                return decision
            continue
        drawn = group.pick(head, roll)
        if drawn is not None and drawn.variant == "stable":
            return drawn
        widths = {decision: width for width, decision in group.relative_weights(head)}
        members = (each for _, each in group.shares if each.mapping.accepts_path(head.path))
        stable = max(
            (each for each in members if each.variant == "stable"), key=lambda each: widths.get(each, 0), default=None
        )
        if drawn is not None and stable is not None:
            return stable
        leftover = leftover or stable
    # What the weights of all groups leave, the app takes behind a middleware. The proxy has none.
    return None if table.middleware else leftover


def _app_for(
    original: Callable[[Any, Decision], Any], arguments: int, expected: str, wrap: Callable[[Any], Any]
) -> Callable[[Any, Decision], Any]:
    """The replacement of `Upstreams.app` or `SyncUpstreams.app`.

    Args:
        arguments: how many an app of this kind is called with.
        expected: what it is called, for the error.
        wrap: makes of it what stands for a service.
    """

    def app(self: Any, decision: Decision) -> Any:
        last = _decided_by.get()
        if last is None or last.gray_app is None or decision.variant != "gray":
            return original(self, decision)
        if not _takes(last.gray_app, arguments):
            raise TypeError(f"gray_answered_by: {last.gray_app!r} cannot be called as {expected}")
        return wrap(last.gray_app)

    return app


def _service_app(app: Any) -> ServiceApp:
    return ServiceApp("gray_answered_by", app)


def _same(app: Any) -> Any:
    return app


def _takes(app: Any, arguments: int) -> bool:
    try:
        inspect.signature(app).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # There is no signature, as for some callables in C.
        return True
    return True


_ORIGINALS = (
    _Original(MiddlewareBase, "decide", vars(MiddlewareBase)["decide"]),
    _Original(Upstreams, "app", Upstreams.app),
    _Original(SyncUpstreams, "app", SyncUpstreams.app),
)
_REPLACEMENTS: tuple[Any, ...] = (
    staticmethod(_decide),
    _app_for(Upstreams.app, 3, "an ASGI app, which CanaryMiddleware needs: app(scope, receive, send)", _service_app),
    _app_for(SyncUpstreams.app, 2, "a WSGI app, which CanaryWSGIMiddleware needs: app(environ, start_response)", _same),
)
