"""P2: the standalone proxy with 1,000 Mappings, against Envoy with the same routes."""

from pathlib import Path

from . import peers, servers
from .compare import Options, Starter, cpu_ratios, side_by_side
from .report import Section
from .wrk import CONNECTIONS, GRAY_EVERY, script

MAPPINGS = 1_000
LIMIT = 0.6
TITLE = f"standalone, {MAPPINGS:,} Mappings, {CONNECTIONS} connections, against Envoy"
NOTES = f"""\
{MAPPINGS // 2} prefixes, each with a twin that takes the requests with the gray header. wrk -t1 -c{CONNECTIONS},
random prefixes, every {GRAY_EVERY}th request with the gray header. Envoy matches its routes one after the other; nginx
and HAProxy search prefixes as a tree, as we do, and have one condition for the header of all of them."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("P2", TITLE, [NOTES])
    lua = script(folder, MAPPINGS // 2, gray=True)
    with servers.upstream(folder) as ports:
        starters: dict[str, Starter] = {
            "canary-mw": servers.canary_mw(folder, ports, MAPPINGS),
            "envoy": peers.envoy(folder, ports, MAPPINGS),
            "nginx": peers.nginx(folder, ports, MAPPINGS),
            "haproxy": peers.haproxy(folder, ports, MAPPINGS),
        }
        samples = side_by_side(section, starters, lua, options)
    section.at_most("CPU per request over Envoy's", cpu_ratios(samples, "canary-mw", "envoy"), LIMIT, "x", 2)
    return section
