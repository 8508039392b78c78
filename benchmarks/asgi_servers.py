"""The same app with the middleware under different servers for ASGI."""

from pathlib import Path

from . import servers
from .apps import RULES, UPSTREAM
from .compare import Options, Starter, cpu_ratios, side_by_side
from .report import Section
from .wrk import CONNECTIONS, GRAY_EVERY, script

MAPPINGS = 10
TITLE = f"a bare app with the middleware, {MAPPINGS} Mappings, under different servers"
UVICORN = "uvicorn"
SERVERS = {
    UVICORN: ("uvicorn", 1),
    "uvicorn, 2 workers": ("uvicorn", 2),
    "granian": ("granian", 1),
    "granian, 2 workers": ("granian", 2),
    "hypercorn": ("hypercorn", 1),
}
NOTES = f"""\
All with uvloop; uvicorn with httptools. wrk -t1 -c{CONNECTIONS}, random prefixes; every {GRAY_EVERY}th request carries
the gray header and is forwarded, the app answers the others. wrk and the upstream take their share of the machine's
cores: two workers show what they cost, not how far they scale."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("SERVERS", TITLE, [NOTES])
    with servers.upstream(folder) as ports:
        environ = {
            RULES: str(servers.rules_file(folder, MAPPINGS)),
            UPSTREAM: f"http://127.0.0.1:{ports.gray}",
        }
        starters: dict[str, Starter] = {
            name: servers.asgi("wrapped_app", folder, environ, server=server, workers=workers)
            for name, (server, workers) in SERVERS.items()
        }
        samples = side_by_side(section, starters, script(folder, MAPPINGS // 2, gray=True), options)
    for name in SERVERS:
        if name != UVICORN:
            section.figure(f"CPU per request under {name} over uvicorn's", cpu_ratios(samples, name, UVICORN), "x", 2)
    return section
