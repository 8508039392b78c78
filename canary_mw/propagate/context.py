"""The decision of the present request, for what an app records about it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import NamedTuple, Protocol
from weakref import WeakSet

from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts.layout import SCALE
from canary_mw.observability.figures.tallies import Tallies
from canary_mw.observability.figures.targets import recorded_for
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import STABLE

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")
# Names that are kept apart; more of them are counted together, so that a name made of data costs no memory.
_MOST_NAMES = 64
_OTHER = "(other)"
_MOST = 1e12


class KnowsClients(Protocol):
    """Knows the clients of requests."""

    def address_of(self, table: RouteTable, head: RequestHead) -> str | None:
        """The address of the client behind trusted proxies, None where it is not known."""


class Current(NamedTuple):
    """The request that is being served.

    Attributes:
        release, table: know its client; they refer to no middleware.
        keyless: names of the events that a request which is its own key has brought; each counts once.
    """

    decision: Decision | None
    tallies: Tallies
    head: RequestHead
    release: KnowsClients
    table: RouteTable
    keyless: list[str]


_new_current = partial(tuple.__new__, Current)
_current: ContextVar[Current | None] = ContextVar("canary_mw.current", default=None)
_names: set[str] = set()
# Those of middlewares that count: one of them hears of what belongs to no request.
_tallies: "WeakSet[Tallies]" = WeakSet()


def add_tallies(tallies: Tallies) -> None:
    """A middleware whose app may record."""
    _tallies.add(tallies)


def enter(
    decision: Decision | None, tallies: Tallies, head: RequestHead, release: KnowsClients, table: RouteTable
) -> None:
    """A request is being served, in this task or thread and in all that it starts; the arguments as in `Current`."""
    _current.set(_new_current((decision, tallies, head, release, table, [])))


def leave() -> None:
    """The request has ended."""
    _current.set(None)


def snapshot() -> Current | None:
    """The present request, for `resumed`."""
    return _current.get()


@contextmanager
def resumed(request: Current | None) -> Iterator[None]:
    """Serve a request also here, in another task or thread."""
    token = _current.set(request)
    try:
        yield
    finally:
        _current.reset(token)


def record(name: str, value: float = 1) -> None:
    """Record an event of the present request, as "checkout_failed", or a value, as that of a basket.

    It counts for the variant that was drawn for the request, beside the figures of the release. An event outside of a
    request, or of one whose variant was chosen and not drawn, is ignored and counted as such; so is one with a name or
    a value that cannot be. No error is raised: what is recorded must not disturb what the app does.

    Args:
        name: letters, digits, `_`, `.`, `:` and `-`, at most 64. It names a kind of event, and holds no data.
        value: from 0 to 10^12; kept to thousandths.
    """
    current = _current.get()
    if current is None:
        for tallies in _tallies:
            tallies("ignored_events", "no request")
            break
        return
    decision, tallies = current.decision, current.tallies
    assigned = recorded_for(decision)
    if assigned is None:
        tallies("ignored_events", "not drawn")
    elif not (_is_name(name) and _is_value(value)):
        tallies("ignored_events", "invalid")
    else:
        labels = assigned.name, assigned.variant or STABLE, _bounded(name)
        thousandths = round(value * SCALE)
        tallies("events", *labels)
        tallies("event_values", *labels, count=thousandths)
        if assigned.digest is not None or name not in current.keyless:
            current.keyless.append(name)
            client = current.release.address_of(current.table, current.head)
            tallies.record(assigned, name, client, thousandths)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _is_value(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= _MOST


def _bounded(name: str) -> str:
    if name not in _names:
        if len(_names) >= _MOST_NAMES:
            return _OTHER
        _names.add(name)
    return name
