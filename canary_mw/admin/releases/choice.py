"""Who gets gray: the order of choice of a release in words, and the ring of its keys."""

from collections.abc import Iterator, Sequence

from canary_mw.admin.explaining.words import title_of
from canary_mw.admin.models.release import Choice, ChoiceStep, Ring
from canary_mw.admin.releases.changes import ReleaseChange
from canary_mw.admin.releases.views import ReleaseView
from canary_mw.rules.release import SLOTS, SLOTS_PER_PERCENT, Fallback, GrayRelease, Term

_MISSING = {
    "stable": "without a key stable answers",
    "roll": "without a key each request is drawn by itself",
    "cookie": "without a key a cookie is issued",
}


def choice_of(view: ReleaseView, changes: Sequence[ReleaseChange]) -> Choice:
    """Who gets gray."""
    if view.compiled is None:
        text = "Each request is drawn by itself, by the weights of the Mappings"
        return {"steps": [{"name": "weight", "title": title_of("weight"), "text": text}], "ring": None}
    steps: list[ChoiceStep] = [
        {"name": name, "title": title_of(name), "text": text} for name, text in _steps(view.compiled.document)
    ]
    return {"steps": steps, "ring": None if view.is_rolled else _ring(view, changes)}


def _steps(document: GrayRelease) -> Iterator[tuple[str, str]]:
    if not document.enabled:
        yield "disabled", "The release is switched off: everybody gets stable"
    if chosen := [*_choices(document)]:
        peers = ", from trusted peers only" if document.choice.trusted else ""
        text = f"{', else '.join(chosen)}{peers}"
        yield "choice", text[:1].upper() + text[1:]
    if document.never or document.never_file or any(each.always or each.always_file for each in document.variants):
        yield "lists", "Ids that are always, or never, in a variant"
    if document.layer is not None:
        low, high = document.layer.start / SLOTS_PER_PERCENT, document.layer.end / SLOTS_PER_PERCENT
        yield "layer", f"{low:g} to {high:g} % of layer {document.layer.name}"
    if document.holdout is not None:
        percent = document.holdout.slots / SLOTS_PER_PERCENT
        yield "holdout", f"{percent:g} % of the users stay on stable: {document.holdout.name}"
    if document.audience:
        yield "audience", f"{', and '.join(map(_term, document.audience))}: everybody else stays on stable"
    keys = ", else ".join(map(str, document.sticky))
    yield "sticky", f"{keys}; {_MISSING[document.missing]}" if keys else _MISSING[document.missing].capitalize()
    if document.fallback is not None:
        yield "fallback", _net(document.fallback)


def _choices(document: GrayRelease) -> Iterator[str]:
    for kind, name in zip(("header", "cookie", "query parameter"), document.choice[:3], strict=True):
        if isinstance(name, bytes):
            yield f"{kind} {name.decode()}"


def _term(term: Term) -> str:
    if term.inner:
        return f"{term.kind} of ({', '.join(map(_term, term.inner))})"
    return f"{term.kind} {term.name}".rstrip()


def _net(fallback: Fallback) -> str:
    kinds = [*sorted(fallback.kinds), *map(str, sorted(fallback.statuses))]
    budget = fallback.budget
    return (
        f"A gray try that ends in {', '.join(kinds)} is answered by stable; at most {budget.percent} % of the requests"
    )


def _ring(view: ReleaseView, changes: Sequence[ReleaseChange]) -> Ring | None:
    compiled = view.compiled
    if compiled is None:
        return None
    ranges = {name: [list(each) for each in parts] for name, parts in compiled.claims.ranges.items()}
    return {
        "salt": compiled.document.hash.name,
        "slots": SLOTS,
        "ranges": ranges,
        "before": _before(view, ranges, changes),
    }


def _before(view: ReleaseView, ranges: dict[str, list[list[int]]], changes: Sequence[ReleaseChange]) -> list[int]:
    """Where a range that begins at the same slot ended before the last change of its weight."""
    found = []
    for name in view.gray:
        moved = next((each.shares[name] for each in changes if name in each.shares), None)
        if moved is not None and len(ranges.get(name, ())) == 1 and moved[0] != moved[1]:
            found.append(ranges[name][0][0] + round(moved[0] * SLOTS_PER_PERCENT))
    return [slot for slot in found if 0 < slot <= SLOTS]
