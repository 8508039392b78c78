"""Figures as a reader returns them, made by hand: requests at a steady rate, and what a test changes in them."""

from canary_mw.observability.evidence import ArmCounts, EpochKey, Evidence
from canary_mw.observability.figures.buckets import COUNT, bucket_of
from canary_mw.observability.figures.values import (
    COARSE,
    FINE,
    CounterHistory,
    Figures,
    History,
    RecentRequest,
    ReloadRecord,
    Row,
    RowKey,
    SeriesKey,
    Snapshot,
    Worker,
)

# 2026-11-27T14:06:00Z.
NOW = 1_795_788_360.0


def snapshot(requests: int, errors: int = 0, rescued: int = 0, seconds: float = 0.1) -> Snapshot:
    """Requests of equal length; errors are 503, but for those that stable answered."""
    buckets = [0] * COUNT
    buckets[bucket_of(seconds)] = requests
    failed = errors - rescued
    return Snapshot(requests, errors, rescued, (requests - failed, 0, 0, failed), tuple(buckets))


def steady(per_minute: int, errors: int = 0, rescued: int = 0, seconds: float = 0.1) -> History:
    """The last hour at a steady rate; numbers are for each minute."""

    def at(tick: float) -> Snapshot:
        minutes = (tick - NOW) / 60 + 61
        counts = [int(each * minutes) for each in (per_minute, errors, rescued)]
        return snapshot(counts[0], counts[1], counts[2], seconds)

    fine = {int(NOW) - FINE * number: at(NOW - FINE * number) for number in range(61)}
    coarse = {int(NOW) - COARSE * number: at(NOW - COARSE * number) for number in range(61)}
    return History(at(NOW), fine, coarse)


def worker(pid: int, content: str = "c1", since: float = NOW - 60, heard: float = 1.0, end: str = "") -> Worker:
    return Worker(pid, NOW - 3600, NOW - heard, 1, since, content, True, end)


def reload(pid: int, time: float, content: str, *lines: str, generation: int = 1, error: str = "") -> ReloadRecord:
    return ReloadRecord(
        time, pid, generation, content, 2, (), (), ("a",) if lines else (), (0, 0, len(lines)), lines, error
    )


def recent(time: float, path: str = "/shop/", **more: object) -> RecentRequest:
    base = RecentRequest(
        time=time,
        method="GET",
        scheme="http",
        host="shop.example",
        path=path,
        query="",
        client="127.0.0.1",
        request_id="id-1",
        release="",
        mapping="",
        service="",
        variant="",
        reason="",
        status=200,
        seconds=0.05,
        first_byte=0.04,
        fallback="",
        failed=False,
    )
    return base._replace(**more)  # type: ignore[arg-type]


def evidence(weights: str, **arms: tuple[int, int, int]) -> Evidence:
    """Evidence of one epoch; for each variant its requests, its keys, and those of them that failed."""
    counts = {
        name: ArmCounts(requests=requests, exposures=keys, first_failures=failed)
        for name, (requests, keys, failed) in arms.items()
    }
    return Evidence(1, (), {EpochKey("shop", 1, weights): counts}, NOW - 3600)


def figures(**more: object) -> Figures:
    """Two workers that have counted nothing, and what is given."""
    values = {"now": NOW, "workers": (worker(1), worker(2)), "shared": True, **more}
    return Figures(**values)  # type: ignore[arg-type]


def release_figures(
    stable: History, gray: History, found: Evidence | None = None, release: str = "shop", **more: object
) -> Figures:
    """A release with the variants "stable" and "gray"; all requests are those of it."""
    everything = steady(
        *(int((getattr(stable.now, name) + getattr(gray.now, name)) / 61) for name in ("requests", "errors", "rescued"))
    )
    histories = {
        SeriesKey(): everything,
        SeriesKey(release, "stable"): stable,
        SeriesKey(release, "gray"): gray,
    }
    rows = {
        RowKey(release, "stable", "shop-stable", "stable", True): Row(
            (0, 0, stable.now.requests, 0, 0, 0), stable.now.errors
        ),
        RowKey(release, "gray", "shop-gray", "gray", True): Row((0, 0, gray.now.requests, 0, 0, 0), gray.now.errors),
    }
    evidence_of = {} if found is None else {release: found}
    values = {"histories": histories, "rows": rows, "evidence": evidence_of, **more}
    return figures(**values)


def counted_since(before: dict[object, int]) -> CounterHistory:
    """A history in which these keys had these values five minutes ago."""
    return CounterHistory({int(NOW) - 300: before})
