"""What the counters for Prometheus cost: the standalone proxy with its admin port, as it is by default, and without."""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time
from timeit import repeat

from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Reloaded
from canary_mw.observability.prometheus import Metrics
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.run_folder.folder import Folder

from . import rules, servers, sticky
from .compare import Options, Starter, cpu_added, side_by_side
from .processes import free_port
from .report import Section
from .wrk import CONNECTIONS, GRAY_EVERY, script

MAPPINGS = 1_000
TITLE = f"standalone, {MAPPINGS:,} Mappings, with and without metrics"
WITH, WITHOUT = "with metrics", "without"
NOTES = f"""\
`--admin-port` makes the proxy count requests in its figures; nobody scrapes it here. wrk -t1 -c{CONNECTIONS}, random
prefixes, every {GRAY_EVERY}th request with the gray header. What counting itself costs is measured in a loop: a request
that begins and ends, in a file of a run folder; and what the evidence of a release adds for a drawn one."""
LIMIT, EVIDENCE_LIMIT = 2.0, 1.0
_CALLS, _ROUNDS = 20_000, 9


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
    plain, drawn = _counting()
    section.at_most("counting a request", [min(plain)], LIMIT, "us", 2)
    added = [min(drawn) - min(plain)]
    section.at_most("the evidence of a drawn request more", added, EVIDENCE_LIMIT, "us", 2)
    return section


def _counting() -> tuple[list[float], list[float]]:
    """Microseconds of counting a request without a release, and a drawn one, in turns."""
    with TemporaryDirectory() as place:
        folder = Folder(str(Path(place) / "run"))
        metrics = Metrics(lambda: folder)
        table = RouteTable.from_yaml(sticky.pairs(1, 0) + sticky.release(1, "sticky: {header: x-user}\n"))
        alone = rules.table(2)
        metrics.start()
        metrics.reloaded(Reloaded(generation=1, epochs={name: each.epoch for name, each in table.releases.items()}))
        rounds: list[list[float]] = [[], []]
        for _ in range(_ROUNDS):
            for taken, each in zip(rounds, (alone, table), strict=True):
                taken += _one(metrics, each)
        metrics.figures.close()
        return rounds[0], rounds[1]


def _one(metrics: Metrics, table: RouteTable) -> list[float]:
    head = RequestHead("GET", f"{table.groups[0].first.prefix}item", {"x-user": "anna"})
    decision = decide(table, head, 50.0)

    def count() -> None:
        metrics.begin()
        metrics.count(decision, head, 200, 0.0123, 0.01, 100)

    return [seconds / _CALLS * 1e6 for seconds in repeat(count, timer=thread_time, number=_CALLS, repeat=1)]
