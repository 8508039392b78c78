"""P10: 1 GiB up and down through the proxy: what memory it takes, and how fast it is compared with nginx."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from . import peers, rules, servers, streams
from .compare import Options, Starter, start
from .processes import cpu_seconds, free_port, resident, running
from .report import Section, aligned, spread
from .servers import Server, Upstream

SIZE = 1 << 30
MAPPINGS = 10
LIMIT_MIB, LIMIT_RATIO = 16, 0.4
ROUNDS = 3
TITLE = "streaming 1 GiB up and down"
NOTES = """\
One connection and one body at a time, from and to sockets that do nothing else, with Content-Length; nginx with
`proxy_buffering off` and `proxy_request_buffering off`. `alone`: without a proxy. RSS growth: the most that the process
held during the transfers, looked at every 20 ms, over what it held before the first of them."""
_TICK = 0.02
_DIRECTIONS: dict[str, tuple[Callable[[int, str, int], float], str]] = {
    "up": (streams.upload, "up"),
    "down": (streams.download, f"down-{SIZE}"),
}


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx.
        Failed: a body did not come through.
    """
    section = Section("P10", TITLE, [NOTES])
    # Their default of 3 s is shorter than the transfer of a slow proxy.
    path = servers.rules_file(folder, MAPPINGS, "timeout_ms: 0\n")
    rates: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.streams", str(port)]
        pid = stack.enter_context(running("streams", command, port, folder))
        ports = Upstream(port, port)
        starters: dict[str, Starter] = {
            "canary-mw": servers.canary_mw(folder, ports, MAPPINGS, path=path),
            "nginx": peers.nginx(folder, ports, MAPPINGS, streaming=True),
        }
        started = start(stack, starters, section)
        alone = Server((pid,), port)
        section.table = [("server", "direction", "MiB/s", "CPU s per GiB", "RSS growth MiB")]
        for name, server in {**started, "alone": alone}.items():
            for direction in _DIRECTIONS:
                rates[name, direction] = _measure(section, name, server, direction, min(options.rounds, ROUNDS))
    print(aligned(section.table), flush=True)
    for direction in _DIRECTIONS:
        ours, theirs = rates.get(("canary-mw", direction), []), rates.get(("nginx", direction), [])
        ratios = [one / other for one, other in zip(ours, theirs, strict=False)]
        section.at_least(f"throughput {direction} over nginx's", ratios, LIMIT_RATIO, "x", 2)
    return section


def _measure(section: Section, name: str, server: Server, direction: str, rounds: int) -> list[float]:
    """MiB per second of each round; a line of the table, and the verdict about our memory."""
    transfer, last = _DIRECTIONS[direction]
    path = f"/{last}" if name == "alone" else f"{rules.prefix(0)}{last}"
    before = cpu_seconds(server.pids)
    with _watched(server) as growth:
        rates = [SIZE / 2**20 / transfer(server.port, path, SIZE) for _ in range(rounds)]
    cpu = (cpu_seconds(server.pids) - before) / rounds
    if name == "canary-mw":
        section.at_most(f"growth of RSS, 1 GiB {direction}", growth, LIMIT_MIB, "MiB")
    memory = "" if name == "alone" else f"{median(growth):.1f}"
    section.table.append((name, direction, spread(rates, 0), f"{cpu:.2f}", memory))
    return rates


@contextmanager
def _watched(server: Server) -> Iterator[list[float]]:
    """A list that holds, at the end of the block, by how many MiB the server grew within it."""
    growth: list[float] = []
    before = most = resident(server.pids)
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(_TICK):
            most = max(most, resident(server.pids))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield growth
    finally:
        over.set()
        thread.join()
        growth.append((most - before) / 2**20)
