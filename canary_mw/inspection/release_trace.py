"""Why a release decides as it does: its steps in their order, by the functions that decide."""

from collections.abc import Iterator
from typing import NamedTuple

from canary_mw.http.lanes import BAGGAGE, names_lanes
from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import Explanation
from canary_mw.routing.assignment import Assigned, CompiledRelease
from canary_mw.routing.person import Person, Question
from canary_mw.rules.release import SLOTS, STABLE, Choice

# The step of a reason that is not called like it.
_STEPS = {
    "disabled": "enabled",
    "list:never": "lists",
    "list:always": "lists",
    "missing": "sticky",
    "roll": "sticky",
    "new": "sticky",
}


class Step(NamedTuple):
    """One step of the decision; `why` says what it found."""

    name: str
    applies: bool
    why: str


def release_steps(explanation: Explanation) -> list[Step]:
    """The steps up to the one that decides, and the others as not reached; empty without a release."""
    release, assigned = explanation.release, explanation.assigned
    if release is None or assigned is None:
        return []
    steps, decided = [], False
    deciding = _STEPS.get(assigned.reason, assigned.reason.partition(":")[0])
    for name, why in _found(release, assigned, explanation.head, explanation.person):
        applies = not decided and name == deciding
        steps.append(Step(name, applies, "not reached" if decided else why))
        decided = decided or applies
    return steps


def _found(
    release: CompiledRelease, assigned: Assigned, head: RequestHead, person: Person
) -> Iterator[tuple[str, str]]:
    document = release.document
    key = release.key_of(head, person)
    text = key[1] if key else None
    yield "sent", "`via` says so" if assigned.reason == "sent" else "`via` names no service of this process"
    yield "enabled", "enabled: true" if document.enabled else "enabled: false"
    yield "lane", _lane(release, head, person)
    yield "choice", _choice(release, head, person)
    if assigned.reason == "rolled_back":
        yield "rolled_back", "the release was taken back: only a choice by name reaches gray"
    found = release.by_list(key[0], text) if key else None
    yield "lists", f"{found.reason}, by {text}" if found else f"{text} is in no list" if key else "there is no key"
    drained = release.by_drain(head, person)
    yield "drain", "the session was in the variant before" if drained else "no variant of weight 0 is drained here"
    excluded = (release.by_exclusion(key[0], text) if key else None) or Assigned("", None, "")
    yield "layer", _excluded("layer", document.layer and document.layer.name, excluded.reason, text)
    yield "holdout", _excluded("holdout", document.holdout and document.holdout.name, excluded.reason, text)
    yield "audience", _audience(release, head, person)
    yield "sticky", _sticky(release, assigned, text)


def _lane(release: CompiledRelease, head: RequestHead, person: Person) -> str:
    lane = release.lane
    name = BAGGAGE if lane.baggage and not head.has(lane.header) and names_lanes(head.headers) else lane.header
    header = name.decode()
    if release.by_lane(head, person) is not None:
        return f"{header} names a variant" if lane.is_tag else f"{header} has an entry for {release.document.lane}"
    if not head.has(name):
        return f"there is no {header}"
    trusted = person.trusted or person.is_signed(head, name)
    return f"{header} has no entry for {release.document.lane}" if trusted else f"{header} is not from a trusted peer"


def _choice(release: CompiledRelease, head: RequestHead, person: Person) -> str:
    choice = release.document.choice
    found = release.by_choice(head, person)
    if found is not None:
        return f"the {found.reason.partition(':')[2]} asks for {found.variant}"
    names = ", ".join(_sources(choice))
    if not names:
        return "the release allows none"
    untrusted = choice.trusted and not person.trusted
    return f"the peer is not trusted ({names})" if untrusted else f"none by {names}"


def _sources(choice: Choice) -> Iterator[str]:
    for kind, name in zip(("header", "cookie", "query"), choice[:3], strict=True):
        if isinstance(name, bytes):
            yield f"{kind} {name.decode()}"


def _excluded(kind: str, name: str | None, reason: str, text: str | None) -> str:
    if name is None:
        return f"the release has no {kind}"
    if text is None:
        return "there is no key"
    inside = "outside of the slice" if kind == "layer" else "in the holdout"
    outside = "inside of the slice" if kind == "layer" else "not in the holdout"
    return f"{text} is {inside if reason == kind else outside} of {name}"


def _audience(release: CompiledRelease, head: RequestHead, person: Person) -> str:
    if not release.document.audience:
        return "the release has none"
    questions: list[Question] = []
    if release.by_audience(head, person._replace(questions=questions), None) is None:
        return "in the audience"
    asked = [each.predicate for each in questions if each.predicate is not None]
    return f"not in the audience: predicate {asked[0]} has no answer" if asked else "not in the audience"


def _sticky(release: CompiledRelease, assigned: Assigned, text: str | None) -> str:
    if assigned.reason == "roll":
        return "no key: each request is drawn by itself"
    if assigned.reason == "new":
        return f"no key: a new id is drawn and set as cookie {release.document.cookie.name}"
    if text is None:
        return "no key: stable"
    return f"{text} has slot {assigned.slot}" if assigned.slot is not None else text


def range_lines(release: CompiledRelease) -> Iterator[str]:
    """The slots and the effective share of each variant."""
    shares = release.effective_shares()
    for name, ranges in release.claims.ranges.items():
        slots = " ".join(f"[{low}, {high})" for low, high in ranges) or "no slots"
        yield f"{name}: {slots} of {SLOTS}, {shares[name]:g} % of all"
    yield f"{STABLE}: the rest, {shares[STABLE]:g} % of all"
    if release.document.plan is not None and not any(release.claims.weights.values()):
        yield "the weights are 0 until a server begins with the first of the steps"
