"""What follows from a tick or a command: the next state, the weights in force, and what is said of it."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Literal, NamedTuple

from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.verdict import Look, Verdict


class Message(NamedTuple):
    """Something to be logged, counted and sent: one for each transition, one for each advice.

    Attributes:
        kind: "transition", or "advice" where `mode: advise` keeps from acting.
        text: a sentence for people.
        release: its name.
        before: the phase before, "" where there was none.
        after: the phase after it.
        step: index of the stage.
        weights: percent of each gray variant after it.
        reason: why, in words.
        who: who gave the command, "" where nobody did.
    """

    kind: Literal["transition", "advice"]
    text: str
    release: str
    attempt: int
    before: str
    after: str
    step: int
    weights: Dict[str, float]
    reason: str
    who: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What follows.

    Attributes:
        state: the next state, which comes into force when it is stored; None where nothing is to be stored: the release
            is gone, has no steps, or is not known yet. What lowers does not wait for the store.
        weights: percent of each gray variant that is in force now; None for those that the documents say.
        off: lanes, lists, drain and fallback to gray are off, too; only a choice by name reaches gray.
        messages: in their order.
        verdict: of this look, None where there was none.
        look: what the verdict was made of, None where there was none.
    """

    state: ReleaseState | None = None
    weights: Dict[str, float] | None = None
    off: bool = False
    messages: tuple[Message, ...] = ()
    verdict: Verdict | None = None
    look: Look | None = None
