"""What holds whatever happens: random ticks, commands and edits, by a seed."""

from dataclasses import replace
from random import Random

import pytest
from progressive import ANALYSIS, BAD, ERRORS, NOTHING, a_release, plan_of, shown, with_plan, with_stage

from canary_mw.exceptions import CommandRefused
from canary_mw.rollout.commands import COMMANDS, Command, Who, allowed, command
from canary_mw.rollout.engine import Now, tick
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.outcome import Outcome
from canary_mw.rollout.state import ReleaseState, from_json, to_json
from canary_mw.rules.release import GrayRelease

DOCUMENT = a_release(5, 25, 50, analysis=ANALYSIS._replace(metrics=(ERRORS,)), holdback=5, bake=100.0)
SEQUENCES, LENGTH = 60, 40


class Story:
    """A release to which things happen."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.document: GrayRelease = DOCUMENT
        self.state: ReleaseState | None = None
        self.by_human = False
        self.controlled = False

    def happen(self) -> Outcome:
        self.by_human = self.random.random() < 0.3
        if self.by_human:
            return self._told()
        if self.random.random() < 0.1:
            self._edit()
        return self._ticked()

    def _told(self) -> Outcome:
        wanted = Command(
            name=self.random.choice(COMMANDS),
            weight=self.random.choice((0.0, 1.0, 25.0, 99.0)),
            full=self.random.random() < 0.1,
        )
        fits = wanted.name in allowed(self.document, self.state)
        if fits:
            return command(self.document, self.state, wanted, Who("me"))
        with pytest.raises(CommandRefused, match=wanted.name):
            command(self.document, self.state, wanted, Who("me"))
        return Outcome(state=self.state)

    def _ticked(self) -> Outcome:
        self.controlled = self.random.random() < 0.7
        now = Now(
            controller=self.controlled,
            elapsed=self.random.choice((0.0, 30.0, 70.0, 4000.0)),
            store=self.random.choice(("answered", "answered", "answered", "away", "newer")),
        )
        self.controlled = now.leads
        return tick(self.document, self.state, self._evidence(), now)

    def _evidence(self) -> ReleaseEvidence | None:
        attempt = 1 if self.state is None else self.state.attempt
        found = self.random.choice((shown(), shown(), NOTHING, BAD, None))
        # One of another attempt, at times.
        return None if found is None else replace(found, attempt=attempt - (self.random.random() < 0.1))

    def _edit(self) -> None:
        edits = (
            lambda: replace(DOCUMENT, revision=str(self.random.randrange(3))),
            lambda: with_stage(self.document, self.random.randrange(2), pause=float(self.random.randrange(90))),
            lambda: with_plan(self.document, on_failure=self.random.choice(("rollback", "hold"))),
            lambda: with_plan(self.document, stages=plan_of(DOCUMENT).stages[self.random.randrange(3) :]),
            lambda: replace(self.document, enabled=self.random.random() < 0.5),
        )
        self.document = self.random.choice(edits)()


def check(story: Story, before: ReleaseState | None, outcome: Outcome) -> None:
    after = outcome.state
    if before is None or after is None:
        assert story.by_human or sum((outcome.weights or {}).values()) == 0
        return
    old, new = before.weight, after.weight
    again = after.attempt != before.attempt
    assert from_json(to_json(after)) == after
    assert again or after.alpha <= before.alpha
    assert again or (after.visit, after.elapsed) >= (before.visit, min(before.elapsed, 100.0))
    assert after.attempt >= before.attempt
    if outcome.weights is not None:
        assert sum(outcome.weights.values()) <= new
    if new > old:
        assert story.by_human or story.controlled
        assert not before.latched
    if not story.by_human and new > old:
        assert new <= 95 or after.phase == "Completed"
        assert new in {sum(each.weights.values()) for each in plan_of(story.document).stages} | {100}
    if before.latched and not after.latched:
        assert again
        assert new == 0
    if after.latched:
        assert outcome.off or not outcome.weights
        assert new == 0
    assert (after.phase == "Held") is (after.held_by != "")
    changed = (before.phase, old, before.attempt) != (after.phase, new, after.attempt)
    transitions = [each for each in outcome.messages if each.kind == "transition"]
    assert len(transitions) <= 1
    assert not changed or transitions
    assert len(after.history) - len(before.history) == len(transitions) or len(after.history) == 50


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_whatever_happens(seed: int) -> None:
    story = Story(seed)
    for _ in range(LENGTH):
        before = story.state
        outcome = story.happen()
        check(story, before, outcome)
        story.state = outcome.state
