"""P8: one rule changed among 10,000 in a volume: when it counts, and what the traffic feels of it."""

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic

from . import rules, servers
from .client import Seen, Traffic, get, percentile
from .compare import Options
from .processes import Failed
from .report import Section
from .servers import Server
from .volume import Volume

MAPPINGS = 10_000
LIMIT_MS, LIMIT_RATIO = 300, 3
RATE = 1_000
CALM = 2.0
AFTER = 0.2
PATIENCE = 20.0
TITLE = f"one rule changed among {MAPPINGS:,} in a ConfigMap volume, under traffic"
NOTES = f"""\
{RATE:,} requests/s at a steady rate, every other one to the prefix whose rule changes next, the rest to random ones;
latency counts from when a request was due. Time to the new rule: from the rename of `..data` to the end of the first
answer that follows it. p99 during the reload: of the requests that were due between the rename and {AFTER:g} s after
that answer; p99 without: of the {CALM:g} s before the rename."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx.
        Failed: a rule did not change.
    """
    section = Section("P8", TITLE, [NOTES])
    section.table = [("change", "new rule after ms", "p99 without ms", "p99 during ms", "slowest during ms", "errors")]
    volume = Volume(folder / "volume", MAPPINGS)
    with (
        servers.upstream(folder) as ports,
        servers.canary_mw(folder, ports, MAPPINGS, path=volume.root) as server,
    ):
        changes = asyncio.run(_changes(server, volume, 2 * options.rounds, section))
    section.at_most("time to the first request by the new rule", [each[0] for each in changes], LIMIT_MS, "ms", 0)
    ratios = [during / without for _, without, during in changes]
    section.at_most("p99 during the reload over p99 without", ratios, LIMIT_RATIO, "x")
    section.figure("p99 during the reload", [each[2] for each in changes], "ms")
    return section


async def _changes(server: Server, volume: Volume, changes: int, section: Section) -> list[tuple[float, float, float]]:
    """Milliseconds for each change: to the new rule; p99 without and during the reload."""
    found = []
    next_path = [f"{rules.prefix(0)}item"]
    async with Traffic(server.port, RATE, _requests(next_path)) as traffic:
        await asyncio.sleep(CALM)
        for number in range(changes):
            # The stable Mapping of a prefix from all over the table.
            changed = 2 * (number * 997 % (MAPPINGS // 2))
            next_path[0] = f"{rules.prefix(changed // 2)}item"
            link = await asyncio.to_thread(volume.prepare, changed, "gray")
            calm = monotonic()
            await asyncio.sleep(CALM)
            swapped = await asyncio.to_thread(volume.swap, link)
            first = await _first(traffic, get(next_path[0]))
            await asyncio.sleep(AFTER)
            seen = [each for each in traffic.seen if each.due >= calm]
            found.append(_judge(seen, swapped, first.done, section))
    return found


async def _first(traffic: Traffic, request: bytes) -> Seen:
    """The first answer by the new rule."""
    first = await traffic.until(lambda seen: seen.request == request and b'"gray"' in seen.body, PATIENCE)
    if first is None:
        raise Failed(f"{request!r} still follows the old rule {PATIENCE:g} s after the change")
    return first


def _requests(changing: list[str]) -> Iterator[bytes]:
    draw = Random(1)
    for number in count():
        path = f"{rules.prefix(draw.randrange(MAPPINGS // 2))}item" if number % 2 else changing[0]
        yield get(path)


def _judge(seen: list[Seen], swapped: float, new: float, section: Section) -> tuple[float, float, float]:
    calm = [(each.done - each.due) * 1000 for each in seen if each.due < swapped]
    during = [(each.done - each.due) * 1000 for each in seen if swapped <= each.due]
    errors = sum(each.status != 200 for each in seen)
    figures = (new - swapped) * 1000, percentile(calm, 99), percentile(during, 99)
    print("  new rule after {:.0f} ms, p99 {:.1f} ms without and {:.1f} ms during".format(*figures), flush=True)
    line = [str(len(section.table)), *(f"{figure:.1f}" for figure in (*figures, max(during))), str(errors)]
    section.table.append(line)
    return figures
