"""SOCKETS: the client for threads with reads and writes that keep the interpreter lock, and with plain socket calls."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from canary_mw.client.sync.sockets import PLAIN_SOCKETS

from . import clients, servers
from .apps import RULES, UPSTREAM
from .clients import BLOCKING, THREADED, threads_cost
from .compare import Options, Samples, Target, cpu_ratios, in_turn, start, table
from .processes import Missing
from .report import Section, spread
from .wrk import CONNECTIONS, script

MAPPINGS = 10
THREADS = (1, 2, 16, 64)
SERVERS = ("gunicorn", "granian")
TITLE = f"plain socket calls in the client for threads ({PLAIN_SOCKETS}), against those that keep the interpreter lock"
NOTES = f"""\
The client alone, by so many threads that do nothing else, both kinds in turn, round by round; and the middleware for
WSGI under servers with {servers.THREADS} threads, every request gray, wrk -t1 -c{CONNECTIONS}. A client that one
thread uses makes plain calls in both cases. The gain shows on free cores, where another thread takes the lock while a
call has released it: where other processes want the cores, both kinds cost the same."""
CLIENTS = "CPU us per request, median (smallest-largest), that keep the lock; plain:"


def run(options: Options, folder: Path) -> Section:
    """Measure; the ratios are of plain calls over the others."""
    section = Section("SOCKETS", TITLE, [NOTES])
    samples: Samples = {}
    try:
        with servers.upstream(folder) as ports:
            _clients(section, ports.stable, options.rounds)
            samples = _served(section, ports.gray, folder, options)
    except Missing as exc:
        section.notes.append(str(exc))
    for server in SERVERS:
        ratios = cpu_ratios(samples, _plain(server), server)
        section.figure(f"CPU per forwarded request, plain over kept, {server}", ratios, "x", 2)
    return section


def _plain(server: str) -> str:
    return f"{server}, plain"


def _clients(section: Section, port: int, rounds: int) -> None:
    lines = []
    for threads in THREADS:
        pairs = [(_cost(port, threads, plain=False), _cost(port, threads, plain=True)) for _ in range(rounds)]
        what = f"CPU per request of the client, plain over kept, {threads} at once"
        section.figure(what, [plain / kept for kept, plain in pairs], "x", 2)
        lines.append(f"- {threads} at once: " + "; ".join(spread(side) for side in zip(*pairs, strict=True)))
    section.notes.append("\n".join([CLIENTS, "", *lines]))


def _cost(port: int, threads: int, *, plain: bool) -> float:
    with _environ(plain), BLOCKING[THREADED](port) as call:
        return threads_cost(call, threads, clients.REQUESTS)


@contextmanager
def _environ(plain: bool) -> Iterator[None]:
    """Connections that are opened meanwhile are of this kind."""
    os.environ[PLAIN_SOCKETS] = str(int(plain))
    try:
        yield
    finally:
        del os.environ[PLAIN_SOCKETS]


def _served(section: Section, upstream: int, folder: Path, options: Options) -> Samples:
    environ = {RULES: str(servers.rules_file(folder, MAPPINGS)), UPSTREAM: f"http://127.0.0.1:{upstream}"}
    starters = {
        name: servers.wsgi("wrapped_wsgi_app", folder, {**environ, PLAIN_SOCKETS: plain}, server=server)
        for server in SERVERS
        for name, plain in ((server, "0"), (_plain(server), "1"))
    }
    lua = script(folder, MAPPINGS // 2, gray=True, every=1)
    with ExitStack() as stack:
        started = start(stack, starters, section)
        for server in started.values():
            servers.routing(server)
        samples = in_turn([Target(name, server, lua) for name, server in started.items()], options)
    section.table = table(samples)
    return samples
