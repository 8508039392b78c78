"""One event in one state, as the engine answers it. Only the release around it is made up, and no answer is here."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from canary_mw.exceptions import CommandRefused, ConfigError
from canary_mw.rollout.batch.staging import (
    ALL_PHASES,
    BAD,
    CAUSES,
    CLEAN,
    DAY,
    FULL,
    LAST,
    LITTLE,
    NO_TRAFFIC,
    PRESENT,
    WRONG_SPLIT,
    in_phase,
    plan_of,
    release,
    released,
    with_analysis,
    with_stage,
)
from canary_mw.rollout.batch.values import Fields
from canary_mw.rollout.commands import COMMANDS, Command, CommandName, Who, command
from canary_mw.rollout.engine import Now, tick
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.outcome import Outcome
from canary_mw.rollout.state import ReleaseState, from_json, to_json
from canary_mw.rules.plan import HOOK_TYPES, HookType
from canary_mw.rules.release import GrayRelease

_OK, _REFUSED = 200, 409
_LOWER, _HIGHER = 2.0, 60.0
_GATE = re.compile(r"gate:(?P<hook>[a-z-]+) (?P<answer>2xx|\d{3}|no answer)")
_HELD = re.compile(r"(?P<event>.+) \(hold by (?P<cause>\w+)\)")
_CONTROLS = Now(controller=True)
# The pause of a step, and the bake, are over.
_OVER = Now(controller=True, elapsed=DAY / 100)


class _Question(NamedTuple):
    """An event, and what held the release before it if anything did."""

    state: str
    event: str
    cause: str


class _Answer(NamedTuple):
    """What followed.

    Attributes:
        before: the state before the event.
        document: the one in force after it.
    """

    before: ReleaseState
    document: GrayRelease
    outcome: Outcome
    http: int = _OK


def transition(fields: Fields) -> dict[str, Any]:
    """The state after an event, its weight in words and as a number, and the HTTP status of a command."""
    event = fields.text("event")
    held = _HELD.fullmatch(event)
    if held is not None and held["cause"] not in CAUSES:
        raise ConfigError(f"{held['cause']!r:.40} holds nothing", hint=f"use one of {', '.join(CAUSES)}")
    question = _Question(
        fields.choice("state", *ALL_PHASES),
        held["event"] if held is not None else event,
        held["cause"] if held is not None else "timeout",
    )
    answer = _answered(question)
    state, weights = answer.outcome.state, answer.outcome.weights
    return {
        "to": "(gone)" if state is None else state.phase,
        "weight": _weight_in_words(question.event, answer),
        "http": answer.http,
        "percent": None if weights is None else sum(weights.values()),
        "message": " ".join(each.text for each in answer.outcome.messages),
    }


def _answered(question: _Question) -> _Answer:
    name, _, argument = question.event.partition(" ")
    if name in COMMANDS or question.event == "get":
        return _told(question, name, argument)
    gate = _GATE.fullmatch(question.event)
    if gate is not None and gate["hook"] in HOOK_TYPES:
        return _gate(question, HOOK_TYPES[HOOK_TYPES.index(gate["hook"])], gate["answer"])
    happen = _EVENTS.get(question.event)
    if happen is None:
        known = ", ".join(("get", *COMMANDS, *_EVENTS, "gate:HOOK 2xx"))
        raise ConfigError(f"event is {question.event!r:.80}", hint=f"use one of {known}")
    return happen(question)


def _told(question: _Question, name: str, argument: str) -> _Answer:
    document = release()
    before = in_phase(document, question.state, question.cause)
    unchanged = Outcome(state=before, weights=before.weights)
    if name == "get":
        return _Answer(before, document, unchanged)
    wanted = Command(
        name=_command_name(name), weight=_weight(name, argument, before), full=(name, argument) == ("promote", "--full")
    )
    try:
        return _Answer(before, document, command(document, before, wanted, Who("somebody")))
    except CommandRefused:
        return _Answer(before, document, unchanged, _REFUSED)


def _command_name(name: str) -> CommandName:
    return next(each for each in COMMANDS if each == name)


def _weight(name: str, argument: str, before: ReleaseState) -> float | None:
    if name != "set-weight":
        return None
    if argument in ("lower", "higher"):
        return min(_LOWER, before.weight) if argument == "lower" else _HIGHER if before.weight < _HIGHER else 100.0
    try:
        return float(argument)
    except ValueError as exc:
        raise ConfigError(f"set-weight {argument!r:.40} is no percent", hint="write set-weight 25") from exc


def _gate(question: _Question, hook: HookType, said: str) -> _Answer:
    """A hook answers when all but it is ready."""
    document = release(hooks=("confirm-rollout", hook))
    before = in_phase(document, question.state, question.cause, step=LAST if hook == "confirm-promotion" else PRESENT)
    yes, answered = said.startswith("2"), said != "no answer"
    demand = "the hook rollback says so" if hook == "rollback" and yes else ""
    now = replace(_OVER, gates={hook: answered if hook == "rollback" else yes}, demand=demand)
    return _Answer(before, document, tick(document, before, released(CLEAN, before), now))


def _looked(
    question: _Question,
    evidence: ReleaseEvidence = NO_TRAFFIC,
    now: Now = _CONTROLS,
    *,
    document: GrayRelease | None = None,
    changed: Callable[[GrayRelease, ReleaseState], GrayRelease] | None = None,
    step: int = PRESENT,
) -> _Answer:
    """A tick with this evidence, after the document was changed."""
    document = document or release()
    before = in_phase(document, question.state, question.cause, step=step)
    after = changed(document, before) if changed is not None else document
    return _Answer(before, after, tick(after, before, released(evidence, before), now))


def _removed(question: _Question) -> _Answer:
    document = release()
    before = in_phase(document, question.state, question.cause)
    return _Answer(before, document, tick(None, before, None, _CONTROLS))


def _restarted(question: _Question, now: Now) -> _Answer:
    """A new process: what the old one knew is gone, but for a latch, which lies in a file of its own."""
    document = release()
    before = in_phase(document, question.state, question.cause)
    stored = from_json(to_json(before))
    known = stored if stored.latched or now.store == "answered" else None
    return _Answer(before, document, tick(document, known, released(NO_TRAFFIC, before), now))


def _after_changed(document: GrayRelease, state: ReleaseState) -> GrayRelease:
    """The analysis, and the step after the present one where there is one."""
    after = state.step + 1
    last = state.baking or after >= len(plan_of(document).stages)
    return with_analysis(document if last else with_stage(document, after, pause=77.0), minimum_keys=30)


def _before_changed(document: GrayRelease, _: ReleaseState) -> GrayRelease:
    return with_stage(document, 0, pause=78.0)


def _subject_changed(document: GrayRelease, _: ReleaseState) -> GrayRelease:
    return replace(document, revision="another")


def _disabled(document: GrayRelease, _: ReleaseState) -> GrayRelease:
    return replace(document, enabled=False)


def _timeout(on_timeout: str) -> Callable[[_Question], _Answer]:
    return lambda question: _looked(
        question,
        LITTLE if on_timeout == "advance" else NO_TRAFFIC,
        now=replace(_CONTROLS, elapsed=DAY),
        document=with_analysis(release(), on_timeout=on_timeout),
    )


_EVENTS: dict[str, Callable[[_Question], _Answer]] = {
    "controller_lost": lambda question: _looked(question, CLEAN, replace(_OVER, controller=False)),
    "document:plan_changed_after_current_step": lambda question: _looked(question, changed=_after_changed),
    "document:plan_changed_before_current_step": lambda question: _looked(question, changed=_before_changed),
    "document:subject_changed": lambda question: _looked(question, changed=_subject_changed),
    "document:disabled": lambda question: _looked(question, changed=_disabled),
    "document:removed": _removed,
    "process restarted": lambda question: _restarted(question, _CONTROLS),
    "process restarted, store away": lambda question: _restarted(question, replace(_CONTROLS, store="away")),
    "step: pause {}": lambda question: _looked(
        # A timeout is only looked at where no human is waited for.
        question._replace(cause="evidence"),
        now=_OVER,
        document=with_stage(release(), PRESENT, until_promoted=True),
    ),
    "timeout, on_timeout hold": _timeout("hold"),
    "timeout, on_timeout abort": _timeout("abort"),
    "timeout, on_timeout advance": _timeout("advance"),
    "verdict:roll_back": lambda question: _looked(question, BAD),
    "verdict:roll_back, mode advise": lambda question: _looked(
        question, BAD, document=with_analysis(release(), mode="advise")
    ),
    "verdict:roll_back, on_failure hold": lambda question: _looked(question, BAD, document=release("hold")),
    "verdict:hold": lambda question: _looked(question, WRONG_SPLIT),
    "verdict:wait": lambda question: _looked(question, now=_OVER),
    "verdict:step_up": lambda question: _looked(question, CLEAN),
    "verdict:step_up and duration over": lambda question: _looked(question, CLEAN, _OVER),
    "verdict:step_up at last step": lambda question: _looked(question, CLEAN, _OVER, step=LAST),
}


def _weight_in_words(event: str, answer: _Answer) -> str:
    before, weights = answer.before, answer.outcome.weights
    if weights is None:
        return "Mappings' own"
    percent, same = sum(weights.values()), weights == before.weights
    under_way = not before.latched and before.phase != "Completed"
    if event == "controller_lost" and percent <= before.weight:
        return "same, never higher"
    if same and (event == "get" or (under_way and event.startswith(("document:plan", "retry")))):
        return "same"
    if event.startswith("set-weight") and answer.http == _OK:
        return "given"
    return _NAMES.get(percent) or _step_in_words(before, percent, same=same)


_NAMES = {0.0: "0", 100.0: "100", FULL: "100 less holdback"}


def _step_in_words(before: ReleaseState, percent: float, *, same: bool) -> str:
    if same:
        return "same"
    if percent < before.weight:
        return "lower"
    return "first step" if before.weight == 0 else "next step"
