"""Counts the drawn requests of a variant in an epoch, and what happens to them."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from math import inf
from secrets import randbits
from sys import maxsize

from canary_mw.http.messages import RequestHead
from canary_mw.observability.attempts.keys import ClientAddresses, KeyLog, network_of
from canary_mw.observability.attempts.layout import Arm, Count
from canary_mw.observability.attempts.measures import FirstTimes, FirstValues, Measure

# Members of enumerations take their time to look up.
_KEYLESS = int(Arm.KEYLESS)
_BAD, _REPEATS, _STEP_REPEATS = int(Count.BAD), int(Count.REPEATS), int(Count.STEP_REPEATS)


class MeasureCounter:
    """Counts what happens to the requests of an arm.

    Args:
        cells: see `Count`.
        log: the keys to which it has happened in the attempt.
        number, step: of the arm.
        keyless: whether a request that is a key of its own is kept as a key, too.

    Attributes:
        fails: whether it is that requests fail.
        limit: seconds above which an answer is slow; infinite where it is not known, and for other kinds.
        least: thousandths from which on a recorded value counts; more than any where it is not known.
    """

    __slots__ = ("_cells", "_keyless", "_number", "_step", "fails", "least", "limit", "log", "measure")

    def __init__(
        self, measure: Measure, cells: memoryview, log: KeyLog, number: int, step: int, *, keyless: bool
    ) -> None:
        self.measure = measure
        self.fails = measure.kind == "error_rate"
        self.limit = inf
        self.least = 0 if measure.kind == "event" else maxsize
        self.log = log
        self._cells = cells
        self._number = number
        self._step = step
        self._keyless = keyless

    def count(self, digest: int | None, network: int, *, happened: bool) -> None:
        """Count a request of a key, None for one that is its own key."""
        cells, known = self._cells, self.log.known
        if happened:
            cells[_BAD] += 1
        if digest is None:
            if happened:
                self._count_keyless(network)
        elif steps := known.get(digest):
            cells[_REPEATS] += 1
            if steps >> self._step & 1:
                cells[_STEP_REPEATS] += 1
            elif happened:
                self.log.add(digest, self._number, self._step, network)
        elif happened:
            self.log.add(digest, self._number, self._step, network)

    def _count_keyless(self, network: int) -> None:
        if self._keyless:
            self.log.add(randbits(64), self._number, self._step, network)
        else:
            self._cells[Count.KEYLESS] += 1

    def record(self, digest: int | None, network: int) -> None:
        """Count an event of a request that is under way, and is counted when it ends."""
        cells = self._cells
        cells[Count.BAD] += 1
        if digest is None:
            self._count_keyless(network)
            return
        steps = self.log.known.get(digest, 0)
        if not steps >> self._step & 1:
            cells[Count.STEP_FIRST] += 1
            if not steps:
                cells[Count.FIRST] += 1
            self.log.add(digest, self._number, self._step, network)

    def repeat(self, digest: int) -> None:
        """Count a request of a key that is counted elsewhere: if it has happened to that key, it is no exposure."""
        if steps := self.log.known.get(digest):
            self._cells[_REPEATS] += 1
            if steps >> self._step & 1:
                self._cells[_STEP_REPEATS] += 1

    def set_limit(self, measure: Measure, *, gray: bool) -> None:
        """Judge by the limit of a measure."""
        if measure.kind == "value":
            self.least = measure.least
        else:
            self.limit = measure.limit_of(gray=gray)

    def judge(self, requests: int) -> None:
        """Judge requests from now on, unless that has begun.

        Args:
            requests: that the arm has had.
        """
        if not self._cells[Count.BEGUN]:
            self._cells[Count.UNJUDGED] = requests
            self._cells[Count.BEGUN] = 1


class GrayKeys:
    """The first keys that came to a variant in a step.

    Args:
        cells: see `layout.gray_keys`.
    """

    __slots__ = ("_cells", "_known")

    def __init__(self, cells: memoryview) -> None:
        self._cells = cells.cast("Q")
        self._known = set(self._cells[1 : 1 + self._cells[0]])

    @property
    def full(self) -> bool:
        """Whether there are enough."""
        return self._cells[0] >= len(self._cells) - 1

    def add(self, digest: int) -> None:
        """Keep a key."""
        if digest not in self._known and not self.full:
            self._known.add(digest)
            self._cells[1 + self._cells[0]] = digest
            self._cells[0] += 1


class ArmCounter:
    """Counts the drawn requests of a variant in an epoch; call it with the lock of the figures held.

    Args:
        cells: see `layout.Arm`.
        counters: of all measures.
        touched: the keys that these know.
        gray: whether it is a gray variant.
        seen: the keys that came at all; None without analysis.
        first_keys: of the step, None where they are not kept.
        first_times, first_values: those from which limits will follow; values by their names.
    """

    __slots__ = (
        "_cells",
        "_counters",
        "_first_keys",
        "_first_times",
        "_first_values",
        "_gray",
        "_least",
        "_number",
        "_seen",
        "_touched",
    )

    def __init__(
        self,
        cells: memoryview,
        counters: Sequence[MeasureCounter],
        touched: set[int],
        *,
        gray: bool,
        seen: KeyLog | None = None,
        first_keys: GrayKeys | None = None,
        first_times: Sequence[FirstTimes] = (),
        first_values: Dict[str, FirstValues] | None = None,
    ) -> None:
        self._cells = cells
        self._number = cells[Arm.NUMBER]
        self._counters = counters
        self._gray = gray
        self._seen = seen
        self._first_keys = first_keys
        self._first_times = first_times
        self._first_values = first_values or {}
        self._touched = touched
        self.set_limits({})

    def set_limits(self, limits: Dict[str, float]) -> None:
        """Judge answers by these limits, by the name of the measure, and by those that measures have of themselves."""
        for each in self._counters:
            measure = each.measure
            if measure.limit is None and measure.name in limits:
                measure = measure._replace(limit=limits[measure.name])
            if measure.limit is not None:
                each.set_limit(measure, gray=self._gray)
            if measure.limit is not None or measure.kind in ("error_rate", "event"):
                each.judge(self._cells[Arm.REQUESTS])
        self._least = min((each.limit for each in self._counters), default=inf)

    def add(
        self,
        digest: int | None,
        first_byte: float,
        head: RequestHead | None,
        addresses: ClientAddresses | None,
        *,
        failed: bool,
    ) -> None:
        """Count a request.

        Args:
            digest: of its key, None for a request that is its own key.
            first_byte: seconds up to the head of its answer, or to its end without one.
            addresses: knows its client.
        """
        self._cells[0] += 1
        seen = self._seen
        if seen is not None:
            if digest is None:
                self._cells[_KEYLESS] += 1
            elif digest not in seen.known and not digest & seen.mask:
                seen.add(digest, self._number, 0)
            if self._first_keys is not None and digest is not None:
                self._add_first_key(digest)
        happened = failed or first_byte > self._least
        if happened or digest in self._touched:
            network = network_of(address_of(head, addresses)) if happened else 0
            for each in self._counters:
                each.count(digest, network, happened=failed if each.fails else first_byte > each.limit)
        if self._first_times:
            self._add_times(first_byte)

    def _add_first_key(self, digest: int) -> None:
        assert self._first_keys is not None
        self._first_keys.add(digest)
        if self._first_keys.full:
            self._first_keys = None

    def _add_times(self, first_byte: float) -> None:
        for each in self._first_times:
            each.add(first_byte)
            if each.full:
                self._first_times = [other for other in self._first_times if not other.full]

    @property
    def recorded(self) -> "SentArmCounter":
        """Counts the requests that another process has drawn, and counts, and whose app runs here."""
        return SentArmCounter([each for each in self._counters if each.measure.event])

    def record(self, digest: int | None, event: str, client: str | None, thousandths: int) -> None:
        """Count an event, or a value, of a request that is under way."""
        for each in self._counters:
            if each.measure.event == event and thousandths >= each.least:
                each.record(digest, network_of(client))
        if event in self._first_values:
            self._first_values[event].add(thousandths)


class SentArmCounter:
    """As `ArmCounter`, of requests that another process counts: what their app records is known here alone."""

    __slots__ = ("_counters",)

    def __init__(self, counters: Sequence[MeasureCounter]) -> None:
        self._counters = counters

    def add(
        self,
        digest: int | None,
        first_byte: float,
        head: RequestHead | None,
        addresses: ClientAddresses | None,
        *,
        failed: bool,
    ) -> None:
        """Count a request that has ended."""
        for each in self._counters:
            if digest is not None:
                each.repeat(digest)


def address_of(head: RequestHead | None, addresses: ClientAddresses | None) -> str | None:
    """The address of the client of a request."""
    if head is None or addresses is None:
        return None if head is None else head.client
    return addresses.address_of(head)
