"""What happened, as values for whoever watches: metrics, tracing, an access log."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, NamedTuple, Protocol

from .exceptions import ConfigError
from .messages import Diagnostic

logger = logging.getLogger("canary_mw.observers")
access_logger = logging.getLogger("canary_mw.access")


class Decided(NamedTuple):
    """A request has been matched; nothing was sent yet.

    Attributes:
        path: normalised path, without the query.
        mapping: name of the Mapping that was chosen, None when no Mapping matched.
        service: service text of that Mapping.
        variant: "stable" or "gray".
    """

    method: str
    path: str
    mapping: str | None = None
    service: str | None = None
    variant: str | None = None


class Finished(NamedTuple):
    """The last byte of an answer is out, or the exchange was given up; fields as in `Decided`.

    Attributes:
        status: what the client was told, None when it left before there was an answer.
        seconds: from the request head to the end of the answer.
        reason: why the answer is our own and not an upstream's, None for a relayed one.
    """

    method: str
    path: str
    status: int | None
    seconds: float
    mapping: str | None = None
    service: str | None = None
    variant: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """Other rules are in force, or it changed whether the newest ones are.

    Attributes:
        generation: number of the table in force; the same as before when only `error` changed.
        added, removed, changed: "name.namespace" of the Mappings that differ from the table before.
        diagnostics: all findings about the rules in force.
        error: why the newest state of the source is not wholly in force, or None.
    """

    generation: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    error: ConfigError | None = None


@dataclass(slots=True)
class DoorCounts:
    """What was kept out; shared by the protocol of a server and its app.

    Attributes:
        refused: requests that were malformed, too large, too slow, not allowed or in a loop, by status.
        stalled: connections that were ended because their client had stopped reading.
    """

    # The name under which the app hands them to the protocol, in the state of its lifespan.
    KEY: ClassVar[str] = "canary_mw.door"

    refused: dict[int, int] = field(default_factory=dict)
    stalled: int = 0

    def refuse(self, status: int) -> None:
        """One request more."""
        self.refused[status] = self.refused.get(status, 0) + 1


class Observer(Protocol):
    """Is told what happened; a subclass overrides what it wants to know.

    The first two are called on the path of a request and must not block; `reloaded` comes from the thread that reloads.
    """

    # Without a statement in them, type checkers would take these methods for abstract ones.

    def decided(self, record: Decided) -> None:
        """A request was matched."""
        return

    def finished(self, record: Finished) -> None:
        """An exchange ended."""
        return

    def reloaded(self, record: Reloaded) -> None:
        """Rules were replaced, or could not be."""
        return


_METHODS: dict[type, str] = {Decided: "decided", Finished: "finished", Reloaded: "reloaded"}
# Holds the observers themselves, so that an id is never that of a later object.
_failed: dict[int, Observer] = {}


def notify(observers: Sequence[Observer], record: Decided | Finished | Reloaded) -> None:
    """Hand `record` to every observer; what one raises is logged the first time and never reaches the caller."""
    for observer in observers:
        try:
            getattr(observer, _METHODS[type(record)])(record)
        except Exception:
            if id(observer) not in _failed:
                _failed[id(observer)] = observer
                logger.exception("%r failed on %r; later failures of this observer are not logged", observer, record)


class AccessLog(Observer):
    """One JSON object per request on the logger "canary_mw.access", at INFO.

    Keys: time (UTC, ISO 8601), method, path, status, seconds, mapping, service, variant, reason.
    """

    def finished(self, record: Finished) -> None:
        """Write the line."""
        if not access_logger.isEnabledFor(logging.INFO):
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        fields = {"time": now, **record._asdict(), "seconds": round(record.seconds, 6)}
        access_logger.info("%s", json.dumps(fields))
