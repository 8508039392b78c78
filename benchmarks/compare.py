"""Servers under load in turn, and single calls in a loop."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .processes import Failed, Missing, cpu_seconds, in_short, resident
from .report import Section, aligned, spread
from .servers import Server
from .wrk import CONNECTIONS, load

_COLUMNS = ("server", "CPU us/request", "requests/s", "p50 ms", "p99 ms", "RSS MiB", "errors")
_WARM_UP = 1.0
_BATCHES = 7


@dataclass(frozen=True)
class Options:
    """How long to measure: rounds of so many seconds for each server."""

    rounds: int = 5
    seconds: float = 3.0


@dataclass(frozen=True)
class Target:
    """A server, and how it is loaded."""

    name: str
    server: Server
    lua: Path
    connections: int = CONNECTIONS


@dataclass(frozen=True)
class Sample:
    """One round: CPU microseconds per request, requests per second, milliseconds, MiB at the end, number of errors."""

    cpu: float
    rate: float
    p50: float
    p99: float
    resident: float
    errors: int


Samples = dict[str, list[Sample]]
Starter = AbstractContextManager[Server]


def side_by_side(section: Section, starters: Mapping[str, Starter], lua: Path, options: Options) -> Samples:
    """Start servers, load them in turn with the same requests, and put the table into the section."""
    with ExitStack() as stack:
        started = start(stack, starters, section)
        samples = in_turn([Target(name, server, lua) for name, server in started.items()], options)
    section.table = table(samples)
    return samples


def start(stack: ExitStack, starters: Mapping[str, Starter], section: Section) -> dict[str, Server]:
    """Start servers; one that is missing or fails is left out, and the section says so."""
    started = {}
    for name, starter in starters.items():
        try:
            started[name] = stack.enter_context(starter)
        except (Missing, Failed) as exc:
            print(f"  {name} is left out: {exc}", file=sys.stderr, flush=True)
            section.notes.append(f"`{name}` is left out: {in_short(exc)}")
    return started


def in_turn(targets: Sequence[Target], options: Options) -> Samples:
    """Load the servers one after the other, round by round, and print each figure as it comes."""
    for target in targets:
        load(target.server.port, target.lua, _WARM_UP, target.connections)
    samples: Samples = {target.name: [] for target in targets}
    width = max(map(len, samples), default=0)
    for number in range(options.rounds):
        for target in targets:
            sample = _measure(target, options.seconds)
            samples[target.name].append(sample)
            line = f"{sample.cpu:9,.1f} us/request {sample.rate:9,.0f} requests/s {sample.errors:3} errors"
            print(f"  {number + 1}/{options.rounds}  {target.name:{width}} {line}", flush=True)
    print(aligned(table(samples)), flush=True)
    return samples


def _measure(target: Target, seconds: float) -> Sample:
    pids = target.server.pids
    before = cpu_seconds(pids)
    seen = load(target.server.port, target.lua, seconds, target.connections)
    cpu = cpu_seconds(pids) - before
    rate = seen.requests / seen.seconds
    return Sample(cpu / seen.requests * 1e6, rate, seen.p50, seen.p99, resident(pids) / 2**20, seen.errors)


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
        f"{median(r.resident for r in rounds):.0f}",
        str(sum(r.errors for r in rounds)),
    )


def cpu_ratios(samples: Samples, above: str, below: str) -> list[float]:
    """CPU per request of one server over that of another, round by round; none where one was left out."""
    return [a.cpu / b.cpu for a, b in _pairs(samples, above, below)]


def cpu_added(samples: Samples, above: str, below: str) -> list[float]:
    """CPU microseconds per request that one server costs more than another, round by round."""
    return [a.cpu - b.cpu for a, b in _pairs(samples, above, below)]


def _pairs(samples: Samples, above: str, below: str) -> list[tuple[Sample, Sample]]:
    return list(zip(samples.get(above, ()), samples.get(below, ()), strict=False))


def best(measure: Callable[[], float]) -> float:
    """The smallest of several measurements of the same thing: the one that was disturbed least."""
    return min(measure() for _ in range(_BATCHES))
