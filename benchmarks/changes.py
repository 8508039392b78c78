"""CHANGES: rules of Services that change in the API of a cluster: when it counts, and what traffic feels of it."""

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic

from . import servers
from .client import Traffic, get, percentile
from .compare import Options
from .processes import Failed
from .report import Section
from .rules import SERVICES as VERSIONS
from .watches import SERVICES, Api, address_of, serving

RATE = 200
CALM, SECONDS, CHANGES = 5.0, 20.0, 50
PATIENCE = 20.0
LIMIT_MS, LIMIT_RATIO, LIMIT_LAST = 100, 1.2, 1_000
TITLE = f"{SERVICES:,} rules from the API of a cluster that change, under traffic"
NOTES = f"""\
{RATE:,} requests/s at a steady rate, every other one to the prefix whose rule changes next, the rest to random ones;
latency counts from when a request was due. The API is a stub on this machine, with a watch that has each change as one
event. Time to the new rule: from the event to the end of the first answer that follows it. Then {CHANGES} changes/s for
{SECONDS:g} s: p99 of the requests that were due meanwhile, over that of the {CALM:g} s before. Last change in force:
from its event to the end of the first answer that follows it."""


class Cluster:
    """The API, told of changes from another loop."""

    def __init__(self, api: Api, loop: asyncio.AbstractEventLoop) -> None:
        self._api, self._loop = api, loop
        self._version = [0] * SERVICES

    def change(self, number: int) -> str:
        """Let the rule of a Service lead to the other version; returns which one that is."""
        self._version[number] ^= 1
        version = VERSIONS[self._version[number]]
        self._loop.call_soon_threadsafe(self._api.change, number, rule(number, version))
        return version


def rule(number: int, version: str = VERSIONS[0]) -> str:
    """The annotation of a Service."""
    head = f"---\napiVersion: getambassador.io/v2\nkind: Mapping\nname: m{number}\nprefix: /m{number}/\n"
    return f"{head}service: {version}\nnamespace: default\n"


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx.
        Failed: a rule did not change.
    """
    section = Section("CHANGES", TITLE, [NOTES])
    with serving(Api([rule(number) for number in range(SERVICES)])) as (api, loop), servers.upstream(folder) as ports:
        address = address_of(api, folder)
        with servers.canary_mw(folder, ports, 0, path=address, checked=False) as server:
            asyncio.run(_measure(section, server.port, Cluster(api, loop), 5 * options.rounds))
    return section


async def _measure(section: Section, port: int, cluster: Cluster, single: int) -> None:
    next_path = ["/m0/item"]
    async with Traffic(port, RATE, _requests(next_path)) as traffic:
        await _first(traffic, next_path[0], VERSIONS[0])
        times = [await _one_change(traffic, cluster, next_path, number) for number in range(single)]
        section.at_most("time to the first request by the new rule, p50", [percentile(times, 50)], LIMIT_MS, "ms", 0)
        section.at_most("time to the first request by the new rule, p95", [percentile(times, 95)], LIMIT_MS, "ms", 0)
        calm = monotonic()
        await asyncio.sleep(CALM)
        begin = monotonic()
        last = await _many_changes(traffic, cluster, next_path)
    seen = [(each.due, (each.done - each.due) * 1000) for each in traffic.seen if calm <= each.due < begin + SECONDS]
    before = percentile([latency for due, latency in seen if due < begin], 99)
    during = percentile([latency for due, latency in seen if due >= begin], 99)
    errors = sum(each.status != 200 for each in traffic.seen if each.due >= calm)
    section.table = [("changes/s", "p99 ms", "last change in force after ms", "errors")]
    section.table += [("0", f"{before:.1f}", "", ""), (str(CHANGES), f"{during:.1f}", f"{last:.0f}", str(errors))]
    section.at_most(f"last of {CHANGES * SECONDS:,.0f} changes in force", [last], LIMIT_LAST, "ms", 0)
    section.at_most(f"p99 at {CHANGES} changes/s over p99 without", [during / before], LIMIT_RATIO, "x", 2)


async def _one_change(traffic: Traffic, cluster: Cluster, next_path: list[str], number: int) -> float:
    """Milliseconds until it counts."""
    changed = number * 97 % SERVICES
    next_path[0] = f"/m{changed}/item"
    await asyncio.sleep(1.0)
    began = monotonic()
    version = cluster.change(changed)
    return (await _first(traffic, next_path[0], version) - began) * 1000


async def _many_changes(traffic: Traffic, cluster: Cluster, next_path: list[str]) -> float:
    """Milliseconds until the last one counts."""
    draw, due = Random(2), monotonic()
    for _ in range(int(CHANGES * SECONDS)):
        due += 1 / CHANGES
        await asyncio.sleep(max(0.0, due - monotonic()))
        cluster.change(draw.randrange(1, SERVICES))
    next_path[0] = "/m0/item"
    began = monotonic()
    return (await _first(traffic, next_path[0], cluster.change(0)) - began) * 1000


async def _first(traffic: Traffic, path: str, version: str) -> float:
    """When the first answer came that is of a version."""
    request, word = get(path), f'"{version}"'.encode()
    found = await traffic.until(lambda seen: seen.request == request and word in seen.body, PATIENCE)
    if found is None:
        raise Failed(f"{path} still follows the old rule {PATIENCE:g} s after the change")
    return found.done


def _requests(changing: list[str]) -> Iterator[bytes]:
    draw = Random(1)
    for number in count():
        yield get(f"/m{draw.randrange(SERVICES)}/item" if number % 2 else changing[0])
