"""How often rules took requests, and when they last did."""

from collections.abc import Collection, Iterable

from canary_mw.observability.figures.values import COARSE, FINE, Figures, RowKey, SeriesKey, counters_in

# The window of the page of rules, in seconds.
WINDOW = 300.0


class Hits:
    """The requests of Mappings; nothing is known of them where nobody counts."""

    def __init__(self, figures: Figures) -> None:
        self._counted = bool(figures.workers)
        self._recent = _by_mapping(counters_in(figures, WINDOW)[1].items())
        self._ever = _by_mapping((key, row.requests) for key, row in figures.rows.items())
        self._last = _last_hits(figures)

    def recent(self, mappings: Collection[str]) -> int | None:
        """Requests of some Mappings in the last 5 minutes."""
        return sum(self._recent.get(each, 0) for each in mappings) if self._counted else None

    def ever(self, mappings: Collection[str]) -> int | None:
        """Requests of some Mappings since the start."""
        return sum(self._ever.get(each, 0) for each in mappings) if self._counted else None

    def last(self, mappings: Collection[str]) -> float:
        """When one of some Mappings took its last request, in seconds since 1970; 0 where that is not known."""
        return max((self._last.get(each, 0.0) for each in mappings), default=0.0)


def _by_mapping(counts: Iterable[tuple[object, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, count in counts:
        if isinstance(key, RowKey) and key.mapping:
            found[key.mapping] = found.get(key.mapping, 0) + count
    return found


def _last_hits(figures: Figures) -> dict[str, float]:
    """By Mapping: from the sample of requests, and from the slot of the history after which its count grew."""
    found: dict[str, float] = {}
    slots = figures.counter_history.slots
    for tick in sorted(slots):
        for key, row in figures.rows.items():
            if key.mapping and row.requests > slots[tick].get(key, 0):
                found[key.mapping] = max(found.get(key.mapping, 0.0), min(tick + FINE, figures.now))
    for each in figures.recent:
        if each.mapping:
            found[each.mapping] = max(found.get(each.mapping, 0.0), each.time)
    return found


def last_request(figures: Figures, release: str, variant: str) -> float:
    """When a variant got its last drawn request, in seconds since 1970; 0 where that is not known."""
    history = figures.histories.get(SeriesKey(release, variant))
    found = [each.time for each in figures.recent if (each.release, each.variant) == (release, variant)]
    if history is not None:
        for slots, step in ((history.fine, FINE), (history.coarse, COARSE)):
            before = [tick for tick in slots if slots[tick].requests < history.now.requests]
            if before:
                found.append(min(max(before) + step, figures.now))
                break
    return max(found, default=0.0)
