"""An explanation for people: the answer as a sentence, the steps, what is sent, and what happens to others."""

from collections.abc import Iterator

from canary_mw.admin.answers.problems import NOT_SHOWN
from canary_mw.admin.models.explain import ExplainStep, Other, Position, Sent
from canary_mw.forwarding.messages import Reply, UpstreamRequest
from canary_mw.inspection.explanation import Candidate, Explanation
from canary_mw.inspection.explanation_json import changed_headers
from canary_mw.inspection.release_trace import release_steps
from canary_mw.routing.decided import Decision
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import SLOTS_PER_PERCENT, STABLE

APP = "the wrapped app"
# Why a release decides, by its reason, or by the part of it before ":".
TITLES = {
    "sent": "Sent here",
    "enabled": "Release switched on",
    "disabled": "Switched off",
    "lane": "Lane",
    "choice": "Choice",
    "list": "Lists of ids",
    "lists": "Lists of ids",
    "drain": "Drained session",
    "layer": "Layer",
    "holdout": "Holdout",
    "audience": "Audience",
    "sticky": "Sticky key",
    "missing": "No key",
    "roll": "Drawn by request",
    "new": "New cookie",
    "fallback": "Safety net",
    "rolled_back": "Rolled back",
    "weight": "Weight",
    "": "Only rule",
}
_BECAUSE = {
    "sent": "because another canary-mw has decided already and sent the request here",
    "disabled": "because the release is switched off",
    "rolled_back": "because the release was taken back",
    "lane": "because the lane of a trusted peer says so",
    "choice:header": "because a header of the request chooses it",
    "choice:cookie": "because a cookie of the request chooses it",
    "choice:query": "because a query parameter of the request chooses it",
    "list:never": "because the key is in a list that never gets gray",
    "list:always": "because the key is in a list that always gets it",
    "drain": "because the session was there before",
    "layer": "because the key lies outside of the slice of the release in its layer",
    "holdout": "because the key is in the holdout",
    "audience": "because the request is not in the audience",
    "missing": "because the request has no key",
}
# Headers whose values are credentials.
SECRET_HEADERS = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"))


def title_of(reason: str) -> str:
    """The title of a step or reason."""
    return TITLES.get(reason) or TITLES.get(reason.partition(":")[0]) or reason


def sentence(explanation: Explanation) -> str:
    """The answer."""
    candidates = sorted(explanation.candidates, key=lambda each: -each.percent)
    if len(candidates) > 1:
        shares = ", ".join(f"{_who(each)} {each.percent:g} %" for each in candidates)
        return f"Each request is drawn by itself: {shares}."
    only = candidates[0]
    if isinstance(only.outcome, Reply):
        return f"canary-mw itself answers{_with(only.outcome)}{_because(explanation, only)}."
    return _first_capital(f"{_who(only)} answers{_because(explanation, only)}.")


def _who(candidate: Candidate) -> str:
    decision, outcome = candidate.decision, candidate.outcome
    if isinstance(outcome, Reply):
        return f"canary-mw itself{_with(outcome)}"
    return APP if outcome is None or decision is None else decision.mapping.service.text


def _with(reply: Reply) -> str:
    locations = [value.decode("latin-1") for name, value in reply.headers or () if name == b"location"]
    return f" with {reply.status}{f' to {locations[0]}' if locations else ''}"


def _because(explanation: Explanation, candidate: Candidate) -> str:
    assigned, release = explanation.assigned, explanation.release
    if candidate.decision is None:
        refused = isinstance(candidate.outcome, Reply) and candidate.outcome.status != 404
        return "" if refused else ", because no rule takes the request"
    if assigned is None or release is None:
        return f", because {candidate.decision.group} takes the request"
    found = position(explanation)
    if assigned.reason == "sticky" and found is not None:
        return f", because the key of {assigned.key} {_lies(explanation, found['slot'])}"
    text = _BECAUSE.get(assigned.reason)
    return f", {text}" if text else ""


def _lies(explanation: Explanation, slot: int) -> str:
    release, assigned = explanation.release, explanation.assigned
    assert release is not None
    assert assigned is not None
    place = f"lies at {_percent(slot)}"
    for low, high in release.claims.ranges.get(assigned.variant or "", ()):
        if low <= slot < high:
            return f"{place}, in {_range(low, high)} of {assigned.variant}"
    return f"{place}, outside of the ranges of gray versions"


def details(explanation: Explanation) -> str:
    """For how long the answer holds."""
    assigned, release = explanation.assigned, explanation.release
    if assigned is None or release is None or assigned.reason != "sticky" or assigned.slot is None:
        return ""
    if assigned.variant == STABLE:
        return "Every replica says the same for this key until a range reaches it."
    for low, high in release.claims.ranges.get(assigned.variant or "", ()):
        if low == 0 and assigned.slot < high:
            limit = _percent(assigned.slot)
            return f"Every replica says the same for this key until the weight falls below {limit} %."
    return "Every replica says the same for this key while the range stays."


def position(explanation: Explanation) -> Position | None:
    """Where the key lies."""
    assigned, release = explanation.assigned, explanation.release
    if assigned is None or release is None or assigned.slot is None:
        return None
    ranges = "; ".join(
        f"{name} has {', '.join(_range(low, high) for low, high in parts)}"
        for name, parts in release.claims.ranges.items()
        if parts
    )
    place = f"The key of {assigned.key} lies at {_percent(assigned.slot)}"
    return {
        "slot": assigned.slot,
        "percent": assigned.slot / SLOTS_PER_PERCENT,
        "text": f"{place}; {ranges or 'no gray version has a range'}",
    }


def steps(table: RouteTable, explanation: Explanation) -> Iterator[ExplainStep]:
    """The groups that were considered, and the steps of the release."""
    groups = {group.name: group for group in table.candidates(explanation.head)} if explanation.considered else {}
    count = len(explanation.considered)
    text = f"of {len(table.groups)}, by the index of hosts and prefixes"
    yield _step(count > 0, f"{count} {'rule has' if count == 1 else 'rules have'} this host and prefix", text)
    taken = False
    for each in explanation.considered:
        title = f"{each.group} {'comes later' if taken else 'takes the request' if each.matched else 'does not match'}"
        why = each.why if each.matched else f"it wants {each.why.removeprefix('not: ')}"
        step = _step(each.matched and not taken, title, why, reached=not taken)
        yield _with_source(step, groups.get(each.group))
        taken = taken or each.matched
    for part in release_steps(explanation):
        yield _step(part.applies, title_of(part.name), part.why, reached=part.why != "not reached")


def _step(applies: bool, title: str, text: str, *, reached: bool = True) -> ExplainStep:
    return {
        "applies": applies,
        "reached": reached,
        "title": title,
        "text": text,
        "source": None,
        "release": None,
    }


def _with_source(step: ExplainStep, group: MappingGroup | None) -> ExplainStep:
    if group is None:
        return step
    first, release = group.first, group.governed and group.governed.release.name
    return {**step, "source": {"file": first.file, "line": first.line or None}, "release": release or None}


def sent(explanation: Explanation) -> Sent | None:
    """What is sent upstream, where that does not depend on a draw."""
    if len(explanation.candidates) != 1:
        return None
    decision, outcome = explanation.candidates[0].decision, explanation.candidates[0].outcome
    if decision is None or not isinstance(outcome, UpstreamRequest):
        return None
    head, target = explanation.head, outcome.target.decode("latin-1")
    changes = changed_headers(outcome, head)
    return {
        "to": f"{outcome.method} {_base(decision)}{target}",
        "path": (head.path + head.query).decode("latin-1"),
        "rewritten": target,
        "added": _pairs(changes["headers_added"]),
        "changed": _pairs(changes["headers_changed"]),
        "removed": changes["headers_removed"],
        "timeout": _timeout(outcome, explanation, decision),
        "copy": _copy(decision, outcome),
    }


def _base(decision: Decision) -> str:
    text = decision.mapping.service.text
    return text if "://" in text else f"http://{text}"


def _pairs(headers: dict[str, list[str]]) -> list[list[str]]:
    hidden = SECRET_HEADERS
    return [[name, NOT_SHOWN if name in hidden else value] for name, values in headers.items() for value in values]


def _timeout(outcome: UpstreamRequest, explanation: Explanation, decision: Decision) -> str:
    text = "none" if outcome.timeout is None else f"{outcome.timeout:g} s"
    guarded = explanation.release is not None and explanation.release.document.fallback is not None
    return f"{text}, then stable answers" if guarded and decision.variant == "gray" else text


def _copy(decision: Decision, outcome: UpstreamRequest) -> str | None:
    if decision.shadow is None or outcome.shadow is None:
        return None
    weight = 100 if decision.shadow.weight is None else decision.shadow.weight
    return (
        f"{outcome.shadow.service}{outcome.shadow.target.decode('latin-1')} gets a copy of {weight} % of the requests"
    )


def others(table: RouteTable, explanation: Explanation) -> Iterator[Other]:
    """What could happen to others on this URL; the percents add up to 100."""
    governed = next((each.governed for each in _matching(table, explanation) if each.governed), None)
    if governed is None or explanation.release is None:
        for candidate in explanation.candidates:
            when = "by weight" if len(explanation.candidates) > 1 else "always"
            yield _other(candidate.decision, candidate.percent, when, candidate.outcome)
        return
    left = 100.0
    for percent, decision in governed.shares():
        left -= percent
        yield _other(decision, percent, _when(explanation, decision, table))
    if left > 1e-9:
        yield _other(None, left, "any other key")


def _matching(table: RouteTable, explanation: Explanation) -> list[MappingGroup]:
    head = explanation.head
    return [group for group in table.candidates(head) if group.mismatch(head) is None] if explanation.considered else []


def _when(explanation: Explanation, decision: Decision, table: RouteTable) -> str:
    release = explanation.release
    assert release is not None
    for variant in release.document.variants:
        if decision.variant == "gray" and decision.mapping.name in variant.mappings:
            ranges = release.claims.ranges.get(variant.name, ())
            drawn = not release.document.sticky and release.document.missing == "roll"
            if drawn:
                return "drawn by request"
            return "key in " + ", ".join(_range(low, high) for low, high in ranges) if ranges else "no key"
    return "any other key"


def _other(decision: Decision | None, percent: float, when: str, outcome: object = None) -> Other:
    release = decision.release if decision else None
    local = decision is None or decision.local
    return {
        "service": None if local or decision is None else decision.mapping.service.text,
        "mapping": decision.mapping.name or None if decision else None,
        "variant": (release and release.variant) or (decision.variant if decision else STABLE),
        "gray": decision is not None and decision.variant == "gray",
        "percent": round(percent, 10),
        "status": outcome.status if isinstance(outcome, Reply) else None,
        "when": when,
    }


def _percent(slot: int) -> str:
    return f"{slot / SLOTS_PER_PERCENT:.10g}"


def _range(low: int, high: int) -> str:
    return f"{_percent(low)} – {_percent(high)}"


def _first_capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text.startswith(APP) else text
