"""What is decided for a request, as a value."""

from dataclasses import dataclass, replace
from typing import Any, cast

from canary_mw.http.lanes import Lane
from canary_mw.routing.assignment import Assigned
from canary_mw.rules.epoch import epoch_of_group
from canary_mw.rules.mapping import Mapping, Variant
from canary_mw.rules.release import STABLE


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a group decides for a request; made when the table is built, shared by all requests that get it.

    Attributes:
        group: the name of the group, not the group: that would be a reference cycle.
        local: the service is the local one, so the wrapped app answers.
        shadow: the Mapping that gets a copy of the request, if the group has one.
        middleware: the table is that of a middleware. It leaves alone what the wrapped app could do: upgrades need not
            be allowed, and the default of `timeout_ms` ends at the response head.
        sent: another canary-mw has decided and sent the request here. It was not drawn here and counts in no figures of
            a release: those of the sender have it.
        release: what the release of the group has decided, None without one.
        split: what figures take the draw of a group without a release for: that of a release under the name of its
            stable Mapping. None where the group has no gray Mapping beside a stable one.
        lane: how the release of the group tells of its decision.
    """

    mapping: Mapping
    group: str
    variant: Variant
    local: bool
    shadow: Mapping | None = None
    middleware: bool = False
    sent: bool = False
    release: Assigned | None = None
    split: Assigned | None = None
    lane: Lane | None = None

    def with_release(self, release: Assigned, lane: Lane | None = None) -> "Decision":
        """The decision for one request of a group that a release governs.

        Args:
            lane: of a release that governs another group.
        """
        # Without `__init__`, whose frozen fields cost a call each: this runs for every request.
        new: Any = ReleaseDecision.__new__(ReleaseDecision)
        new.mapping = self.mapping
        new.group = self.group
        new.variant = self.variant
        new.local = self.local
        new.shadow = self.shadow
        new.middleware = self.middleware
        new.sent = self.sent
        new.release = release
        new.split = None
        new.lane = lane or self.lane
        return cast(Decision, new)

    def allows_upgrade(self, protocol: str) -> bool:
        """Whether a request may be upgraded to a protocol, by its name in lower case."""
        upgrades = self.mapping.upgrades
        return self.middleware if upgrades is None else protocol in upgrades


class ReleaseDecision(Decision):
    """A decision of a release; those of one Mapping and variant count as one, though each request has its own."""

    __slots__ = ()

    # An object of its own for each request need not be frozen. Both names, so that none is called in Python.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReleaseDecision) and self._shared == other._shared

    def __hash__(self) -> int:
        return hash(self._shared)

    @property
    def _shared(self) -> tuple[object, ...]:
        return id(self.mapping), self.group, self.variant, self.sent, id(self.shadow), self.release and self.release[:3]


def with_splits(shares: list[tuple[float, Decision]]) -> list[Decision]:
    """The decisions of the shares of a group, each with its `Decision.split`.

    Args:
        shares: the upper bounds of their rolls, and the decisions.
    """
    total = max((bound for bound, _ in shares), default=0.0) or 100.0
    stable = [decision.mapping for _, decision in shares if decision.variant == STABLE]
    gray, low = [], 0.0
    for bound, decision in shares:
        if decision.variant != STABLE:
            gray.append((decision.mapping.name, decision.mapping, max(bound - low, 0.0) * 100.0 / total))
        low = max(low, bound)
    if not stable or not gray:
        return [decision for _, decision in shares]
    if len(gray) == 1:
        gray = [("gray", *gray[0][1:])]
    names = {mapping.name: name for name, mapping, _ in gray}
    drawn = Assigned(stable[0].name, STABLE, "weight", epoch=epoch_of_group(stable, gray))
    return [replace(each, split=drawn._replace(variant=names.get(each.mapping.name, STABLE))) for _, each in shares]
