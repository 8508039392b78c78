"""P3: the standalone proxy with 10,000 Mappings, against Envoy with the same routes and against itself with 10."""

from contextlib import ExitStack
from pathlib import Path

from . import peers, rules, servers
from .compare import Options, Starter, Target, cpu_ratios, in_turn, start, table
from .report import Section
from .servers import Server
from .wrk import CONNECTIONS, script

FEW, MAPPINGS = 10, 10_000
LIMIT, LIMIT_GROWTH = 0.2, 1.1
TITLE = f"standalone, {MAPPINGS:,} Mappings, {CONNECTIONS} connections, against Envoy and against {FEW} Mappings"
OURS_FEW = f"canary-mw, {FEW} Mappings"
LAST = ", last route"
NOTES = f"""\
As P2, with {MAPPINGS // 2:,} prefixes. `{OURS_FEW}` is a second process, loaded with requests to its own prefixes. Of
the lines that end with `{LAST[2:]}` all requests go to the prefix that Envoy matches last; the routes with the header
stand before all others, so that a random one without it is found in the second half."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("P3", TITLE, [NOTES])
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder))
        starters: dict[str, Starter] = {
            "canary-mw": servers.canary_mw(folder, ports, MAPPINGS),
            OURS_FEW: servers.canary_mw(folder, ports, FEW),
            "envoy": peers.envoy(folder, ports, MAPPINGS),
            "nginx": peers.nginx(folder, ports, MAPPINGS),
            "haproxy": peers.haproxy(folder, ports, MAPPINGS),
        }
        samples = in_turn(_targets(start(stack, starters, section), folder), options)
    section.table = table(samples)
    ratios = cpu_ratios(samples, "canary-mw", "envoy")
    section.at_most("CPU per request over Envoy's, random prefixes", ratios, LIMIT, "x", 3)
    ratios = cpu_ratios(samples, "canary-mw" + LAST, "envoy" + LAST)
    section.at_most("CPU per request over Envoy's, its last route", ratios, LIMIT, "x", 3)
    growth = cpu_ratios(samples, "canary-mw", OURS_FEW)
    section.at_most(f"CPU per request over ours with {FEW} Mappings", growth, LIMIT_GROWTH, "x", 2)
    return section


def _targets(started: dict[str, Server], folder: Path) -> list[Target]:
    lua, few = (script(folder, count // 2, gray=True) for count in (MAPPINGS, FEW))
    last = script(folder, 1, gray=True, first=rules.in_order(MAPPINGS)[-1].number)
    targets = [Target(name, server, few if name == OURS_FEW else lua) for name, server in started.items()]
    pair = [Target(name + LAST, started[name], last) for name in ("canary-mw", "envoy") if name in started]
    return targets + pair
