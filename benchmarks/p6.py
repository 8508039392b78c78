"""P6: the middleware around a FastAPI app (the stable path), against the same app behind Envoy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import peers, servers
from .apps import RULES
from .compare import Options, Starter, cpu_ratios, side_by_side
from .report import Section
from .servers import Server, Upstream
from .wrk import CONNECTIONS, script

MAPPINGS = 10
LIMIT = 0.75
TITLE = f"middleware around a FastAPI app, stable path, {MAPPINGS} Mappings, against the same app behind Envoy"
OURS, THEIRS = "FastAPI with middleware", "FastAPI behind Envoy"
NOTES = f"""\
The CPU of Envoy and of the app behind it are added up. The app has one route and answers a small JSON text, under
uvicorn. wrk -t1 -c{CONNECTIONS}, random prefixes, no gray requests."""


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx or wrk.
    """
    section = Section("P6", TITLE, [NOTES])
    environ = {RULES: str(servers.rules_file(folder, MAPPINGS))}
    with servers.upstream(folder) as ports:
        starters: dict[str, Starter] = {
            OURS: servers.asgi("wrapped_fastapi_app", folder, environ),
            THEIRS: _behind_envoy(folder, ports),
            "FastAPI alone": servers.asgi("fastapi_app", folder),
        }
        samples = side_by_side(section, starters, script(folder, MAPPINGS // 2, gray=False), options)
    section.at_most("CPU per request over that of app and Envoy", cpu_ratios(samples, OURS, THEIRS), LIMIT, "x", 2)
    return section


@contextmanager
def _behind_envoy(folder: Path, ports: Upstream) -> Iterator[Server]:
    with (
        servers.asgi("fastapi_app", folder) as app,
        peers.envoy(folder, Upstream(app.port, ports.gray), MAPPINGS) as front,
    ):
        yield Server((*front.pids, *app.pids), front.port)
