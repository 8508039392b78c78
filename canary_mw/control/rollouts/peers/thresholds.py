"""What all pods judge answers and values by: found once by the pod that controls, and told by the state."""

from contextlib import suppress
from dataclasses import replace

from canary_mw.control.rollouts.controller import TICK, Controller
from canary_mw.exceptions import StoreAway


def agree(controller: Controller) -> None:
    """Judge by the thresholds of the states, once a second; who controls also finds those that are missing."""
    if controller.opened is None or not controller.is_due("thresholds", TICK):
        return
    for document in controller.documents:
        known = controller.states.known.get(document.name)
        if known is None or document.plan is None or known.state.latched:
            continue
        state, name = known.state, document.name
        found = controller.evidence.thresholds(document, state) if controller.leads else {}
        if found and controller.store_of(name) == "answered":
            with suppress(StoreAway):
                controller.write(name, replace(state, limits={**state.limits, **found}), ())
        controller.evidence.settle(controller.states.known[name].state)
