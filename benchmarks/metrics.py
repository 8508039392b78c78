"""What the counters for Prometheus cost: the standalone proxy with its admin port, as it is by default, and without."""

from pathlib import Path

from . import servers
from .compare import Options, Starter, cpu_added, side_by_side
from .processes import free_port
from .report import Section
from .wrk import CONNECTIONS, GRAY_EVERY, script

MAPPINGS = 1_000
TITLE = f"standalone, {MAPPINGS:,} Mappings, with and without metrics"
WITH, WITHOUT = "with metrics", "without"
NOTES = f"""\
`--admin-port` makes the proxy count requests by Mapping, service, variant and status; nobody scrapes it here. wrk -t1
-c{CONNECTIONS}, random prefixes, every {GRAY_EVERY}th request with the gray header."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("METRICS", TITLE, [NOTES])
    with servers.upstream(folder) as ports:
        starters: dict[str, Starter] = {
            WITHOUT: servers.canary_mw(folder, ports, MAPPINGS),
            WITH: servers.canary_mw(folder, ports, MAPPINGS, options=[f"--admin-port={free_port()}"]),
        }
        samples = side_by_side(section, starters, script(folder, MAPPINGS // 2, gray=True), options)
    section.figure("CPU per request added by metrics", cpu_added(samples, WITH, WITHOUT), "us")
    return section
