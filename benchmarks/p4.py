"""P4: the standalone proxy with 10 Mappings, against the proxies of Python that forward everything to one upstream."""

from pathlib import Path

from . import servers
from .apps import UPSTREAM
from .compare import Options, Starter, cpu_ratios, side_by_side
from .report import Section
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
run under uvicorn with uvloop and httptools. wrk -t1 -c{CONNECTIONS}, every {GRAY_EVERY}th request with the gray header.
The target was set with httpx in mind; aiohttp parses and writes in compiled code and costs far less."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("P4", TITLE, [NOTES])
    lua = script(folder, MAPPINGS // 2, gray=True)
    with servers.upstream(folder) as ports:
        environ = {UPSTREAM: f"http://127.0.0.1:{ports.stable}"}
        starters: dict[str, Starter] = {"canary-mw": servers.canary_mw(folder, ports, MAPPINGS)}
        starters |= {name: servers.asgi(app, folder, environ) for name, app in PEERS.items()}
        samples = side_by_side(section, starters, lua, options)
    for name in PEERS:
        section.at_least(f"CPU per request of {name} over ours", cpu_ratios(samples, name, "canary-mw"), LIMIT, "x")
    return section
