"""Releases as the answers show them: GrayReleases, and groups with a gray Mapping that none governs."""

from collections.abc import Iterator
from typing import NamedTuple
from weakref import ref

from canary_mw.admin.models.releases import Match
from canary_mw.admin.subject import Subject
from canary_mw.routing.assignment import CompiledRelease
from canary_mw.routing.decided import Decision
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import STABLE

# The only gray variant of a group without a release.
GRAY = "gray"


class ReleaseView(NamedTuple):
    """A release.

    Attributes:
        compiled: None for a group that no release governs.
        groups: where it decides, in routing order.
        weights: percent by variant, "stable" first.
        targets: the Mappings of each variant; of stable none where the wrapped app is it.
    """

    name: str
    compiled: CompiledRelease | None
    groups: tuple[MappingGroup, ...]
    weights: dict[str, float]
    targets: dict[str, tuple[Mapping, ...]]

    @property
    def gray(self) -> list[str]:
        """The gray variants."""
        return [each for each in self.weights if each != STABLE]

    @property
    def is_rolled(self) -> bool:
        """Whether each request is drawn by itself."""
        if self.compiled is None:
            return True
        document = self.compiled.document
        return not document.sticky and document.missing == "roll"

    def services(self, variant: str) -> list[str]:
        """Where a variant leads; empty for the wrapped app."""
        return list(dict.fromkeys(each.service.text for each in self.targets.get(variant, ())))


def releases_of(table: RouteTable) -> list[ReleaseView]:
    """All releases of a table, in routing order."""
    governed: dict[str, list[MappingGroup]] = {}
    found: dict[str, ReleaseView] = {}
    for group in table.groups:
        if group.governed is not None:
            governed.setdefault(group.governed.release.name, []).append(group)
        elif (view := _ungoverned(group)) is not None:
            found.setdefault(view.name, view)
    named = {name: _governed(table.releases[name], groups) for name, groups in governed.items()}
    return [*named.values(), *(view for name, view in found.items() if name not in named)]


def views_of(subject: Subject) -> list[ReleaseView]:
    """All releases of the table in force. They are looked for once: among many Mappings that takes long."""
    table = subject.store.table
    return subject.remembered("releases", ref(table), lambda: releases_of(table))


def find_release(subject: Subject, name: str) -> ReleaseView | None:
    """The release of a name."""
    return next((each for each in views_of(subject) if each.name == name), None)


def match_of(view: ReleaseView) -> Match:
    """What the Mappings of a release match, of several groups those of the first one."""
    first = view.groups[0].first
    return {"host": None if first.host.kind == "any" else first.host.text, "prefix": first.prefix}


def services_of(view: ReleaseView) -> list[str]:
    """All services that a release leads to, stable first."""
    return [service for name in view.weights for service in view.services(name)]


def _governed(compiled: CompiledRelease, groups: list[MappingGroup]) -> ReleaseView:
    shares, document = compiled.effective_shares(), compiled.document
    weights = {STABLE: shares[STABLE], **{each.name: shares.get(each.name, 0.0) for each in document.variants}}
    members = [each for group in groups for each in group.members]
    targets = {each.name: tuple(m for m in members if m.name in each.mappings) for each in document.variants}
    served = [decision for group in groups if group.governed for _, decision in group.governed.shares()]
    stable = {each.mapping.name: each.mapping for each in served if each.variant == STABLE and each.mapping.name}
    return ReleaseView(
        compiled.name, compiled, tuple(groups), _rounded(weights), {STABLE: tuple(stable.values()), **targets}
    )


def _ungoverned(group: MappingGroup) -> ReleaseView | None:
    """A group that divides its requests between a stable Mapping and gray ones."""
    shares = [(size, decision) for size, decision in _sizes(group) if not group.redirect]
    stable = [decision.mapping for _, decision in shares if decision.variant == STABLE]
    gray = [(size, decision.mapping) for size, decision in shares if decision.variant != STABLE]
    if not stable or not gray:
        return None
    names = [GRAY] if len(gray) == 1 else [mapping.name for _, mapping in gray]
    total = sum(size for size, _ in shares) or 100.0
    weights = {name: size * 100 / total for name, (size, _) in zip(names, gray, strict=True)}
    targets = {name: (mapping,) for name, (_, mapping) in zip(names, gray, strict=True)}
    whole = _rounded({STABLE: 100.0 - sum(weights.values()), **weights})
    return ReleaseView(stable[0].name, None, (group,), whole, {STABLE: tuple(stable), **targets})


def _sizes(group: MappingGroup) -> Iterator[tuple[float, Decision]]:
    low = 0.0
    for bound, decision in group.shares:
        yield max(bound - low, 0.0), decision
        low = max(low, bound)


def _rounded(weights: dict[str, float]) -> dict[str, float]:
    return {name: round(percent, 6) for name, percent in weights.items()}
