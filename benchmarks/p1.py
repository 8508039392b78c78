"""P1: the standalone proxy with 10 Mappings, against Envoy with the same routes."""

from pathlib import Path

from . import peers, servers
from .compare import Options, Starter, cpu_ratios, side_by_side
from .report import Section
from .wrk import CONNECTIONS, GRAY_EVERY, script

MAPPINGS = 10
LIMIT = 0.75
TITLE = f"standalone, {MAPPINGS} Mappings, {CONNECTIONS} connections, against Envoy"
NOTES = f"""\
`uvicorn alone` answers by itself and forwards nothing: the floor under any proxy that runs on it. Upstream: nginx, a
small JSON answer. wrk -t1 -c{CONNECTIONS}, random prefixes, every {GRAY_EVERY}th request with the gray header."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("P1", TITLE, [NOTES])
    lua = script(folder, MAPPINGS // 2, gray=True)
    with servers.upstream(folder) as ports:
        starters: dict[str, Starter] = {
            "canary-mw": servers.canary_mw(folder, ports, MAPPINGS),
            "envoy": peers.envoy(folder, ports, MAPPINGS),
            "nginx": peers.nginx(folder, ports, MAPPINGS),
            "haproxy": peers.haproxy(folder, ports, MAPPINGS),
            "uvicorn alone": servers.asgi("bare", folder),
        }
        samples = side_by_side(section, starters, lua, options)
    section.at_most("CPU per request over Envoy's", cpu_ratios(samples, "canary-mw", "envoy"), LIMIT, "x", 2)
    return section
