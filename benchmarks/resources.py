"""RESOURCES: what a worker needs, alone and in an app, with figures and without: memory, threads, descriptors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import apps, rules, servers
from .compare import Options
from .processes import children, free_port, get, resident
from .report import Section, spread

COUNTS = (10, 1_000, 10_000)
ASKED = 500
TITLE = "a worker with 10, 1,000 and 10,000 Mappings"
NOTES = f"""\
One worker, after requests to up to {ASKED} of its Mappings, so that figures have as many rows. `with figures`: with an
admin port, that of `canary-mw serve` or one beside the app (`CANARY_MW_ADMIN_PORT`). The app runs under uvicorn."""
WITH, WITHOUT = "with figures", "without"


def run(options: Options, folder: Path) -> Section:
    """Measure.

    Raises:
        Missing: nginx.
    """
    section = Section("RESOURCES", TITLE, [NOTES])
    section.table = [("where", "Mappings", "figures", "RSS MiB", "threads", "descriptors")]
    with servers.upstream(folder) as ports:
        for where in ("standalone", "in an app"):
            for count in COUNTS:
                memory = {name: _row(section, folder, ports, where, count, name) for name in (WITHOUT, WITH)}
                added = memory[WITH] - memory[WITHOUT]
                section.figure(f"RSS that figures add, {where}, {count:,} Mappings", [added], "MiB")
    return section


def _row(section: Section, folder: Path, ports: servers.Upstream, where: str, count: int, figures: str) -> float:
    start = _standalone if where == "standalone" else _app
    with start(folder, ports, count, admin=free_port() if figures == WITH else 0) as server:
        for rule in rules.in_order(count)[:ASKED]:
            get(server.port, f"{rule.prefix}item")
        (pid,) = server.pids
        worker = next(iter(children(pid)), pid)
        memory = resident([worker]) / (1 << 20)
        threads, files = (float(len(os.listdir(f"/proc/{worker}/{what}"))) for what in ("task", "fd"))
        row = where, f"{count:,}", figures, spread([memory]), spread([threads], 0), spread([files], 0)
        section.table.append(row)
        return memory


@contextmanager
def _standalone(folder: Path, ports: servers.Upstream, count: int, *, admin: int) -> Iterator[servers.Server]:
    with servers.canary_mw(folder, ports, count, options=[f"--admin-port={admin}"], checked=False) as server:
        yield server


@contextmanager
def _app(folder: Path, ports: servers.Upstream, count: int, *, admin: int) -> Iterator[servers.Server]:
    environ = {apps.RULES: str(servers.rules_file(folder, count)), apps.UPSTREAM: f"http://127.0.0.1:{ports.gray}"}
    if admin:
        environ["CANARY_MW_ADMIN_PORT"] = str(admin)
    with servers.asgi("wrapped_app", folder, environ) as server:
        yield server
