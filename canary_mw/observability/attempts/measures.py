"""What is counted of drawn requests beside their number: whether they fail, are slow, bring an event or a value."""

from collections.abc import Iterator
from typing import NamedTuple

from canary_mw.observability.attempts.layout import SCALE, TIMES, VALUE
from canary_mw.rules.plan import NO_ALLOWANCE, Allowance, Analysis, MetricKind, MetricRule

# Names of measures, and how they begin.
ERRORS = "error_rate"
EVENT = "event "
SLOWER = "slower than "


class Measure(NamedTuple):
    """Something that happens to a request, or does not.

    Attributes:
        name: under which it is counted. It changes with what is counted, so that nothing else is added to it.
        event: the name of the event, or of the value; "" for others.
        limit: seconds above which an answer is slow, or where values begin that count; None where `quantile` says it,
            and for other kinds.
        quantile: of the first answers or values, in (0, 1).
        allow: what is taken off the times of gray.
        less_is_worse: whether a value that is the limit counts as one above it: else nothing would be seen of values
            that are all the same, and then all less.
    """

    name: str
    kind: MetricKind
    event: str = ""
    limit: float | None = None
    quantile: float = 0.0
    allow: Allowance = NO_ALLOWANCE
    less_is_worse: bool = False

    @property
    def times(self) -> str:
        """The name of the first answers or values that the limit is found by: all with one allowance share them."""
        if self.kind == "value":
            return VALUE + self.event
        return f"{self.allow.seconds:g}s {self.allow.ratio:g}"

    def limit_of(self, *, gray: bool) -> float:
        """The seconds above which an answer of this variant is slow, given the limit."""
        assert self.limit is not None
        return self.limit * (1 + self.allow.ratio) + self.allow.seconds if gray else self.limit

    @property
    def least(self) -> int:
        """The thousandths from which on a value counts, given the limit; an event counts with any."""
        if self.kind != "value":
            return 0
        assert self.limit is not None
        return round(self.limit * SCALE) + (not self.less_is_worse)


DEFAULT = (
    Measure(ERRORS, "error_rate"),
    Measure("p95", "latency", quantile=0.95),
    Measure("p99", "latency", quantile=0.99),
)


def measures_of(analysis: Analysis | None) -> tuple[Measure, ...]:
    """What an analysis asks for; without one, what every release shows."""
    if analysis is None:
        return DEFAULT
    found = {each.name: each for rule in analysis.metrics for each in measures_of_metric(rule)}
    return tuple(found.values())


def measures_of_metric(rule: MetricRule) -> tuple[Measure, ...]:
    """What one metric asks for."""
    if rule.kind == "event":
        return (Measure(EVENT + rule.name, "event", rule.name),)
    if rule.kind == "error_rate":
        return (Measure(ERRORS, "error_rate"),)
    if rule.kind == "value":
        return tuple(_value_measures(rule))
    if rule.threshold is not None:
        name = f"{SLOWER}{rule.threshold!r}{_suffix(rule.allow)}"
        return (Measure(name, "latency", limit=rule.threshold, allow=rule.allow),)
    return tuple(
        Measure(f"p{100 * each:g}{_suffix(rule.allow)}", "latency", quantile=each, allow=rule.allow)
        for each in rule.quantiles
    )


def _value_measures(rule: MetricRule) -> Iterator[Measure]:
    less = rule.direction == "decrease"
    name = f"{VALUE}{rule.name} {'from' if less else 'above'} "
    if rule.threshold is not None:
        yield Measure(f"{name}{rule.threshold!r}", "value", rule.name, limit=rule.threshold, less_is_worse=less)
        return
    for each in rule.quantiles:
        yield Measure(f"{name}p{100 * each:g}", "value", rule.name, quantile=each, less_is_worse=less)


def _suffix(allow: Allowance) -> str:
    return "" if allow == NO_ALLOWANCE else f" less {allow.seconds:g}s {allow.ratio:g}"


class FirstTimes:
    """The times of the first answers of an attempt in this worker, from which a limit will follow.

    Args:
        cells: see `layout.times`; None where there is no room.
        allow: what is taken off.

    Attributes:
        full: whether there are enough.
    """

    __slots__ = ("_allow", "_head", "_values", "full")

    def __init__(self, cells: memoryview | None, allow: Allowance) -> None:
        self.full = cells is None
        self._allow = allow
        self._head = cells[:8].cast("Q") if cells is not None else None
        self._values = cells[8:].cast("I") if cells is not None else None

    def add(self, seconds: float) -> None:
        """Keep a time, unless there are enough."""
        head, values = self._head, self._values
        if head is None or values is None or (count := head[0]) >= TIMES:
            self.full = True
        else:
            values[count] = min(int(self._allow.taken_off(seconds) * 1e6), 0xFFFFFFFF)
            head[0] = count + 1


class FirstValues:
    """The first values that an app has recorded in this worker, from which a limit will follow.

    Args:
        cells: see `layout.values`.
        gray: whether they are those of a gray variant.
    """

    __slots__ = ("_cells", "_gray", "_whole")

    def __init__(self, cells: memoryview, *, gray: bool) -> None:
        self._cells = cells.cast("Q")
        self._gray = int(gray)
        self._whole = False

    def add(self, thousandths: int) -> None:
        """Keep a value if there are not enough, or none of its side."""
        count, number = self._cells[0], thousandths << 1 | self._gray
        if count < TIMES:
            self._cells[1 + count] = number
            self._cells[0] = count + 1
        elif not self._whole:
            if all(each & 1 != self._gray for each in self._cells[1:]):
                self._cells[TIMES] = number
            self._whole = True
