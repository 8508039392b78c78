"""EVIDENCE: what the evidence of a release with steps costs a drawn request more than that of one without."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import thread_time

from canary_mw.http.messages import RequestHead
from canary_mw.observability.events import Reloaded
from canary_mw.observability.prometheus import Metrics
from canary_mw.routing.assignment import CompiledRelease
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.person import NOBODY
from canary_mw.routing.releases.override import Override
from canary_mw.routing.table import RouteTable
from canary_mw.rules.plan import Analysis, MetricRule, Plan, Stage
from canary_mw.run_folder.folder import Folder

from . import sticky
from .compare import Options
from .report import Section, aligned, spread

USERS = 5_000
LIMIT = 1.0
WITHOUT = "without steps"
TITLE = f"counting a drawn request in a file of figures, {USERS:,} users who come again and again"
NOTES = """\
In a loop, each request of a random user, half of them gray: it begins and ends, and is counted as by both middlewares
and by the standalone proxy. One answer in 20 takes longer than the others, and one user in 100 fails. Before, all users
have come, and thresholds are found. The rounds are paired: in each, all releases are measured in turn. "First requests"
are those of users who were not seen before."""
_ERRORS = MetricRule("error_rate", "error_rate")
_LATENCY = MetricRule("latency", "latency", quantiles=(0.95, 0.99))
_MORE = (
    MetricRule("slow", "latency", threshold=0.5),
    MetricRule("checkout_failed", "event"),
    MetricRule("bought", "event", "decrease"),
)
_METRICS: dict[str, tuple[MetricRule, ...]] = {
    WITHOUT: (),
    "steps, two metrics": (_ERRORS, _LATENCY),
    "steps, five metrics": (_ERRORS, _LATENCY, *_MORE),
}
_REQUESTS = 20_000

Sample = tuple[Decision, RequestHead, float, str | None]


class Counted:
    """A release whose requests are counted.

    Args:
        folder: of the files of figures.
    """

    def __init__(self, folder: Folder, metrics: Sequence[MetricRule]) -> None:
        table = RouteTable.from_yaml(sticky.pairs(1, 0) + sticky.release(1, "sticky: {header: x-user}\n"))
        (document,) = table.documents.in_force
        name = document.variants[0].name
        attempt = 0
        if metrics:
            stages = (Stage({name: 50.0}, analysis=Analysis(tuple(metrics))),)
            document, attempt = replace(document, plan=Plan(stages=stages, items=1, shares=((name, 1.0),))), 1
        self._release = CompiledRelease(document, Override(weights={name: 50.0}, attempt=attempt))
        self._path = f"{table.groups[0].first.prefix}item"
        decision = decide(table, RequestHead("GET", self._path, {}), 50.0)
        assert decision is not None
        self._decision = decision
        self._metrics = Metrics(lambda: folder)
        self._metrics.start()
        self._metrics.reloaded(Reloaded(generation=1, epochs={document.name: self._release.epoch}))
        self._settle()

    def _settle(self) -> None:
        """All users come, and thresholds are found."""
        self.count(self.samples(range(USERS)))
        self._metrics.tick()

    def samples(self, users: Sequence[int]) -> list[Sample]:
        """Requests that have ended."""
        random = Random(1)
        found: list[Sample] = []
        for user in users:
            head = RequestHead("GET", self._path, {"x-user": f"user-{user}"})
            failure = "500" if user % 100 == 0 else None
            first_byte = 1.0 if random.random() < 0.05 else 0.001 * random.random()
            found.append(
                (self._decision.with_release(self._release.assign(head, NOBODY, 50.0)), head, first_byte, failure)
            )
        return found

    def count(self, samples: Sequence[Sample]) -> float:
        """Count requests; returns the microseconds of one."""
        begin, count = self._metrics.begin, self._metrics.count
        start = thread_time()
        for decision, head, first_byte, failure in samples:
            begin()
            count(decision, head, 200, 0.0123, first_byte, 100, failure)
        return (thread_time() - start) / len(samples) * 1e6

    def close(self) -> None:
        """Stop counting."""
        self._metrics.figures.close()


def run(options: Options, folder: Path) -> Section:
    """Measure; needs no server, and nothing in the folder."""
    section = Section("EVIDENCE", TITLE, [NOTES])
    with TemporaryDirectory() as place:
        rounds = _rounds(Path(place), options.rounds)
    section.table = [
        ("release", "CPU us", "first requests"),
        *((name, *(spread(each, 2) for each in found)) for name, found in rounds.items()),
    ]
    print(aligned(section.table), flush=True)
    for name in list(rounds)[1:]:
        pairs = zip(rounds[name][0], rounds[WITHOUT][0], strict=True)
        added = [one - other for one, other in pairs]
        section.at_most(f"CPU of a drawn request, {name}, over one {WITHOUT}", added, LIMIT, "us", 2)
    return section


def _rounds(place: Path, count: int) -> dict[str, tuple[list[float], list[float]]]:
    """For each release the microseconds of requests, and of first requests, in each round."""
    counted = {
        name: Counted(Folder(str(place / str(number))), metrics)
        for number, (name, metrics) in enumerate(_METRICS.items())
    }
    rounds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in counted}
    users = [Random(number).randrange(USERS) for number in range(_REQUESTS)]
    known = {name: each.samples(users) for name, each in counted.items()}
    for number in range(count):
        for name, each in counted.items():
            rounds[name][0].append(min(each.count(known[name]) for _ in range(3)))
            start = USERS + number * 1000
            rounds[name][1].append(each.count(each.samples(range(start, start + 1000))))
    for each in counted.values():
        each.close()
    return rounds
