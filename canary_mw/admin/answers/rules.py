"""The answer about rules: in the order in which they are tried, with their state, and what is wrong with them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from canary_mw.admin.answers.asked import asked_services
from canary_mw.admin.answers.frame import iso_or_none, listing_frame
from canary_mw.admin.answers.hits import Hits
from canary_mw.admin.answers.problems import Findings, findings_of
from canary_mw.admin.models.common import Place
from canary_mw.admin.models.rules import Member, Rule, RulesAnswer, RulesFilter, RuleState
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures
from canary_mw.routing.decided import Decision
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping

MOST = 500
NO_FILTER: RulesFilter = {"q": "", "state": None, "release": None, "limit": 100, "after": 0}
LABELS: dict[RuleState, str] = {
    "live": "Live",
    "last_good": "Last good kept",
    "never_reached": "Never reached",
    "ignored": "Ignored",
}
# What the rules that are not live as written are, in the summary.
_PARTS: dict[RuleState, str] = {
    "last_good": "kept at the last good version",
    "never_reached": "never reached",
    "ignored": "ignored",
}


class _State(NamedTuple):
    state: RuleState
    why: str = ""


class _Listed(NamedTuple):
    """A rule, the names of its Mappings, and the text that is searched."""

    rule: Rule
    names: list[str]
    text: str


def rules_answer(subject: Subject, figures: Figures, wanted: RulesFilter = NO_FILTER) -> RulesAnswer:
    """The rules that a filter lets through, and all problems."""
    store = subject.store
    findings, hits = findings_of(store), Hits(figures)
    rules = subject.remembered("rules", findings.state, lambda: _listed(findings, store.table))
    found = [each for each in rules if _matches(each, wanted)]
    last = wanted["after"] + wanted["limit"]
    live = sum(each.rule["state"] == "live" for each in rules)
    return {
        **listing_frame(subject, figures),
        "finding": _finding(live, len(rules)),
        "summary": _summary([each.rule["state"] for each in rules], store.source_name),
        "source_name": store.source_name,
        "total": len(rules),
        "live": live,
        "found": len(found),
        "filter": wanted,
        "next": last if last < len(found) else None,
        "releases": sorted(store.table.releases),
        "problems": findings.problems,
        "asked": asked_services(store.table, figures),
        "rules": [_with_hits(each, hits) for each in found[wanted["after"] : last]],
    }


def _finding(live: int, total: int) -> str:
    if not total:
        return "There are no rules."
    if live == total:
        return "The only rule is live as written." if total == 1 else f"All {total} rules are live as written."
    return f"{live} of {total} rules {'is' if live == 1 else 'are'} live as written."


def _summary(states: Sequence[RuleState], source: str) -> str:
    counts = [(states.count(state), text) for state, text in _PARTS.items()]
    parts = [f"{count} {'is' if count == 1 else 'are'} {text}" for count, text in counts if count]
    return f"{', '.join(parts)}. Read from {source}." if parts else f"Read from {source}."


def _listed(findings: Findings, table: RouteTable) -> list[_Listed]:
    """All rules, without what is counted. With many Mappings that takes long."""
    rules = [
        (_rule(order, group, findings), [each.name for each in group.mappings])
        for order, group in enumerate(table.groups, 1)
    ]
    ignored = [(each, [each["name"]]) for each in _ignored(findings, table.mappings)]
    return [_Listed(rule, names, _searched(rule)) for rule, names in (*rules, *ignored)]


def _with_hits(listed: _Listed, hits: Hits) -> Rule:
    names = listed.names
    if listed.rule["state"] == "ignored":
        return listed.rule
    last_hit = iso_or_none(hits.last(names))
    return {**listed.rule, "requests": hits.recent(names), "ever": hits.ever(names), "last_hit": last_hit}


def _rule(order: int, group: MappingGroup, findings: Findings) -> Rule:
    first, state = group.first, _state(group, findings)
    return {
        "order": order,
        "name": group.name,
        "host": None if group.host.kind == "any" else group.host.text,
        "prefix": first.prefix,
        "kind": {"plain": "prefix"}.get(first.prefix_kind, first.prefix_kind),
        "conditions": [*_conditions(first)],
        "precedence": first.precedence,
        "members": [*members_of(group)],
        "state": state.state,
        "label": LABELS[state.state],
        "why": state.why,
        "release": group.governed.release.name if group.governed else None,
        "source": [_place(each) for each in group.mappings],
        "requests": None,
        "ever": None,
        "last_hit": None,
    }


def _conditions(first: Mapping) -> Iterator[str]:
    if first.method is not None:
        yield str(first.method).removeprefix(":")
    yield from (f"header {each}" for each in first.conditions)
    yield from (f"query {each}" for each in first.query)


def _place(mapping: Mapping) -> Place:
    return {"file": mapping.file, "line": mapping.line or None}


def _state(group: MappingGroup, findings: Findings) -> _State:
    release = group.governed.release.name if group.governed else None
    kept = [each.name for each in group.mappings if each.name in findings.last_good]
    errors = [findings.errors_of_mappings.get(name) for name in kept]
    if release in findings.errors_of_releases:
        errors.append(findings.errors_of_releases[release])
    if errors:
        return _State("last_good", next((each.message for each in errors if each is not None), ""))
    reasons = [findings.unreached.get((each.file, each.line or None, each.name)) for each in group.mappings]
    if reasons and all(reasons):
        return _State("never_reached", reasons[0] or "")
    return _State("live")


def members_of(group: MappingGroup) -> Iterator[Member]:
    """The Mappings of a group, each with the percent of requests that it gets, and its shadow."""
    for percent, decision in group.governed.shares() if group.governed else _shares(group):
        yield _member(decision.mapping, percent, decision)
    if group.shadow is not None:
        weight = group.shadow.weight
        yield _member(group.shadow, 100.0 if weight is None else float(weight), None)


def _member(mapping: Mapping, percent: float, decision: Decision | None) -> Member:
    return {
        "mapping": mapping.name,
        "namespace": mapping.namespace,
        "service": mapping.service.text,
        "variant": decision.variant if decision else "shadow",
        "gray": decision is not None and decision.variant == "gray",
        "local": decision is not None and decision.local,
        "copy": decision is None,
        "percent": round(percent, 10),
        "file": mapping.file,
        "line": mapping.line or None,
    }


def _shares(group: MappingGroup) -> Iterator[tuple[float, Decision]]:
    low = 0.0
    for bound, decision in group.shares:
        yield max(bound - low, 0.0), decision
        low = max(low, bound)


def _ignored(findings: Findings, mappings: Iterable[Mapping]) -> Iterator[Rule]:
    """The Mappings in error of which no version is live."""
    live = {each.name for each in mappings}
    for name, problem in findings.errors_of_mappings.items():
        if name in live:
            continue
        yield {
            "order": None,
            "name": name,
            "host": None,
            "prefix": "",
            "kind": "",
            "conditions": [],
            "precedence": 0,
            "members": [],
            "state": "ignored",
            "label": LABELS["ignored"],
            "why": problem.message,
            "release": None,
            "source": [{"file": problem.file, "line": problem.line}],
            "requests": None,
            "ever": None,
            "last_hit": None,
        }


def _matches(listed: _Listed, wanted: RulesFilter) -> bool:
    rule = listed.rule
    if wanted["state"] not in (None, rule["state"]) or wanted["release"] not in (None, rule["release"]):
        return False
    return wanted["q"].casefold() in listed.text


def _searched(rule: Rule) -> str:
    texts = [rule["name"], rule["host"] or "*", rule["prefix"], rule["release"] or "", *rule["conditions"]]
    texts += [each["file"] for each in rule["source"]]
    texts += [text for each in rule["members"] for text in (each["service"], each["mapping"], each["variant"])]
    return "\n".join(texts).casefold()
