"""The lanes of the present request: what an app knows of them, and what its own requests say."""

from collections.abc import Iterable, Mapping
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Self

from canary_mw.http.headers import has_control
from canary_mw.http.lanes import (
    BAGGAGE,
    LANE_HEADER,
    MAX_LANE_BYTES,
    LaneHeaders,
    lane_list,
    lanes_in,
    lines_of,
    received_lanes,
    sent_value,
    with_lane,
    with_member,
    without_member,
)
from canary_mw.http.messages import RawHeaders
from canary_mw.propagate.hosts import told
from canary_mw.routing.decided import Decision
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import STABLE

_NO_HEADERS = LaneHeaders()


class Current(NamedTuple):
    """The request that is being served.

    Attributes:
        lane: what has been decided for it, here and by services before, as `svc=gray, search=stable`.
        decision: which Mapping takes it here, None for the app by itself, and outside of a request.
    """

    lane: str
    decision: Decision | None


class Carried:
    """The lanes of one request. As a context, they are those of what runs in it.

    Args:
        headers: of the request, without lanes that its peer may not send.
        table: the rules that it was decided by; None for what came another way.

    Attributes:
        decision: about the request.
    """

    __slots__ = ("_headers", "_lane", "_names", "_sent", "_token", "_variant", "decision")

    def __init__(self, headers: RawHeaders, decision: Decision | None = None, table: RouteTable | None = None) -> None:
        self.decision = decision
        self._headers = headers
        # Not the table: a connection or a task that was made in a request keeps what the request had.
        self._names = _NO_HEADERS if table is None else table.lane_headers
        assigned = None if decision is None else decision.release
        self._lane = None if decision is None or assigned is None else decision.lane
        self._variant = STABLE if assigned is None or assigned.variant is None else assigned.variant
        self._sent: tuple[tuple[str, str], ...] | None = None
        self._token: Token[Carried | None]

    def __enter__(self) -> Self:
        self._token = _carried.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _carried.reset(self._token)

    def as_stable(self, decision: Decision | None) -> "Carried":
        """The lanes for stable, which answers after gray has failed.

        Args:
            decision: that of stable.
        """
        other = Carried(self._headers, decision)
        other._lane, other._variant, other._names = self._lane, STABLE, self._names
        return other

    @property
    def lane(self) -> bytes:
        """The list of lanes."""
        own = self._lane
        header = LANE_HEADER if own is None or own.is_tag else own.header
        received = received_lanes(self._headers, header, baggage=self.has_baggage)
        if own is None:
            return lane_list(lanes_in(received).items())
        return with_lane(received, own.name, self._variant.encode())

    @property
    def sent(self) -> tuple[tuple[str, str], ...]:
        """The headers that the requests of the app get."""
        if self._sent is None:
            self._sent = tuple(self._rendered())
        return self._sent

    def _rendered(self) -> Iterable[tuple[str, str]]:
        own = self._lane
        values = {name: _line(lines_of(self._headers, name)) for name in told.headers | self._names}
        lane = self.lane
        if own is None or own.is_tag:
            values[LANE_HEADER] = lane
        if own is not None:
            received = values.get(own.header, b"")
            values[own.header] = (
                sent_value(own, received, self._variant.encode(), STABLE.encode()) if own.is_tag else lane
            )
        for name, value in sorted(values.items()):
            if value:
                yield name.decode(), value.decode("latin-1")

    @property
    def has_baggage(self) -> bool:
        """Whether a release also tells by `baggage`."""
        return self._names.baggage


_carried: ContextVar[Carried | None] = ContextVar("canary_mw.lanes", default=None)


def _line(value: bytes) -> bytes:
    """A value that is carried on as it came; empty for one that is no line of text: a queue may hold anything."""
    return value if len(value) <= MAX_LANE_BYTES and not has_control(value.decode("latin-1")) else b""


def carried() -> Carried | None:
    """The lanes of the present request."""
    return _carried.get()


def carry_on(lanes: Carried | None) -> Token[Carried | None]:
    """Make lanes those of what runs from now on; the token undoes it."""
    return _carried.set(lanes)


def end(token: Token[Carried | None]) -> None:
    """Undo `carry_on`."""
    _carried.reset(token)


def current() -> Current | None:
    """What is decided for the request that is being served; None outside of one, and without releases."""
    lanes = _carried.get()
    return None if lanes is None else Current(lanes.lane.decode("latin-1"), lanes.decision)


def lane(value: str | bytes | Mapping[str, Any] | None) -> Carried:
    """The lanes of what is done in a `with` block, as in a worker that takes messages from a queue.

    Args:
        value: what `header` gave where the message was written, or the text of its `x-canary-lane`; None for no lanes.
    """
    if isinstance(value, str | bytes):
        value = {LANE_HEADER.decode(): value}
    pairs = ((name, text) for name, text in (value or {}).items() if isinstance(text, str | bytes))
    return Carried([(_bytes(name).lower(), _bytes(text)) for name, text in pairs])


def header() -> dict[str, str]:
    """The headers of a message that belongs to the present request; empty without lanes."""
    lanes = _carried.get()
    return {} if lanes is None else dict(lanes.sent)


def headers_for(host: str, port: int, headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers that a request of the app to a host gets; empty for a host that is told nothing.

    Args:
        headers: those of the request so far.
    """
    lanes = _carried.get()
    if lanes is None or not told.may_tell(host, port):
        return {}
    found = dict(lanes.sent)
    if lanes.has_baggage and lanes.lane:
        found[BAGGAGE.decode()] = with_member(_baggage(headers), lanes.lane).decode("latin-1")
    return found


def _baggage(headers: Mapping[str, Any]) -> bytes:
    """The value of `baggage`; clients take names in any case, and values as bytes, too."""
    values = [value for name, value in headers.items() if _bytes(name).lower() == BAGGAGE]
    return without_member(b",".join(map(_bytes, values)))


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1", "replace")
