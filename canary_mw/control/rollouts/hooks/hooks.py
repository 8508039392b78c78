"""Hooks of releases: whom a step waits for, who takes a release back, and who is told what happened (Flagger's kinds).

Nothing here waits. A hook that is asked is asked in a thread of its own, each 5 seconds, and its last answer counts
for the attempt and step that it was asked about. Only an answer of 200 to 299 opens a gate, or takes a release back.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Mapping as Dict
from time import monotonic, time
from typing import NamedTuple

from canary_mw.control.rollouts.hooks.deliveries import PAUSES, Deliveries
from canary_mw.control.rollouts.hooks.payload import event, question
from canary_mw.control.rollouts.hooks.requests import HookClient, NoAnswer
from canary_mw.forking import start_thread
from canary_mw.host import HostLogger
from canary_mw.locks import new_lock
from canary_mw.rollout.engine import hooks_asked
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import Phase, ReleaseState
from canary_mw.rollout.verdict import Look
from canary_mw.rules.plan import Hook
from canary_mw.rules.release import GrayRelease

logger = HostLogger(logging.getLogger("canary_mw.rollouts"))

# Seconds from one question to the next.
INTERVAL = 5.0
_ENDS: frozenset[Phase] = frozenset(("Completed", "RolledBack", "Aborted"))


class Gates(NamedTuple):
    """What hooks say about a release.

    Attributes:
        open: by the kinds of hooks that are asked now: whether all hooks of the kind agree. A rollback hook opens its
            gate by any answer: only where it gives none, nothing is raised.
        rollback: why a rollback hook takes the release back; "" if none does.
    """

    open: Dict[str, bool]
    rollback: str = ""


NO_GATES = Gates({})


class _Question(NamedTuple):
    """What a hook is asked about: an answer counts for nothing else."""

    release: str
    attempt: int
    step: int
    visit: int
    hook: Hook


class _Answer(NamedTuple):
    """The last answer to a question.

    Attributes:
        status: None where there was no answer.
        text: in words.
        asked: when the question was put, monotonic.
    """

    status: int | None
    text: str
    asked: float

    @property
    def agrees(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Hooks:
    """Asks and tells the hooks of all releases of a process.

    Args:
        hosts: see `HookClient`.
        pauses: seconds before each further try to tell something.
        interval: seconds from one question to the next.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        hosts: Collection[str] = (),
        *,
        pauses: Sequence[float] = PAUSES,
        interval: float = INTERVAL,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._client = HookClient(hosts)
        self._deliveries = Deliveries(pauses)
        self._interval = interval
        self._clock = clock
        self._lock = new_lock()
        self._answers: dict[_Question, _Answer] = {}
        self._under_way: set[_Question] = set()

    def gates(self, document: GrayRelease, state: ReleaseState) -> Gates:
        """What the hooks say about a release now. Asks those whose turn it is, and waits for none."""
        plan = document.plan
        if plan is None or not plan.hooks or not document.enabled:
            return NO_GATES
        kinds = hooks_asked(plan, state)
        asked = [each for each in plan.hooks if each.type in kinds]
        questions = [_Question(document.name, state.attempt, state.step, state.visit, each) for each in asked]
        self._forget(document.name, questions)
        for each in questions:
            self._ask(each, document, state)
        with self._lock:
            answers = [(each.hook, self._answers.get(each)) for each in questions]
        return _gates(answers)

    def changed(
        self,
        document: GrayRelease,
        state: ReleaseState,
        message: Message,
        look: Look | None = None,
    ) -> None:
        """Tell the hooks of a transition that this process has made. Returns at once.

        Args:
            look: the last one at the evidence.
        """
        for hook in document.plan.hooks if document.plan is not None else ():
            if hook.type == "event" or (hook.type == "post-rollout" and message.after in _ENDS):
                self._tell(hook, document.name, event(hook, document, state, message, time(), look))

    def close(self) -> None:
        """Try nothing a second time of what is under way."""
        self._deliveries.stop()

    def _tell(self, hook: Hook, release: str, body: bytes) -> None:
        def attempt() -> str:
            answer = self._post(hook, body)
            return "" if answer.agrees else answer.text

        def given_up(reason: str) -> None:
            if not hook.muted:
                logger.warning("release %s: the %s was not told: %s", release, _called(hook), reason)

        self._deliveries.send(f"{release} {hook.type} {hook.url}", attempt, given_up)

    def _ask(self, asked: _Question, document: GrayRelease, state: ReleaseState) -> None:
        """Put a question where it is time to."""
        with self._lock:
            known = self._answers.get(asked)
            if asked in self._under_way or (known is not None and self._clock() - known.asked < self._interval):
                return
            self._under_way.add(asked)
        body = question(asked.hook, document, state)
        try:
            start_thread(lambda: self._put(asked, body), "canary-mw-hook")
        except RuntimeError as exc:
            self._keep(asked, _Answer(None, f"no thread can be started: {exc}", self._clock()))

    def _put(self, asked: _Question, body: bytes) -> None:
        self._keep(asked, self._post(asked.hook, body))

    def _post(self, hook: Hook, body: bytes) -> _Answer:
        now = self._clock()
        try:
            status = self._client.post(hook.url, body, hook.timeout)
            return _Answer(status, f"it answers {status}", now)
        except NoAnswer as exc:
            return _Answer(None, str(exc), now)
        except Exception as exc:  # noqa: BLE001 - a hook whose thread ends without an answer would never be asked again
            return _Answer(None, f"it cannot be asked: {type(exc).__name__}", now)

    def _keep(self, asked: _Question, answer: _Answer) -> None:
        with self._lock:
            known = self._answers.get(asked)
            if asked in self._under_way:
                self._under_way.discard(asked)
                self._answers[asked] = answer
        changed = known is None or known.text != answer.text
        if changed and not answer.agrees and not asked.hook.muted and _matters(asked.hook, answer):
            logger.warning("release %s: the %s says no: %s", asked.release, _called(asked.hook), answer.text)

    def _forget(self, release: str, questions: Collection[_Question]) -> None:
        """Forget what was asked about an earlier step, or by hooks that the document has no more."""
        with self._lock:
            for each in [*self._answers, *self._under_way]:
                if each.release == release and each not in questions:
                    self._answers.pop(each, None)
                    self._under_way.discard(each)


def _gates(answers: Iterable[tuple[Hook, _Answer | None]]) -> Gates:
    opened: dict[str, bool] = {}
    demand = ""
    for hook, answer in answers:
        agrees = answer is not None and answer.agrees
        if hook.type == "rollback":
            demand = demand or (f"the {_called(hook)} demands it" if agrees else "")
            agrees = answer is not None and answer.status is not None
        opened[hook.type] = opened.get(hook.type, True) and agrees
    return Gates(opened, demand)


def _matters(hook: Hook, answer: _Answer) -> bool:
    """Whether an answer is one to be reported: a rollback hook says no as long as all is well."""
    return hook.type != "rollback" or answer.status is None


def _called(hook: Hook) -> str:
    return f"hook {hook.name or hook.type}"
