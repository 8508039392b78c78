"""What a restart goes on with, besides the state: the seconds of the step, and the evidence."""

import json
from collections.abc import Collection
from typing import NamedTuple

from canary_mw.control.rollouts.inputs import Evidence
from canary_mw.control.rollouts.store import StateStore
from canary_mw.rollout.state import ReleaseState


def checkpoint_of(state: ReleaseState, evidence: bytes) -> bytes:
    """What a restart goes on with."""
    progress = {"attempt": state.attempt, "visit": state.visit, "step": state.step}
    return json.dumps({**progress, "elapsed": state.elapsed, "baked": state.baked}).encode() + b"\n" + evidence


def evidence_in(data: bytes, attempt: int) -> bytes:
    """The evidence of a checkpoint; b"" where it is that of another attempt."""
    progress = progress_in(data)
    return data.partition(b"\n")[2] if progress is not None and progress.attempt == attempt else b""


class Progress(NamedTuple):
    """How far a release was within a stay at its weight."""

    attempt: int
    visit: int
    step: int
    elapsed: float
    baked: float


def progress_in(data: bytes) -> Progress | None:
    """How far a release was; None where that cannot be read."""
    try:
        values = json.loads(data.partition(b"\n")[0])
        return Progress(**{name: values[name] for name in Progress._fields})
    except (ValueError, TypeError, KeyError):
        return None


def keep_progress(store: StateStore, evidence: Evidence, state: ReleaseState) -> None:
    """Store how far a release is; raises StoreAway."""
    store.checkpoint(state.name, checkpoint_of(state, evidence.exported(state.name, state.attempt)))


def restore_evidence(store: StateStore, evidence: Evidence, states: Collection[ReleaseState]) -> set[str]:
    """Take over the evidence of before a restart; raises StoreAway.

    Returns:
        The releases whose evidence has not to be tried again.
    """
    found = store.checkpoints()
    known = {state.name: evidence_in(found.get(state.name, b""), state.attempt) for state in states}
    return {name for name, data in known.items() if not data or evidence.restore(data)}
