"""Queries about releases: each is asked in a thread of its own, again and again, and nobody waits for it.

They are asked by the process that raises the release, and their answers count for the attempt and the step that they
were asked about: with another step, or another process that raises, failures are counted from 0.
"""

import logging
from collections.abc import Collection
from time import monotonic
from typing import NamedTuple

from canary_mw.control.rollouts.hooks.requests import HookClient, NoAnswer
from canary_mw.control.rollouts.queries.prometheus import values
from canary_mw.forking import start_thread
from canary_mw.host import HostLogger
from canary_mw.locks import new_lock
from canary_mw.rollout.engine import queries_asked
from canary_mw.rollout.queries import Measurement, QueryStanding, measured, waiting_for
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.queries.query import Query, filled
from canary_mw.rules.release import GrayRelease

logger = HostLogger(logging.getLogger("canary_mw.rollouts"))

_THREAD = "canary-mw-query"


class _Question(NamedTuple):
    """What a query is asked about: an answer counts for nothing else."""

    release: str
    attempt: int
    visit: int
    query: Query


class _Answers(NamedTuple):
    """The answers to a question.

    Attributes:
        asked: when the last question was put, monotonic.
    """

    last: Measurement
    failures: int
    asked: float


class Queries:
    """Asks the queries of releases. Any thread may call it.

    Args:
        hosts: see `HookClient`.
    """

    def __init__(self, hosts: Collection[str] = ()) -> None:
        self._client = HookClient(hosts)
        self._lock = new_lock()
        self._answers: dict[_Question, _Answers] = {}
        self._under_way: dict[_Question, float] = {}

    def ask(self, document: GrayRelease, state: ReleaseState) -> tuple[QueryStanding, ...]:
        """How the queries of a step stand. Asks those whose turn it is, and waits for none."""
        plan = document.plan
        found = queries_asked(plan, state) if plan is not None and document.enabled else ()
        questions = [_Question(document.name, state.attempt, state.visit, each) for each in found]
        self._forget(document.name, questions)
        for each in questions:
            self._ask(each, document, state)
        with self._lock:
            return tuple(_standing(each, self._answers.get(each)) for each in questions)

    def _ask(self, asked: _Question, document: GrayRelease, state: ReleaseState) -> None:
        """Put a question where it is time to."""
        now = monotonic()
        with self._lock:
            known = self._answers.get(asked)
            if asked in self._under_way or (known is not None and now - known.asked < asked.query.interval):
                return
            self._under_way[asked] = now
        text = filled(asked.query.text, _values_of(document, state))
        try:
            start_thread(lambda: self._put(asked, text, now), _THREAD)
        except RuntimeError as exc:
            self._keep(asked, Measurement("unanswered", f"no thread can be started: {exc}"), now)

    def _put(self, asked: _Question, text: str, now: float) -> None:
        try:
            found = measured(asked.query, values(self._client, asked.query, text))
        except NoAnswer as exc:
            found = Measurement("unanswered", str(exc))
        except Exception as exc:  # noqa: BLE001 - a query whose thread ends without an answer would never be asked again
            found = Measurement("unanswered", f"it cannot be asked: {type(exc).__name__}")
        self._keep(asked, found, now)

    def _keep(self, asked: _Question, found: Measurement, now: float) -> None:
        with self._lock:
            # Another step may have begun meanwhile.
            if self._under_way.get(asked) != now:
                return
            del self._under_way[asked]
            known = self._answers.get(asked)
            failures = (known.failures if known is not None else 0) + (found.said == "failed")
            self._answers[asked] = _Answers(found, failures, now)
        text = waiting_for(QueryStanding(asked.query, found))
        if text and (known is None or known.last.said != found.said):
            logger.warning("release %s: %s", asked.release, text)

    def _forget(self, release: str, questions: Collection[_Question]) -> None:
        """Forget what was asked about an earlier step, or by queries that the document has no more."""
        with self._lock:
            for each in [*self._answers, *self._under_way]:
                if each.release == release and each not in questions:
                    self._answers.pop(each, None)
                    self._under_way.pop(each, None)


def _standing(asked: _Question, known: _Answers | None) -> QueryStanding:
    if known is None:
        return QueryStanding(asked.query)
    last = known.last
    # A process that was stopped has not asked meanwhile.
    if monotonic() - known.asked > 2 * asked.query.interval + asked.query.timeout:
        last = Measurement("unanswered", "the last answer is too old")
    return QueryStanding(asked.query, last, known.failures)


def _values_of(document: GrayRelease, state: ReleaseState) -> dict[str, str]:
    """What stands for the names in braces; see `rules.queries.query.NAMES`."""
    stages = document.plan.stages if document.plan is not None else ()
    return {
        "release": document.name,
        "namespace": document.namespace,
        "revision": document.revision or "",
        "attempt": str(state.attempt),
        "step": str(stages[state.step].item if state.step < len(stages) else 0),
        "weight": f"{round(state.weight, 6):g}",
    }
