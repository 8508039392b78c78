"""PRODUCTION: the standalone proxy as in production, with 10, 1,000 and 10,000 Mappings, against Envoy and nginx."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import peers, rules, servers
from .compare import Options, Starter, Target, cpu_ratios, in_turn, start, table
from .processes import free_port
from .report import Section
from .rules import SHARE, USER
from .servers import Server, Upstream
from .wrk import CONNECTIONS, script

COUNTS = (10, 1_000, 10_000)
LIMIT = 0.9
HEADERS = 12
TITLE = f"standalone, as in production, {CONNECTIONS} connections, against Envoy and nginx"
NOTES = f"""\
As P1 to P3, with what production has: figures on the admin port, an access log in a file, {HEADERS} headers, and a
release that gives gray to {SHARE} % of the users by the header `{USER}`. Envoy writes its log and splits the requests
by weights: it has no split by users. nginx writes its log through a buffer of 64 KiB, and splits by the same header."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("PRODUCTION", TITLE, [NOTES])
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder))
        starters: dict[str, Starter] = {}
        for count in COUNTS:
            starters[named("canary-mw", count)] = canary_mw(folder, ports, count)
            starters[named("envoy", count)] = peers.envoy(folder, ports, count, production=True)
        starters[named("nginx", COUNTS[0])] = peers.nginx(folder, ports, COUNTS[0], production=True)
        started = start(stack, starters, section)
        targets = [Target(name, started[name], lua(folder, count_of(name))) for name in started]
        samples = in_turn(targets, options)
    section.table = table(samples)
    for count in COUNTS:
        ratios = cpu_ratios(samples, named("canary-mw", count), named("envoy", count))
        section.at_most(f"CPU per request over Envoy's, {count:,} Mappings, as in production", ratios, LIMIT, "x", 2)
    return section


def named(server: str, count: int) -> str:
    """A server in the table."""
    return f"{server}, {count:,} Mappings"


def count_of(name: str) -> int:
    """How many Mappings a server of the table has."""
    return int(name.split()[1].replace(",", ""))


def lua(folder: Path, count: int) -> Path:
    """The requests: `HEADERS` headers, with Host and the user."""
    return script(folder, count // 2, gray=False, extra=HEADERS - 2, users=True)


@contextmanager
def canary_mw(folder: Path, ports: Upstream, count: int) -> Iterator[Server]:
    """Our proxy with figures, access log and release."""
    path = folder / f"production-{count}" / "rules.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(rules.production(count), encoding="utf-8")
    options = [f"--admin-port={free_port()}", "--access-log"]
    with servers.canary_mw(folder, ports, count, path=path, options=options, checked=False) as server:
        yield server
