"""What is decided for a request, as a value."""

from dataclasses import dataclass
from typing import Any, cast

from canary_mw.routing.assignment import Assigned
from canary_mw.rules.mapping import Mapping, Variant


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
    """

    mapping: Mapping
    group: str
    variant: Variant
    local: bool
    shadow: Mapping | None = None
    middleware: bool = False
    sent: bool = False
    release: Assigned | None = None

    def with_release(self, release: Assigned) -> "Decision":
        """The decision for one request of a group that a release governs."""
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
