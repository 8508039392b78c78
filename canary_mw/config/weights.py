"""Weights of whole groups: an error where they add up to more than 100, and what a group keeps after such an edit.

A mistake in a weight must not move a share. A Mapping in error keeps its last good version, but the weights of a group
only mean something together: so the group of a mistake is compared with what it was in the rules in force.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Mapping as Dict
from dataclasses import replace

from canary_mw.config.document import Diagnostic, Severity
from canary_mw.config.last_good import Name
from canary_mw.rules.mapping import Mapping, percent
from canary_mw.rules.weights import thresholds, total_percent

Key = tuple[object, ...]

# The code of a finding about a weight outside 0..100.
WEIGHT_RANGE = "weight-range"
_LAST_GOOD: tuple[Severity, str] = ("error", "the Mapping keeps its last good version")


def keep_shares(
    mappings: Sequence[Mapping],
    previous: Sequence[Mapping],
    in_error: Collection[Name],
    diagnostics: list[Diagnostic],
    *,
    middleware: bool,
) -> list[Mapping]:
    """The Mappings with the weights that are in force.

    A group that is not in `previous` gets its weights as they are written.

    Args:
        previous: the Mappings in force.
        in_error: Mappings that stay what they were, because their documents have an error.
        diagnostics: the findings of the documents; those about weights outside 0..100 are completed, and errors about
            weights that add up to more than 100 are added.
        middleware: a wrapped app takes what the weights leave.
    """
    prefixes = _prefixes_to_check(mappings, in_error)
    groups, before = _groups(mappings, prefixes), _groups(previous, prefixes)
    kept: dict[int, Mapping] = {}
    for key, members in groups.items():
        over = total_percent(members) > 100
        if key in before and (over or any(m.wrong_weight or _name(m) in in_error for m in members)):
            now = _kept(members, before[key], over=over, middleware=middleware)
            kept |= {id(written): mapping for written, mapping in zip(members, now, strict=True)}
        if over:
            diagnostics.append(_over_100(members, kept=any(kept.get(id(m), m) is not m for m in members)))
    wrong = [m for m in mappings if m.prefix in prefixes and m.wrong_weight]
    _complete(diagnostics, wrong, groups, kept, middleware=middleware)
    return [kept.get(id(mapping), mapping) for mapping in mappings] if kept else [*mappings]


def _name(mapping: Mapping) -> Name:
    return mapping.namespace, mapping.name


def _prefixes_to_check(mappings: Iterable[Mapping], in_error: Collection[Name]) -> set[str]:
    """Prefixes of groups that may have a mistake in their weights: a fast test, because there are nearly never any."""
    totals: dict[str, int] = {}
    prefixes: set[str] = set()
    for mapping in mappings:
        if mapping.weight is not None:
            totals[mapping.prefix] = totals.get(mapping.prefix, 0) + (mapping.percent or 0)
            if mapping.wrong_weight:
                prefixes.add(mapping.prefix)
        if in_error and _name(mapping) in in_error:
            prefixes.add(mapping.prefix)
    return prefixes | {prefix for prefix, total in totals.items() if total > 100}


def _groups(mappings: Iterable[Mapping], prefixes: set[str]) -> dict[Key, list[Mapping]]:
    """The members of each group. A redirect takes its whole group, unless a member was there before it."""
    groups: dict[Key, list[Mapping]] = {}
    for mapping in mappings:
        if mapping.prefix in prefixes and not mapping.shadow:
            members = groups.setdefault(mapping.key, [])
            if not members or not (mapping.redirect or members[0].redirect):
                members.append(mapping)
    return {key: members for key, members in groups.items() if not members[0].redirect}


def _kept(members: list[Mapping], before: list[Mapping], *, over: bool, middleware: bool) -> list[Mapping]:
    """The members, with weights that leave the shares of the group as they were.

    Args:
        before: the members in force.
        over: the weights add up to more than 100: each member keeps its weight, and a new one gets 0. Otherwise the
            written weights count, except those outside 0..100.
    """
    known = {_name(m): m for m in before}
    gone = {m.service: m for m in before if _name(m) not in {_name(m) for m in members}}
    weights: dict[Name, int | None] = {}
    new = []
    for mapping in members:
        name = _name(mapping)
        weights[name] = mapping.weight
        if over or mapping.wrong_weight:
            # A Mapping that is gone while a new one has its service was renamed.
            earlier = known.get(name) or gone.pop(mapping.service, None)
            weights[name] = earlier.weight if earlier else mapping.weight if mapping.wrong_weight else 0
            new += [] if earlier else [mapping]
    _fill(weights, members, before, new)
    nothing = None not in weights.values() and not _total(weights.values())
    if not over and (_total(weights.values()) > 100 or (nothing and not middleware)):
        return _kept(members, before, over=True, middleware=middleware)
    if over and nothing:
        # Whoever had a share is gone.
        return members
    return [_with_weight(m, weights[_name(m)], known.get(_name(m))) for m in members]


def _total(weights: Iterable[int | None]) -> int:
    return sum(percent(weight) or 0 for weight in weights)


def _fill(weights: dict[Name, int | None], members: list[Mapping], before: list[Mapping], new: list[Mapping]) -> None:
    """Give what the weights leave to the stable Mapping, if they left nothing before.

    Otherwise it would go to all members by relative weight, and a mistake would send more requests to the gray ones.

    Args:
        new: members without a weight in force; they take what no stable Mapping is left for.
    """
    complete = any(m.weight is None for m in before) or total_percent(before) >= 100
    missing = 100 - _total(weights.values())
    if not complete or missing <= 0 or None in weights.values():
        return
    stable = _stable(before)
    taker = next((m for m in members if _name(m) in stable), None)
    if taker is not None:
        weights[_name(taker)] = (percent(weights[_name(taker)]) or 0) + missing
    elif new:
        taker = next((m for m in new if m.weight is None), None) or max(new, key=lambda m: m.percent or 0)
        weights[_name(taker)] = min(taker.percent, missing) if taker.percent else taker.weight


def _stable(members: list[Mapping]) -> set[Name]:
    """The stable Mappings of a group: by their labels, else the weightless ones, else that of the largest weight."""
    others = [m for m in members if m.variant != "gray"]
    labelled = {_name(m) for m in others if m.variant == "stable"}
    weightless = {_name(m) for m in others if m.weight is None}
    return labelled or weightless or {_name(max(others, key=lambda m: m.percent or 0))} if others else set()


def _with_weight(mapping: Mapping, weight: int | None, in_force: Mapping | None) -> Mapping:
    """The Mapping with a weight; the one in force if it is the same, so that nothing is built again."""
    if mapping.weight == weight:
        return mapping
    kept = replace(mapping, weight=weight)
    same = in_force is not None and kept == in_force and (kept.file, kept.line) == (in_force.file, in_force.line)
    return in_force if in_force is not None and same else kept


def _over_100(members: list[Mapping], *, kept: bool) -> Diagnostic:
    last = next(m for m in reversed(members) if m.weight is not None)
    names = " + ".join(m.name for m in members)
    effect = "the group keeps the shares that it had" if kept else ", ".join(_shares(members))
    return Diagnostic(
        severity="error",
        code="weights-over-100",
        message=f"the weights of {names} add up to {total_percent(members)}, more than 100: {effect}",
        file=last.file,
        line=last.line or None,
        mapping=last.name,
        hint="lower a weight; Mappings without one share what the others leave",
    )


def _shares(members: list[Mapping]) -> Iterator[str]:
    """What each member gets, in words."""
    low = 0.0
    for mapping, bound in thresholds(members):
        yield f"{mapping.name} gets " + (f"{bound - low:g} %" if bound > low else "nothing")
        low = max(low, bound)


def _complete(
    diagnostics: list[Diagnostic],
    wrong: list[Mapping],
    groups: Dict[Key, list[Mapping]],
    kept: Dict[int, Mapping],
    *,
    middleware: bool,
) -> None:
    """Say in each finding about a weight outside 0..100 what becomes of its Mapping.

    Args:
        wrong: the Mappings with such a weight that have no last good version.
        groups: the members of their groups.
        kept: by the identity of Mappings, what is in force instead of them.
    """
    effects = {}
    for mapping in wrong:
        members = groups.get(mapping.key, [])
        effect = _effect(mapping, members, kept.get(id(mapping), mapping), middleware=middleware)
        # Of two Mappings with one name in two namespaces, the second has its namespace appended.
        effects[mapping.file, mapping.name] = effect
        effects[mapping.file, mapping.name.removesuffix(f".{mapping.namespace}")] = effect
    for number, found in enumerate(diagnostics):
        if found.code == WEIGHT_RANGE:
            severity, text = effects.get((found.file, found.mapping or ""), _LAST_GOOD)
            diagnostics[number] = replace(found, severity=severity, message=f"{found.message}: {text}")


def _effect(mapping: Mapping, members: list[Mapping], in_force: Mapping, *, middleware: bool) -> tuple[Severity, str]:
    if mapping.redirect or mapping not in members:
        return "warning", "a redirect takes all requests of its group"
    if in_force is not mapping:
        return "error", f"the group keeps the shares that it had, this Mapping {_in_words(in_force.weight)}"
    if len(members) == 1 and middleware:
        return "error", "it counts as 0, and the wrapped app takes all requests"
    if len(members) == 1:
        return "warning", "alone in its group, the Mapping takes all requests; in a middleware it takes none"
    return "error", "it counts as 0 beside the other Mappings of its group"


def _in_words(weight: int | None) -> str:
    return "without a weight" if weight is None else f"the weight {weight}"
