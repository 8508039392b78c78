"""The events of `/api/v1/events`: a tick each second, and what changed since the last one."""

import json
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import NamedTuple, TypedDict

from canary_mw.admin.answers.frame import iso, workers_of
from canary_mw.admin.desk import Desk
from canary_mw.admin.models.releases import Release
from canary_mw.admin.releases.overview import overview_answer
from canary_mw.admin.streams import Messages, message
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures
from canary_mw.rollout.sentence import State

# Seconds between two ticks, and between two comments, which keep what lies between from ending the stream.
_TICK = 1.0
_COMMENT = 15.0


class Tick(TypedDict):
    """Each second.

    Attributes:
        age: seconds since the rules came into force; null without any.
        rps: requests a second in the last minute.
    """

    now: str
    age: float | None
    rps: float


class VerdictChange(TypedDict):
    """The state of a gray variant is another one."""

    release: str
    variant: str
    state: State
    label: str
    sentence: str


class Transition(TypedDict):
    """A release with steps took one, or is in another phase.

    Attributes:
        before: the phase before; empty for a new release.
        after: the phase after.
        item: number of the `setWeight` that is in force, 0 for none.
        weights: percent by gray variant.
        who: who gave the command; empty where nobody did.
    """

    release: str
    attempt: int
    at: str
    before: str
    after: str
    item: int
    weights: dict[str, float]
    reason: str
    who: str


class ReloadChange(TypedDict):
    """Other rules are in force, or what is wrong with them is another thing."""

    generation: int
    error: str | None


class WorkerChange(TypedDict):
    """Workers came or went.

    Attributes:
        pids: of those that run now.
    """

    workers: int
    pids: list[int]


class _State(NamedTuple):
    """What events are made of."""

    tick: Tick
    verdicts: dict[tuple[str, str], VerdictChange]
    transitions: dict[str, list[Transition]]
    reload: ReloadChange
    workers: WorkerChange


def events(desk: Desk) -> Messages:
    """The messages of one reader. The first ones tell what there is."""
    known: list[_State] = []
    numbers = _Numbers()

    async def due() -> tuple[Sequence[str], float]:
        state = await desk.ask(_state, "events")
        before = known.pop() if known else None
        known.append(state)
        return [*numbers.comment(), *(numbers.numbered(*each) for each in _changes(before, state))], _TICK

    return due


class _Numbers:
    """The numbers of the messages of one reader."""

    def __init__(self) -> None:
        self._number = 0
        self._commented = monotonic()

    def numbered(self, name: str, value: object) -> str:
        self._number += 1
        return message(json.dumps(value, separators=(",", ":")), name, self._number)

    def comment(self) -> Iterator[str]:
        if monotonic() - self._commented >= _COMMENT:
            self._commented = monotonic()
            yield ": still here\n\n"


def _state(subject: Subject, figures: Figures) -> _State:
    overview, store = overview_answer(subject, figures, "1m"), subject.store
    verdicts: dict[tuple[str, str], VerdictChange] = {
        (each["name"], variant): {
            "release": each["name"],
            "variant": variant,
            "state": verdict["state"],
            "label": verdict["label"],
            "sentence": verdict["sentence"],
        }
        for each in overview["releases"]
        for variant, verdict in each["verdicts"].items()
    }
    now = subject.clock()
    age = round(max(now - store.since, 0.0), 3) if store.since else None
    error = None if store.error is None else str(store.error)
    pids = sorted(each.pid for each in workers_of(subject, figures))
    return _State(
        {"now": iso(now), "age": age, "rps": overview["totals"]["rps"]},
        verdicts,
        {each["name"]: _transitions(each) for each in overview["releases"]},
        {"generation": store.generation, "error": error},
        {"workers": len(pids), "pids": pids},
    )


def _changes(before: _State | None, now: _State) -> Iterator[tuple[str, object]]:
    """The events since the last look."""
    if before is None or before.reload != now.reload:
        yield "reload", now.reload
    if before is None or before.workers != now.workers:
        yield "worker", now.workers
    for key, verdict in now.verdicts.items():
        known = before.verdicts.get(key) if before else None
        if known is None or known["state"] != verdict["state"]:
            yield "verdict", verdict
    for release, transitions in now.transitions.items():
        yield from (
            ("release", each) for each in _news(before.transitions.get(release, []) if before else [], transitions)
        )
    yield "tick", now.tick


def _transitions(release: Release) -> list[Transition]:
    """What happened to a release, the newest first."""
    rollout = release["rollout"]
    if rollout is None:
        return []
    name, attempt = release["name"], rollout["attempt"]
    return [
        {
            "release": name,
            "attempt": attempt,
            "at": each["at"],
            "before": each["before"],
            "after": each["after"],
            "item": each["item"],
            "weights": each["weights"],
            "reason": each["reason"],
            "who": each["who"],
        }
        for each in rollout["history"]
    ]


def _news(known: list[Transition], now: list[Transition]) -> list[Transition]:
    """What happened since, the oldest first; at the first look the last thing that happened."""
    if not known:
        return now[:1]
    place = next((at for at, each in enumerate(now) if _same(each, known[0])), len(now))
    return now[:place][::-1]


def _same(one: Transition, other: Transition) -> bool:
    # The number of the attempt is that of now.
    return {**one, "attempt": 0} == {**other, "attempt": 0}
