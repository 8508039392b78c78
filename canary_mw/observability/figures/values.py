"""What is known of the requests of a pod: the values that a reader of figures returns."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from canary_mw.observability.evidence import Evidence
from canary_mw.observability.figures.buckets import COUNT

# The labels of what is beyond the bound on rows.
OTHER = "(other)"
CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
FALLBACK_RESULTS = ("ok", "failed", "denied", "refused")
FAILURE_KINDS = ("connect", "timeout", "reset", "overload", "500", "502", "503", "504", "other")
# Seconds between two slots of the two histories of a release.
FINE, COARSE = 5, 60


class RowKey(NamedTuple):
    """What a row counts.

    Attributes:
        release: a GrayRelease, or the stable Mapping of a group with a gray one that no release governs; else "".
        mapping, service: "" where the wrapped app answers without a Mapping.
        variant: "stable", or the name of the variant. Of a group without a release "gray", or the names of its gray
            Mappings where it has several.
        drawn: the variant was drawn for the request. Testers and lanes are not.
    """

    release: str = ""
    mapping: str = ""
    service: str = ""
    variant: str = ""
    drawn: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """The requests of a row since the pod started.

    Attributes:
        classes: requests by `CLASSES` of their status.
        errors: those that failed: a 5xx, or a failure after all attempts. A failure that stable stepped in for is one.
        seconds: from the request head to the end of the answer, in sum.
        first_byte_seconds: from the request head to the head of the answer, in sum.
        bytes_in, bytes_out: of bodies; those of requests to upstreams whose length is known, and of all answers.
        retries: attempts beyond the first.
        fallbacks: by `FALLBACK_RESULTS`.
        failures: by `FAILURE_KINDS`.
        buckets: requests by their seconds; see `buckets`.
    """

    classes: tuple[int, ...] = (0,) * len(CLASSES)
    errors: int = 0
    seconds: float = 0.0
    first_byte_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    retries: int = 0
    fallbacks: tuple[int, ...] = (0,) * len(FALLBACK_RESULTS)
    failures: tuple[int, ...] = (0,) * len(FAILURE_KINDS)
    buckets: tuple[int, ...] = (0,) * COUNT

    @property
    def requests(self) -> int:
        """All requests."""
        return sum(self.classes)


class SeriesKey(NamedTuple):
    """The drawn requests of one variant of a release; two empty texts for all requests of the pod."""

    release: str = ""
    variant: str = ""


class Snapshot(NamedTuple):
    """Requests of a series up to a moment.

    Attributes:
        errors: as in `Row`.
        rescued: those among them that stable answered.
        classes: 2xx, 3xx, 4xx and 5xx.
    """

    requests: int = 0
    errors: int = 0
    rescued: int = 0
    classes: tuple[int, int, int, int] = (0, 0, 0, 0)
    buckets: tuple[int, ...] = (0,) * COUNT

    def minus(self, earlier: "Snapshot") -> "Snapshot":
        """What came after an earlier snapshot."""
        classes = tuple(a - b for a, b in zip(self.classes, earlier.classes, strict=True))
        buckets = tuple(a - b for a, b in zip(self.buckets, earlier.buckets, strict=True))
        requests, errors = self.requests - earlier.requests, self.errors - earlier.errors
        two, three, four, five = classes
        return Snapshot(requests, errors, self.rescued - earlier.rescued, (two, three, four, five), buckets)


_NOTHING = Snapshot()


class Window(NamedTuple):
    """What came in the last seconds.

    Attributes:
        seconds: the true length, which is not exactly the one that was asked for: histories have slots, and may be
            younger.
    """

    seconds: float
    counts: Snapshot


@dataclass(frozen=True, slots=True)
class History:
    """The past of a series.

    Attributes:
        now: all requests up to now.
        fine, coarse: cumulative, by their time in seconds since 1970: the last 5 minutes in steps of `FINE`, the last
            hour in steps of `COARSE`. Without a slot before a moment nothing is known of the time before it.
    """

    now: Snapshot = _NOTHING
    fine: Dict[int, Snapshot] = field(default_factory=dict)
    coarse: Dict[int, Snapshot] = field(default_factory=dict)


def window_of(history: History, now: float, seconds: float) -> Window:
    """What came in the last `seconds` before `now`: the present minus the slot that is nearest to their beginning."""
    slots = history.fine if seconds <= FINE * 60 else {**history.coarse, **history.fine}
    if not slots:
        return Window(0.0, _NOTHING)
    begin = min(slots, key=lambda tick: (abs(tick - (now - seconds)), tick))
    return Window(max(now - begin, 0.0), history.now.minus(slots[begin]))


class CounterHistory(NamedTuple):
    """Counters and the requests of rows in the last 5 minutes.

    Attributes:
        slots: the values of both at a time in seconds since 1970; what is not named was 0.
    """

    slots: Dict[int, Dict[Any, int]] = {}


_NO_HISTORY = CounterHistory()


class ReasonKey(NamedTuple):
    """Why a release put requests on a variant."""

    release: str
    variant: str
    reason: str


class RecentRequest(NamedTuple):
    """A request of a sample: at most 20 a second of each worker, and 50 that failed.

    Attributes:
        time: its end, in seconds since 1970.
        query: without the values, unless a rule looks at them.
        status: None where the client left before there was one.
        reason: why the variant was chosen, as "sticky"; "" where nothing was chosen.
        fallback: how gray failed where stable was asked, else "".
        failed: as `Row.errors`.
    """

    time: float
    method: str
    scheme: str
    host: str
    path: str
    query: str
    client: str
    request_id: str
    release: str
    mapping: str
    service: str
    variant: str
    reason: str
    status: int | None
    seconds: float
    first_byte: float | None
    fallback: str
    failed: bool
    pid: int = 0


class ReloadRecord(NamedTuple):
    """Rules that a worker has read.

    Attributes:
        time: in seconds since 1970.
        content: the same for the same rules in all workers.
        mappings: how many are in force.
        added, removed, changed: names, at most 20 of each.
        counts: how many were added, removed and changed.
        lines: the difference in words, as the log has it.
        error: why they are not wholly in force, or "".
    """

    time: float
    pid: int
    generation: int
    content: str
    mappings: int
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    counts: tuple[int, int, int]
    lines: tuple[str, ...]
    error: str


class Worker(NamedTuple):
    """A process that counts, or has counted.

    Attributes:
        start, heartbeat: seconds since 1970. A heartbeat is due every 5 seconds.
        generation: number of the rules in force, as this worker counts them, and `since` when they are.
        content: as in `ReloadRecord`.
        clean: the newest rules are wholly in force.
        end: "" for one that runs, else "stopped" or "killed".
    """

    pid: int
    start: float
    heartbeat: float
    generation: int
    since: float
    content: str
    clean: bool
    end: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the workers of a pod have counted.

    Attributes:
        now: seconds since 1970.
        rows: since the pod started, workers that ended included.
        counters: other counts by name and labels, as `("upstream_errors", service, reason)`.
        gauges: of the workers that run, in sum: "in_flight".
        upstream_gauges: the same by name and service, as `("upstream_connections", service)`; they are up to 5 seconds
            old.
        histories: by series.
        workers: those that run; `ended` those of the past, the newest first.
        recent: requests, and `reloads`, the newest first.
        evidence: by release.
        shared: whether the files of other workers were looked for. Without a folder these are figures of one process.
        skipped: files that were not read, with the reason.
    """

    now: float = 0.0
    rows: Dict[RowKey, Row] = field(default_factory=dict)
    counters: Dict[tuple[str, ...], int] = field(default_factory=dict)
    gauges: Dict[str, int] = field(default_factory=dict)
    upstream_gauges: Dict[tuple[str, ...], int] = field(default_factory=dict)
    histories: Dict[SeriesKey, History] = field(default_factory=dict)
    counter_history: CounterHistory = _NO_HISTORY
    workers: tuple[Worker, ...] = ()
    ended: tuple[Worker, ...] = ()
    recent: tuple[RecentRequest, ...] = ()
    reloads: tuple[ReloadRecord, ...] = ()
    evidence: Dict[str, Evidence] = field(default_factory=dict)
    shared: bool = False
    skipped: tuple[str, ...] = ()

    @property
    def reasons(self) -> dict[ReasonKey, int]:
        """Requests by why their release put them where they went."""
        return {ReasonKey(*key[1:]): count for key, count in self.counters.items() if key[0] == "assignments"}


def counters_in(figures: Figures, seconds: float) -> tuple[float, dict[Any, int]]:
    """The true length of a window of at most 5 minutes, and what counters and rows (their requests) gained in it.

    Keys are those of `Figures.counters` and `Figures.rows`.
    """
    present: dict[Any, int] = {**figures.counters, **{key: row.requests for key, row in figures.rows.items()}}
    slots = figures.counter_history.slots
    if not slots:
        return 0.0, {}
    begin = min(slots, key=lambda tick: (abs(tick - (figures.now - seconds)), tick))
    before = slots[begin]
    gained = {key: count - before.get(key, 0) for key, count in present.items()}
    return max(figures.now - begin, 0.0), {key: count for key, count in gained.items() if count}
