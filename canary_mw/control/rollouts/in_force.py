"""What is in force of releases: it follows from their documents, their states and their latches alone.

It is worked out anew each time, so that no event can be missed.
"""

from collections.abc import Callable, Collection
from collections.abc import Mapping as Dict
from dataclasses import replace

from canary_mw.rollout.state import ReleaseState
from canary_mw.routing.releases.override import LatchCell, Override
from canary_mw.rules.release import GrayRelease, Releases

NOTHING: Dict[str, float] = {}


def overrides_of(
    releases: Releases,
    states: Dict[str, ReleaseState] | None,
    cell: Callable[[str], LatchCell],
    *,
    unknown: Collection[str] = (),
    stopped: bool = False,
    unshared: bool = False,
) -> dict[str, Override]:
    """The overrides of all releases that need one.

    Args:
        states: by release; None while no store has answered.
        cell: gives the latch of a release.
        unknown: releases whose state may be another one than none.
        stopped: everybody gets stable.
        unshared: nobody knows what other pods do: releases with steps give gray nothing.
    """
    if stopped:
        return {each.name: Override(weights=NOTHING, stopped=True) for each in releases.in_force}
    found = {}
    for document in releases.in_force:
        state = None if states is None else states.get(document.name)
        if state is not None and unshared and document.plan is not None:
            state = replace(state, weights=NOTHING)
        override = _override(document, state, cell, known=states is not None and document.name not in unknown)
        if override is not None:
            found[document.name] = override
    return found


def _override(
    document: GrayRelease, state: ReleaseState | None, cell: Callable[[str], LatchCell], *, known: bool
) -> Override | None:
    if state is None:
        # A release that was rolled back must not come back before its state was read: lanes and lists wait, too. One
        # with steps that has no state is at weight 0 by itself.
        return Override(weights=NOTHING, off=True) if document.plan is not None and not known else None
    latch = cell(document.name)
    off = state.latched or latch.cells[0] >= state.attempt
    if document.plan is None and not off:
        return None
    return Override(
        weights=NOTHING if off else state.weights,
        attempt=state.attempt,
        step=state.visit,
        stage=state.step,
        off=off,
        subject="" if off and document.plan is None else state.subject,
        latch=latch,
    )
