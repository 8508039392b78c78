"""How far a release is: the one value that all processes share, and its JSON."""

import json
from collections.abc import Mapping as Dict
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple, get_args

from canary_mw.exceptions import NewerFormat, StateError

Phase = Literal["Manual", "Pending", "Progressing", "Paused", "Held", "Baking", "Completed", "RolledBack", "Aborted"]
HeldBy = Literal["", "timeout", "evidence", "sample_ratio", "plan", "metric", "store"]
Status = Literal["Progressing", "Paused", "Degraded", "Healthy"]
PHASES: tuple[Phase, ...] = get_args(Phase)
# Only `retry`, or something else that is released, leads out of them.
LATCHED: tuple[Phase, ...] = ("RolledBack", "Aborted")
FORMAT = 1
HISTORY = 50
_HELD_BY: tuple[HeldBy, ...] = get_args(HeldBy)
_STATUS: Dict[Phase, Status] = {
    "Manual": "Healthy",
    "Pending": "Progressing",
    "Progressing": "Progressing",
    "Paused": "Paused",
    "Held": "Paused",
    "Baking": "Progressing",
    "Completed": "Healthy",
    "RolledBack": "Degraded",
    "Aborted": "Degraded",
}


class Change(NamedTuple):
    """Something that happened to a release.

    Attributes:
        at: seconds since 1970, to be shown only.
        before: the phase before, "" for the first change.
        after: the phase after.
        step: index of the stage.
        weights: percent of each gray variant after it.
        who: who gave the command, "" where nobody did.
        address: of the client that gave it.
    """

    at: float
    before: str
    after: Phase
    step: int
    weights: Dict[str, float]
    reason: str
    who: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseState:
    """The state of a release.

    Attributes:
        attempt: from 1. `retry`, and another subject, begin the next one, with new evidence and a new budget.
        step: index of the stage that is in force, or that comes first where the weight is less than its own.
        visit: counts the stays at a weight within an attempt, from 0; it never falls. Evidence "of this step" is that
            of this number, so that a step that comes a second time starts without evidence.
        weights: percent of each gray variant that is in force.
        elapsed: seconds of this step. They are counted, not dated, and stand still in Paused.
        baked: seconds in Baking.
        baking: whether all steps are done, also while it is paused or held.
        resumed: whether a human has ended the `pause: {}` of this step.
        overruled: what held the release and was overruled by a human in this step.
        advised: what was advised last in this step, so that it is said once.
        reason: why it is in this phase, in words.
        held_by: what holds it, "" unless it is Held.
        objection: the metric that holds it, or "sample_ratio"; "" unless one of these does.
        subject: what is released, see `subject_of`.
        revision: the same as the document says it.
        past: the subjects of attempts before, the oldest first.
        plan: digest of the stages up to the present one, see `plan_digest`.
        alpha: the smallest one of this attempt; it may only get smaller.
        limits: where several pods share the state, what all of them judge answers and values by, by the name of the
            measure: found once in an attempt, of the first ones of all pods.
        since: when this phase began, in seconds since 1970; to be shown only.
        history: the oldest first.
    """

    name: str
    attempt: int = 1
    phase: Phase = "Pending"
    step: int = 0
    visit: int = 0
    weights: Dict[str, float] = field(default_factory=dict)
    elapsed: float = 0.0
    baked: float = 0.0
    baking: bool = False
    resumed: bool = False
    overruled: tuple[str, ...] = ()
    advised: str = ""
    reason: str = ""
    held_by: HeldBy = ""
    objection: str = ""
    subject: str = ""
    revision: str | None = None
    past: tuple[str, ...] = ()
    plan: str = ""
    alpha: float = 1.0
    limits: Dict[str, float] = field(default_factory=dict)
    since: float = 0.0
    history: tuple[Change, ...] = ()

    @property
    def latched(self) -> bool:
        """Whether everybody is on stable until `retry` or another subject; only a choice by name reaches gray."""
        return self.phase in LATCHED

    @property
    def weight(self) -> float:
        """The percent of all gray variants together."""
        return sum(self.weights.values())

    @property
    def status(self) -> Status:
        """The phase in the words of Argo Rollouts."""
        return _STATUS[self.phase]

    def with_change(self, change: Change) -> "ReleaseState":
        """The same with one more change; the oldest ones are forgotten."""
        return replace(self, history=(*self.history, change)[-HISTORY:])


def to_json(state: ReleaseState) -> str:
    """The state as JSON, with the number of its format."""
    values = asdict(state)
    values["history"] = [each._asdict() for each in state.history]
    return json.dumps({"format": FORMAT, **values}, sort_keys=True)


def from_json(text: str | bytes) -> ReleaseState:
    """The state that was written by this version or the one before; what that did not write gets its default.

    Raises:
        NewerFormat: a newer version has written it.
        StateError: it cannot be read.
    """
    try:
        values = json.loads(text)
        number = _count(values["format"])
        if number > FORMAT:
            raise NewerFormat(f"the state has format {number}, and this version knows {FORMAT}: nothing is raised")
        return _state(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise StateError(f"the state cannot be read: {exc!r:.200}") from exc


def _state(values: Dict[str, Any]) -> ReleaseState:
    known = {each.name: _checked(each.name, values[each.name]) for each in fields(ReleaseState) if each.name in values}
    return ReleaseState(**known)


def _checked(name: str, value: Any) -> Any:
    """A value of the right type and range; raises ValueError for another."""
    read = _READERS.get(name)
    if read is not None:
        return read(value)
    if type(value) is not _TYPES[name]:
        raise ValueError(f"{name} is {value!r:.60}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e15:
        raise ValueError(f"{value!r:.60} is no number from 0 on")
    return float(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r:.60} is no whole number from 0 on")
    return value


def _weights(value: Any) -> dict[str, float]:
    weights = {name: _number(percent) for name, percent in value.items()}
    # What is left over by the rounding of floats is no reason to refuse a state.
    if sum(weights.values()) > 100.0001:
        raise ValueError(f"the weights {weights!r:.100} are more than 100")
    return weights


def _limits(value: Any) -> dict[str, float]:
    return {str(name): _number(limit) for name, limit in value.items()}


def _phase(value: Any) -> Phase:
    if value not in PHASES:
        raise ValueError(f"the phase is {value!r:.60}")
    return PHASES[PHASES.index(value)]


def _held_by(value: Any) -> HeldBy:
    if value not in _HELD_BY:
        raise ValueError(f"held_by is {value!r:.60}")
    return _HELD_BY[_HELD_BY.index(value)]


def _history(value: Any) -> tuple[Change, ...]:
    return tuple(_change(Change(**each)) for each in value)[-HISTORY:]


def _change(value: Change) -> Change:
    texts = (value.before, value.reason, value.who, value.address)
    if not all(isinstance(each, str) for each in texts):
        raise ValueError(f"the history holds {texts!r:.100}")
    at, step = _number(value.at), _count(value.step)
    return value._replace(at=at, after=_phase(value.after), step=step, weights=_weights(value.weights))


def _revision(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the revision is {value!r:.60}")
    return value


_TYPES: Dict[str, type] = {
    "name": str,
    "baking": bool,
    "resumed": bool,
    "advised": str,
    "reason": str,
    "objection": str,
    "subject": str,
    "plan": str,
}
_READERS: Dict[str, Any] = {
    "attempt": _count,
    "phase": _phase,
    "step": _count,
    "visit": _count,
    "weights": _weights,
    "elapsed": _number,
    "baked": _number,
    "past": lambda value: tuple(str(each) for each in value),
    "overruled": lambda value: tuple(str(each) for each in value),
    "held_by": _held_by,
    "revision": _revision,
    "alpha": _number,
    "limits": _limits,
    "since": _number,
    "history": _history,
}
