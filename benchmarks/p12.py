"""P12: whether a request costs the same however many connections there are."""

from contextlib import ExitStack
from pathlib import Path

from . import peers, servers
from .compare import Options, Starter, Target, cpu_ratios, in_turn, start, table
from .report import Section
from .wrk import GRAY_EVERY, script

MAPPINGS = 10
CONNECTIONS = (1, 32, 256)
LIMIT = 1.3
TITLE = f"standalone, {MAPPINGS} Mappings, {CONNECTIONS[0]}, {CONNECTIONS[1]} and {CONNECTIONS[2]} connections"
NOTES = f"""\
The target is for more than one connection: a single one leaves the processor idle between the requests, and wakes it up
for each. wrk -t1, random prefixes, every {GRAY_EVERY}th request with the gray header."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("P12", TITLE, [NOTES])
    lua = script(folder, MAPPINGS // 2, gray=True)
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder))
        starters: dict[str, Starter] = {
            "canary-mw": servers.canary_mw(folder, ports, MAPPINGS),
            "envoy": peers.envoy(folder, ports, MAPPINGS),
        }
        started = start(stack, starters, section)
        targets = [Target(_name(name, each), started[name], lua, each) for name in started for each in CONNECTIONS]
        samples = in_turn(targets, options)
    section.table = table(samples)
    many, some = (_name("canary-mw", each) for each in (CONNECTIONS[2], CONNECTIONS[1]))
    apart = [max(ratio, 1 / ratio) for ratio in cpu_ratios(samples, many, some)]
    section.at_most(f"CPU per request, {CONNECTIONS[2]} connections against {CONNECTIONS[1]}", apart, LIMIT, "x", 2)
    return section


def _name(server: str, connections: int) -> str:
    return f"{server}, {connections} connections" if connections > 1 else f"{server}, 1 connection"
