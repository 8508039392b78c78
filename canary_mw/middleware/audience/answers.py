"""What the functions of an app have answered: what counts, who is told, and which are left alone for a while."""

import logging
from collections import deque
from collections.abc import Callable, MutableMapping
from time import monotonic
from typing import Any

from canary_mw.config.document import Diagnostic, on_one_line
from canary_mw.host import HostLogger
from canary_mw.middleware.audience.registry import Registered, predicates, user_function
from canary_mw.observability.figures.tallies import Tally
from canary_mw.routing.person import FAILED, Question
from canary_mw.routing.releases.questions import predicates_of
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import GrayRelease

logger = HostLogger(logging.getLogger("canary_mw.audience"))
_MINUTE = 60.0
_LATE_ANSWERS = 3
_NO_SUCH = "there is no predicate {name}: register it with @canary_mw.predicate({name!r}), or correct the rules"
# Results, as metrics have them.
_NAMES: dict[bool | None, str] = {True: "true", False: "false"}


class Answers:
    """Judges what functions have answered, for one middleware.

    Args:
        tally: hears of every answer.
        clock: seconds.
    """

    def __init__(self, tally: Tally, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._tally = tally
        self._said: dict[tuple[str | None, str], float] = {}
        self._late: dict[str, deque[float]] = {}
        self._closed: dict[str, float] = {}

    def find(self, question: Question, place: MutableMapping[str, Any]) -> Registered | None:
        """The function that answers a question, None where nobody does now.

        Args:
            place: the scope or environ.
        """
        name = question.predicate
        found = user_function(place) if name is None else predicates.get(name)
        if found is None:
            self._failed(name, "unknown", _NO_SUCH.format(name=name))
        elif name is not None and self._closed.get(name, 0.0) > self.clock():
            self._count(name, "timeout")
            return None
        return found

    def answered(self, function: Registered, value: object, since: float) -> object:
        """What an answer means.

        Args:
            since: when the function was called.
        """
        if function.name is None:
            # However late: the request has waited already, and without the user it may get another variant.
            return value
        now = self.clock()
        if now - since > function.timeout:
            # Nothing could stop it.
            if not function.threaded:
                self._late_again(function.name, _of(function), now)
            return self.timed_out(function)
        if value is not None and not isinstance(value, bool):
            text = f"{_of(function)} has returned a {type(value).__name__}: only True and False are answers"
            self._failed(function.name, "error", text)
            return None
        self._count(function.name, "true" if value else "false")
        return bool(value)

    def raised(self, function: Registered, error: BaseException) -> object:
        """What it means that a function has raised an error."""
        text = f"{_of(function)} has failed: {_without_answer(function)}"
        self._failed(function.name, "error", text, error)
        return no_answer(function.name)

    def timed_out(self, function: Registered) -> object:
        """What it means that a function had no answer in time."""
        text = f"{_of(function)} had no answer after {function.timeout:g} seconds: {_without_answer(function)}"
        self._failed(function.name, "timeout", text)
        return no_answer(function.name)

    def warn_of_unknown(self, table: RouteTable) -> None:
        """Log which predicates of the releases are not registered in this process."""
        for release in table.releases.values():
            for each in sorted(predicates_of(release.document) - predicates.keys()):
                logger.warning("%s", _unknown(release.document, each))

    def _late_again(self, name: str, text: str, now: float) -> None:
        times = self._late.setdefault(name, deque(maxlen=_LATE_ANSWERS))
        times.append(now)
        if len(times) == _LATE_ANSWERS and now - times[0] < _MINUTE:
            self._closed[name] = now + _MINUTE
            hint = "make it faster or async, or write threaded=True"
            logger.error("%s was late three times in a minute: it is not called for a minute; %s", text, hint)

    def _failed(self, name: str | None, result: str, text: str, error: BaseException | None = None) -> None:
        """Count it, and log it once a minute."""
        self._count(name, result)
        now = self.clock()
        if now - self._said.get((name, result), -_MINUTE) >= _MINUTE:
            self._said[name, result] = now
            logger.error("%s", on_one_line(text), exc_info=error)

    def _count(self, name: str | None, result: str) -> None:
        if name is not None:
            self._tally("predicates", name, result)


def no_answer(name: str | None) -> object:
    """What a decision is told where a question has no answer."""
    return FAILED if name is None else None


def _unknown(release: GrayRelease, name: str) -> Diagnostic:
    return Diagnostic(
        severity="warning",
        code="predicate-unknown",
        message=f"GrayRelease {release.name}: there is no predicate {name} in this process: nobody is drawn by it",
        file=release.file,
        line=release.line,
        hint=f"register it with @canary_mw.predicate({name!r}), or correct the rules",
    )


def _of(function: Registered) -> str:
    place = getattr(function.function, "__qualname__", type(function.function).__qualname__)
    return f"the function of the user ({place})" if function.name is None else f"predicate {function.name} ({place})"


def _without_answer(function: Registered) -> str:
    return "nobody is known" if function.name is None else "nobody is drawn into gray by it"
