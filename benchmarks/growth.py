"""How the cost of a request grows with connections, with the size of the answer, and with headers; as charts."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from . import peers, servers
from .chart import Chart, Point
from .compare import Options, Samples, Starter, Target, in_turn, start
from .report import Section, spread
from .servers import Server
from .wrk import CONNECTIONS, script

MAPPINGS = 10
MANY_CONNECTIONS = (1, 4, 16, 64, 256, 1024)
BODIES = (2**10, 2**12, 2**14, 2**16, 2**18, 2**20)
HEADERS = (5, 10, 20, 40, 80)
TITLE = "cost of a request over connections, sizes of answers, and headers"
NOTES = f"""\
Medians of fewer and shorter rounds than in the other rows. {CONNECTIONS} connections where they are not what grows, a
small answer where it is not, and no header but Host. Answers come from files that nginx sends, and are neither
compressed nor cached on the way; nginx as a proxy buffers them, as it does by default. Upstream and load run on the
machine of the proxy."""
Y_LABEL = "CPU microseconds per request"


@dataclass(frozen=True)
class Axis:
    """What grows.

    Attributes:
        name: of the chart's file.
        label: of its axis.
        unit: behind a value.
        places: a script and a number of connections for each value.
        ticks: the values, by their text.
    """

    name: str
    label: str
    unit: str
    places: dict[float, tuple[Path, int]]
    ticks: dict[str, float]


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("GROWTH", TITLE, [NOTES], table=[("what grows", "server", "CPU us/request", "errors")])
    shorter = replace(options, rounds=min(options.rounds, 3), seconds=min(options.seconds, 2))
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder, BODIES))
        starters: dict[str, Starter] = {
            "canary-mw": servers.canary_mw(folder, ports, MAPPINGS),
            "Envoy": peers.envoy(folder, ports, MAPPINGS),
            "nginx": peers.nginx(folder, ports, MAPPINGS),
        }
        started = start(stack, starters, section)
        for axis in _axes(folder):
            _measure(section, axis, started, shorter)
    return section


def _axes(folder: Path) -> list[Axis]:
    prefixes = MAPPINGS // 2
    item = script(folder, prefixes, gray=False)
    connections: dict[float, tuple[Path, int]] = {count: (item, count) for count in MANY_CONNECTIONS}
    bodies: dict[float, tuple[Path, int]] = {
        size: (script(folder, prefixes, gray=False, path=f"body-{size}"), CONNECTIONS) for size in BODIES
    }
    # wrk sends Host by itself.
    headers: dict[float, tuple[Path, int]] = {
        count: (script(folder, prefixes, gray=False, extra=count - 1), CONNECTIONS) for count in HEADERS
    }
    ticks: list[dict[str, float]] = [
        {f"{n:,}": n for n in MANY_CONNECTIONS},
        {_size(n): n for n in BODIES},
        {str(n): n for n in HEADERS},
    ]
    return [
        Axis("connections", "connections", "connections", connections, ticks[0]),
        Axis("bodies", "size of the answer", "of body", bodies, ticks[1]),
        Axis("headers", "headers of the request", "headers", headers, ticks[2]),
    ]


def _size(count: int) -> str:
    return f"{count >> 10} KiB" if count < 2**20 else f"{count >> 20} MiB"


def _measure(section: Section, axis: Axis, started: dict[str, Server], options: Options) -> None:
    lines: dict[str, list[Point]] = {name: [] for name in started}
    labels = {value: label for label, value in axis.ticks.items()}
    for value, (lua, connections) in axis.places.items():
        print(f"  {labels[value]} {axis.unit}", flush=True)
        samples = in_turn([Target(name, server, lua, connections) for name, server in started.items()], options)
        for name, rounds in samples.items():
            lines[name].append((value, round(median(sample.cpu for sample in rounds), 2)))
        section.table += _lines(f"{labels[value]} {axis.unit}", samples)
    section.charts.append(
        Chart(f"growth-{axis.name}", f"Cost of a request: {axis.label}", axis.label, Y_LABEL, lines, axis.ticks)
    )


def _lines(what: str, samples: Samples) -> list[tuple[str, ...]]:
    return [
        (what, name, spread([each.cpu for each in rounds]), str(sum(each.errors for each in rounds)))
        for name, rounds in samples.items()
    ]
