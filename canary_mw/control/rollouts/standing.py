"""How a release stands, for who shows it."""

from collections.abc import Iterator
from collections.abc import Mapping as Dict
from dataclasses import dataclass

from canary_mw.control.rollouts.controller import Controller
from canary_mw.control.rollouts.inputs import Heard
from canary_mw.control.rollouts.place import Opened
from canary_mw.control.rollouts.settings import Surroundings
from canary_mw.rollout.outcome import Message
from canary_mw.rollout.state import ReleaseState
from canary_mw.rollout.verdict import Look, Verdict
from canary_mw.rules.epoch import subject_of
from canary_mw.rules.release import GrayRelease


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a release stands in this process.

    Attributes:
        state: None where it has none: a release without steps that nobody has aborted, or a store that is away.
        version: of the state, for `If-Match`; 0 where none is stored.
        weights: percent of each gray variant in force; None for those that its document says.
        off: only a choice by name reaches gray.
        stopped: everybody gets stable, by the stop of all releases.
        is_controller: whether this process raises.
        controller: who raises, or did so last, in words; "" where nobody ever has.
        pods: how many of them report to the one that raises, where that is of this pod.
        place: where the state is kept, in words.
        findings: what keeps the state from being read or written, in words.
        verdict, look: of the last look at the evidence; None where there was none.
        messages: of this process, the last ones.
    """

    name: str
    state: ReleaseState | None = None
    version: int = 0
    weights: Dict[str, float] | None = None
    off: bool = False
    stopped: bool = False
    is_controller: bool = False
    controller: str = ""
    pods: Heard | None = None
    place: str = ""
    findings: tuple[str, ...] = ()
    verdict: Verdict | None = None
    look: Look | None = None
    messages: tuple[Message, ...] = ()


def standing_of(controller: Controller, document: GrayRelease, where: Surroundings) -> Standing:
    """How a release stands in this process. One that does not control judges for itself, and changes nothing."""
    known, opened = controller.states.known.get(document.name), controller.opened
    store = controller.store_of(document.name)
    outcome = controller.outcomes.get(document.name) if controller.leads else None
    if outcome is None:
        outcome = controller.judge(document, known, store)
    state = known.state if known is not None else outcome.state
    return Standing(
        name=document.name,
        state=state,
        version=(known.version or 0) if known is not None else 0,
        weights=known.state.weights if known is not None and document.plan is not None else outcome.weights,
        off=state is not None and state.latched,
        stopped=controller.stopped,
        is_controller=controller.leads,
        controller=_controller(opened),
        pods=controller.peers.heard(),
        place=opened.where if opened is not None else "",
        findings=tuple(_findings(controller, document, where)),
        verdict=outcome.verdict,
        look=outcome.look,
        messages=controller.messages.get(document.name, ()),
    )


def _controller(opened: Opened | None) -> str:
    if opened is None:
        return ""
    number = opened.latches.controller
    return opened.store.controller or (f"process {number}" if number else "")


def _findings(controller: Controller, document: GrayRelease, where: Surroundings) -> Iterator[str]:
    stored, name = controller.states.stored, document.name
    if controller.stopped:
        yield "all releases are stopped: everybody gets stable"
    if not document.enabled:
        yield "enabled is false: everybody gets stable, and nothing goes on until it is true"
    if where.unshared:
        yield "no shared store: several pods cannot agree; where there is one pod only, set CANARY_MW_SINGLE=1"
    for what, reason in controller.troubles.items():
        yield f"the store of states cannot be {what}: {reason}"
    if controller.opened is not None:
        yield from controller.opened.store.problems
    if document.plan is not None:
        yield from controller.peers.findings()
    if stored is not None and name in stored.newer:
        yield "a newer version has written the state: this one raises nothing"
    if stored is not None and name in stored.unreadable:
        yield stored.unreadable[name]
    known = controller.states.known.get(name)
    if known is not None and document.plan is not None and subject_of(document) in known.state.past:
        yield "these rules release what was released before: it begins anew with another `revision` only"
    if controller.is_young():
        yield "the store is new and knows nothing: it may have been lost, so nothing is raised in its first 60 seconds"
