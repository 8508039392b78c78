"""The sample of recent requests, and the last reloads, as the texts that figures keep."""

import json
import os
from time import time
from urllib.parse import unquote_to_bytes

from canary_mw.forwarding.fallback import SafetyNet
from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Reloaded
from canary_mw.observability.figures.targets import labels_of
from canary_mw.observability.figures.values import RecentRequest
from canary_mw.observability.figures.writer import MAX_RELOAD, FiguresWriter
from canary_mw.routing.decided import Decision

# Seconds between two requests of the sample, and between two that failed.
_INTERVAL = 1 / 20
_FAILED_INTERVAL = 1 / 50
_MAX_PATH, _MAX_TEXT = 120, 60
_MAX_NAMES, _MAX_LINES, _MAX_LINE, _MAX_ERROR = 20, 20, 120, 300


class RecentSample:
    """Takes requests into the sample, a bounded number each second.

    Attributes:
        due, failed_due: the `perf_counter` times from which the next request is taken, and the next one that failed.
    """

    def __init__(self, figures: FiguresWriter) -> None:
        self.due = self.failed_due = 0.0
        self._figures = figures

    def take(
        self,
        decision: Decision | None,
        head: RequestHead,
        status: int | None,
        seconds: float,
        first_byte: float | None,
        net: SafetyNet | None,
        now: float,
        *,
        failed: bool,
    ) -> None:
        """Take a request; the arguments are those of `RecentRequest`.

        Args:
            now: of `perf_counter`.
        """
        self.due = now + _INTERVAL
        self.failed_due = now + _FAILED_INTERVAL
        labels = labels_of(decision)
        record = RecentRequest(
            round(time(), 3),
            head.method,
            head.scheme,
            _text(head.header(b"host")),
            (head.mount.sent + head.path).decode("latin-1")[:_MAX_PATH],
            shown_query(head.query, decision)[:_MAX_PATH],
            (head.client or "")[:_MAX_TEXT],
            _text(head.header(b"x-request-id")),
            labels.row.release[:_MAX_TEXT],
            labels.row.mapping[:_MAX_TEXT],
            labels.row.service[:_MAX_TEXT],
            labels.row.variant,
            labels.reason,
            status,
            round(seconds, 6),
            None if first_byte is None else round(first_byte, 6),
            (net.fallback if net is not None else None) or "",
            failed,
            os.getpid(),
        )
        self._figures.text("recent", json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode())


def reload_text(record: Reloaded, now: float) -> bytes:
    """A `ReloadRecord` as it is kept; what does not fit is left out."""
    names = [record.added, record.removed, record.changed]
    error = "" if record.error is None else str(record.error)[:_MAX_ERROR]
    for lines, kept in ((_MAX_LINES, _MAX_NAMES), (3, 3), (0, 0)):
        values = [
            round(now, 3),
            os.getpid(),
            record.generation,
            record.content,
            record.mappings,
            *([name[:_MAX_TEXT] for name in each[:kept]] for each in names),
            [len(each) for each in names],
            [line[:_MAX_LINE] for line in record.lines[:lines]],
            error,
        ]
        text = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= MAX_RELOAD:
            break
    return text


def shown_query(query: bytes, decision: Decision | None) -> str:
    """A query without its "?", and without the values that the Mapping of the request does not look at."""
    conditions = () if decision is None else decision.mapping.query
    looked_at = {each.name.encode() for each in conditions}
    parts = []
    for part in query[1:].split(b"&"):
        name, equals, value = part.partition(b"=")
        parts.append(name + equals + (value if unquote_to_bytes(name) in looked_at else b""))
    return b"&".join(parts).decode("latin-1")


def _text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1")[:_MAX_TEXT]
