"""The context of a trace in headers: B3 (openzipkin/b3-propagation) and W3C Trace Context."""

import re
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict
from typing import NamedTuple

from canary_mw.http.messages import RawHeaders
from canary_mw.rules.filters.traces import Mode

_ID = re.compile(r"[0-9a-f]{16}")
_TRACE_ID = re.compile(r"[0-9a-f]{16}(?:[0-9a-f]{16})?")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_DECISIONS = {b"1": True, b"0": False, b"d": True, b"true": True, b"false": False}
_NAMES: Dict[Mode, frozenset[bytes]] = {
    "B3": frozenset((b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags")),
    "TRACE_CONTEXT": frozenset((b"traceparent", b"tracestate")),
}


class TraceContext(NamedTuple):
    """Where in which trace a request is.

    Attributes:
        trace_id: 16 or 32 hexadecimal digits; "" where a client has sent a decision alone.
        span_id: 16 hexadecimal digits.
        parent_id: of the span around this one, None for none.
        sampled: whether spans are sent; None where nobody has decided.
        debug: it was asked for by hand (B3).
        single: it is written as one header `b3`.
        state: `tracestate`, as it came.
    """

    trace_id: str = ""
    span_id: str = ""
    parent_id: str | None = None
    sampled: bool | None = None
    debug: bool = False
    single: bool = False
    state: bytes = b""

    def child(self, span_id: str) -> "TraceContext":
        """The context of a span below this one."""
        return self._replace(span_id=span_id, parent_id=self.span_id)


def received(modes: Iterable[Mode], by_name: Dict[bytes, bytes]) -> TraceContext | None:
    """The context that a request has brought, the first one of some modes; what is not valid is passed over."""
    for mode in modes:
        found = _from_b3(by_name) if mode == "B3" else _from_traceparent(by_name)
        if found is not None:
            return found
    return None


def _from_b3(by_name: Dict[bytes, bytes]) -> TraceContext | None:
    single = by_name.get(b"b3")
    if single is not None and (found := _from_single(single.strip())) is not None:
        return found
    trace_id, span_id = _text(by_name.get(b"x-b3-traceid")), _text(by_name.get(b"x-b3-spanid"))
    debug = by_name.get(b"x-b3-flags") == b"1"
    sampled = True if debug else _DECISIONS.get(by_name.get(b"x-b3-sampled", b""))
    if _is_valid(trace_id, span_id):
        return TraceContext(trace_id, span_id, None, sampled, debug)
    return None if sampled is None else TraceContext(sampled=sampled, debug=debug)


def _from_single(value: bytes) -> TraceContext | None:
    parts = value.split(b"-")
    if len(parts) == 1:
        sampled = _DECISIONS.get(value)
        return None if sampled is None else TraceContext(sampled=sampled, debug=value == b"d", single=True)
    trace_id, span_id = _text(parts[0]), _text(parts[1])
    if not _is_valid(trace_id, span_id):
        return None
    word = parts[2] if len(parts) > 2 else b""
    return TraceContext(trace_id, span_id, None, _DECISIONS.get(word), word == b"d", single=True)


def _from_traceparent(by_name: Dict[bytes, bytes]) -> TraceContext | None:
    match = _TRACEPARENT.fullmatch(by_name.get(b"traceparent", b"").strip())
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    trace_id, span_id = _text(match[2]), _text(match[3])
    if not _is_valid(trace_id, span_id):
        return None
    sampled = bool(int(match[4], 16) & 1)
    return TraceContext(trace_id, span_id, None, sampled, state=by_name.get(b"tracestate", b""))


def _text(value: bytes | None) -> str:
    return "" if value is None else value.strip().decode("latin-1").lower()


def _is_valid(trace_id: str, span_id: str) -> bool:
    """Whether both are ids; of zeros alone they are none."""
    known = _TRACE_ID.fullmatch(trace_id) and _ID.fullmatch(span_id)
    return bool(known) and bool(trace_id.strip("0")) and bool(span_id.strip("0"))


def with_context(modes: Sequence[Mode], headers: RawHeaders, context: TraceContext) -> list[tuple[bytes, bytes]]:
    """Headers with a context in place of what they hold of these modes; other contexts stay as they are."""
    written = frozenset[bytes]().union(*(_NAMES[mode] for mode in modes))
    kept = [pair for pair in headers if pair[0] not in written]
    for mode in modes:
        kept += _b3(context) if mode == "B3" else _traceparent(context)
    return kept


def _b3(context: TraceContext) -> list[tuple[bytes, bytes]]:
    parent = (context.parent_id or "").encode()
    trace_id, span_id = context.trace_id.encode(), context.span_id.encode()
    if context.single:
        word = b"d" if context.debug else b"1" if context.sampled else b"0"
        return [(b"b3", b"-".join((trace_id, span_id, word, *((parent,) if parent else ()))))]
    found = [(b"x-b3-traceid", trace_id), (b"x-b3-spanid", span_id)]
    if parent:
        found.append((b"x-b3-parentspanid", parent))
    found.append((b"x-b3-flags", b"1") if context.debug else (b"x-b3-sampled", b"1" if context.sampled else b"0"))
    return found


def _traceparent(context: TraceContext) -> list[tuple[bytes, bytes]]:
    trace_id = context.trace_id.rjust(32, "0").encode()
    flags = b"01" if context.sampled else b"00"
    found = [(b"traceparent", b"00-%b-%b-%b" % (trace_id, context.span_id.encode(), flags))]
    return [*found, (b"tracestate", context.state)] if context.state else found
