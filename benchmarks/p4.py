"""P4: the standalone proxy with 10 Mappings, against the proxies of Python that forward everything to one upstream."""

from contextlib import ExitStack
from pathlib import Path

from . import servers
from .apps import UPSTREAM
from .compare import Options, cpu_ratios, in_turn, table
from .report import Section, at_least
from .wrk import CONNECTIONS, GRAY_EVERY, script

MAPPINGS = 10
LIMIT = 25
TITLE = f"standalone, {MAPPINGS} Mappings, {CONNECTIONS} connections, against proxies of Python"
PEERS = {
    "fastapi-proxy-lib": "fastapi_proxy_lib_app",
    "asgiproxy": "asgiproxy_app",
}
NOTES = f"""\
The peers know no rules and forward all to one upstream. fastapi-proxy-lib uses httpx as it comes: other limits for its
connections make it no faster. asgiproxy uses aiohttp; it may start 1,024 requests at a time here, 20 by default. All
run under uvicorn with uvloop and httptools. wrk -t1 -c{CONNECTIONS}, every {GRAY_EVERY}th request with the gray
header."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    lua = script(folder, MAPPINGS // 2, gray=True)
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder))
        environ = {UPSTREAM: f"http://127.0.0.1:{ports.stable}"}
        peers = [servers.uvicorn(name, app, folder, environ) for name, app in PEERS.items()]
        ours = servers.canary_mw(folder, ports, MAPPINGS)
        samples = in_turn([stack.enter_context(peer) for peer in (ours, *peers)], lua, options)
    verdicts = [
        at_least(f"CPU per request of {name} over ours", cpu_ratios(samples, name, "canary-mw"), LIMIT, "x")
        for name in PEERS
    ]
    return Section("P4", TITLE, verdicts, table(samples), [NOTES])
