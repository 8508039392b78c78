"""How it goes with a source of rules that is watched over a network, for the metrics and the admin port."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from dataclasses import dataclass

# Seconds, the bounds of `delays`.
DELAY_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """One kind of objects in one namespace.

    Attributes:
        namespace: "*" for all.
        synced: whether everything is known and a watch runs, or the kind is not installed.
        version: API version in use.
        objects: number of objects that hold rules.
        last_contact: seconds since the last answer of the server, None before the first one.
        cache_age: seconds since the rules in use were written into the cache, None for rules of the API.
        relists: numbers of lists after the first one, by reason.
        errors: numbers of failures, by status or name.
        error: why it is not synced.
        delays: of the source as a whole, how often it took how long from an event until its rules were in force: a
            number for each of `DELAY_BOUNDS`, and one for what took longer.
        delay_sum: the seconds of all of them.
    """

    source: str
    kind: str
    namespace: str
    synced: bool
    version: str
    objects: int
    last_contact: float | None
    cache_age: float | None
    relists: Dict[str, int]
    errors: Dict[str, int]
    error: str | None
    delays: Sequence[int] = ()
    delay_sum: float = 0.0

    def __str__(self) -> str:
        state = "synced" if self.synced else f"not synced: {self.error or 'no answer yet'}"
        contact = "never" if self.last_contact is None else f"{self.last_contact:.1f} s ago"
        cache = "" if self.cache_age is None else f" source=cache age={self.cache_age:.0f}s"
        return (
            f"{self.source} kind={self.kind} namespace={self.namespace} version={self.version}"
            f" objects={self.objects} contact={contact}{cache} {state}"
        )
