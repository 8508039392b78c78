"""P1: the standalone proxy with 10 Mappings, against Envoy with the same routes."""

from contextlib import ExitStack
from pathlib import Path

from . import servers
from .compare import Options, cpu_ratios, in_turn, table
from .report import Section, at_most
from .wrk import CONNECTIONS, GRAY_EVERY, script

MAPPINGS = 10
LIMIT = 1.2
TITLE = f"standalone, {MAPPINGS} Mappings, {CONNECTIONS} connections, against Envoy"
NOTES = f"""\
`uvicorn alone` answers by itself and forwards nothing: the floor under any proxy that runs on it. Upstream: nginx, a
small JSON answer. wrk -t1 -c{CONNECTIONS}, random prefixes, every {GRAY_EVERY}th request with the gray header."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx, wrk or Envoy.
    """
    lua = script(folder, MAPPINGS // 2, gray=True)
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder))
        peers = [
            servers.canary_mw(folder, ports, MAPPINGS),
            servers.envoy(folder, ports, MAPPINGS),
            servers.nginx(folder, ports, MAPPINGS),
            servers.uvicorn("uvicorn alone", "bare", folder),
        ]
        samples = in_turn([stack.enter_context(peer) for peer in peers], lua, options)
    verdict = at_most("CPU per request over Envoy's", cpu_ratios(samples, "canary-mw", "envoy"), LIMIT, "x", 2)
    return Section("P1", TITLE, [verdict], table(samples), [NOTES])
