"""Servers under load in turn, and single calls in a loop."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .processes import cpu_seconds
from .report import aligned, spread
from .servers import Server
from .wrk import load

_COLUMNS = ("server", "CPU us/request", "requests/s", "p50 ms", "p99 ms", "errors")
_WARM_UP = 1.0
_BATCHES = 7


@dataclass(frozen=True)
class Options:
    """How long to measure: rounds of so many seconds for each server."""

    rounds: int = 5
    seconds: float = 3.0


@dataclass(frozen=True)
class Sample:
    """One round of one server: CPU microseconds per request, requests per second, milliseconds, number of errors."""

    cpu: float
    rate: float
    p50: float
    p99: float
    errors: int


Samples = dict[str, list[Sample]]


def in_turn(servers: Sequence[Server], lua: Path, options: Options) -> Samples:
    """Load the servers one after the other, round by round, and print each figure as it comes."""
    for server in servers:
        load(server.port, lua, _WARM_UP)
    samples: Samples = {server.name: [] for server in servers}
    width = max(map(len, samples))
    for number in range(options.rounds):
        for server in servers:
            sample = _measure(server, lua, options.seconds)
            samples[server.name].append(sample)
            line = f"{sample.cpu:9,.1f} us/request {sample.rate:9,.0f} requests/s {sample.errors:3} errors"
            print(f"  {number + 1}/{options.rounds}  {server.name:{width}} {line}", flush=True)
    print(aligned(table(samples)), flush=True)
    return samples


def _measure(server: Server, lua: Path, seconds: float) -> Sample:
    before = cpu_seconds(server.pid)
    seen = load(server.port, lua, seconds)
    cpu = cpu_seconds(server.pid) - before
    return Sample(cpu / seen.requests * 1e6, seen.requests / seen.seconds, seen.p50, seen.p99, seen.errors)


def table(samples: Samples) -> list[Sequence[str]]:
    """Medians and spread, for the terminal and for the report."""
    return [_COLUMNS, *(_line(name, rounds) for name, rounds in samples.items())]


def _line(name: str, rounds: Sequence[Sample]) -> Sequence[str]:
    return (
        name,
        spread([r.cpu for r in rounds]),
        spread([r.rate for r in rounds], 0),
        f"{median(r.p50 for r in rounds):.2f}",
        f"{median(r.p99 for r in rounds):.2f}",
        str(sum(r.errors for r in rounds)),
    )


def cpu_ratios(samples: Samples, above: str, below: str) -> list[float]:
    """CPU per request of one server over that of another, round by round."""
    return [a.cpu / b.cpu for a, b in zip(samples[above], samples[below], strict=True)]


def cpu_added(samples: Samples, above: str, below: str) -> list[float]:
    """CPU microseconds per request that one server costs more than another, round by round."""
    return [a.cpu - b.cpu for a, b in zip(samples[above], samples[below], strict=True)]


def best(measure: Callable[[], float]) -> float:
    """The smallest of several measurements of the same thing: the one that was disturbed least."""
    return min(measure() for _ in range(_BATCHES))
