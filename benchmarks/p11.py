"""P11: 2,000 idle keep-alive clients during traffic at a steady rate: what they cost, and whether all is well."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from . import peers, rules, servers
from .client import Connection, Traffic, get, percentile
from .compare import Options, Starter, start
from .processes import Failed, resident
from .report import Section, aligned
from .servers import Server

CLIENTS = 2_000
RATE = 500
MAPPINGS = 10
LIMIT_KIB = 20
TITLE = f"{CLIENTS:,} idle keep-alive clients and {RATE} requests/s"
NOTES = f"""\
{CLIENTS:,} clients connect, send one request each and stay; then {RATE} requests/s come over other connections; at the
end each of the {CLIENTS:,} asks again on its connection, unless the server has closed it meanwhile, as it may do with
an idle one. Memory per client: what the process grew by until all had their first answer. Errors: requests without a
good answer, of all three kinds."""
_AT_A_TIME = 50
_REQUEST = get(f"{rules.prefix(0)}item")


@dataclass(frozen=True)
class Found:
    """About one server; memory in KiB per client, p99 in ms."""

    memory: float
    requests: int
    p99: float
    closed: int
    errors: int


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx.
        Failed: not all clients got their first answer.
    """
    section = Section("P11", TITLE, [NOTES])
    section.table = [("server", "KiB per idle client", "requests", "p99 ms", "closed while idle", "errors")]
    found: dict[str, Found] = {}
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder))
        starters: dict[str, Starter] = {
            "canary-mw": servers.canary_mw(folder, ports, MAPPINGS),
            "envoy": peers.envoy(folder, ports, MAPPINGS),
            "nginx": peers.nginx(folder, ports, MAPPINGS),
        }
        for name, server in start(stack, starters, section).items():
            each = found[name] = asyncio.run(_clients(server, options.rounds * options.seconds))
            figures = (f"{each.memory:.1f}", f"{each.requests:,}", f"{each.p99:.1f}", f"{each.closed:,}")
            section.table.append((name, *figures, str(each.errors)))
    print(aligned(section.table), flush=True)
    ours = [found["canary-mw"]] if "canary-mw" in found else []
    section.at_most("errors", [each.errors for each in ours], 0, "", 0)
    section.at_most("memory per idle client", [each.memory for each in ours], LIMIT_KIB, "KiB")
    return section


async def _clients(server: Server, seconds: float) -> Found:
    async with Traffic(server.port, RATE, cycle([_REQUEST])) as warm_up:
        await asyncio.sleep(1)
    before = resident(server.pids)
    clients = [client for _ in range(0, CLIENTS, _AT_A_TIME) for client in await _connected(server.port)]
    memory = (resident(server.pids) - before) / 1024 / CLIENTS
    async with Traffic(server.port, RATE, cycle([_REQUEST])) as traffic:
        await asyncio.sleep(seconds)
    answers = [await client.ask(_REQUEST) for client in clients if not client.closed]
    for client in clients:
        client.close()
    seen = warm_up.seen + traffic.seen
    errors = sum(status != 200 for status in [*(status for status, _ in answers), *(each.status for each in seen)])
    p99 = percentile([(each.done - each.due) * 1000 for each in traffic.seen], 99)
    return Found(memory, len(seen) + len(answers) + CLIENTS, p99, CLIENTS - len(answers), errors)


async def _connected(port: int) -> list[Connection]:
    clients = await asyncio.gather(*(Connection.open(port) for _ in range(_AT_A_TIME)))
    answers = await asyncio.gather(*(client.ask(_REQUEST) for client in clients))
    if any(status != 200 for status, _ in answers):
        raise Failed(f"{sum(status != 200 for status, _ in answers)} new clients of {len(answers)} got no answer")
    return clients
