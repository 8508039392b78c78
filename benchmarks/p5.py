"""P5: the middleware around a bare ASGI app that answers itself (the stable path), with 1,000 Mappings."""

import asyncio
from pathlib import Path
from time import thread_time_ns

from canary_mw.http.messages import RequestHead
from canary_mw.types import ASGIApp, Message, Scope

from . import rules, servers
from .apps import RULES, bare, wrapped
from .compare import Options, Samples, Starter, best, cpu_added, cpu_ratios, side_by_side
from .processes import Missing
from .report import Section
from .wrk import CONNECTIONS, script

MAPPINGS = 1000
TITLE = f"middleware around a bare ASGI app, stable path, {MAPPINGS:,} Mappings"
LIMIT_ADDED = 6
LIMIT_RATIO = 1.2
CALLS = 10_000
NOTES = f"""\
In a loop: the app called {CALLS:,} times in a row with the scopes of uvicorn (12 headers, random prefixes), with and
without the middleware; the table of rules stays in the processor's cache then, which it need not between the requests
of a server. The figures above: both under uvicorn, wrk -t1 -c{CONNECTIONS}, random prefixes, no gray requests."""


def run(options: Options, folder: Path) -> Section:
    """Measure; without wrk only what needs none."""
    section = Section("P5", TITLE, [NOTES])
    path = servers.rules_file(folder, MAPPINGS)
    section.at_most("added CPU per call, in a loop", added(path, options.rounds), LIMIT_ADDED, "us", 2)
    samples: Samples = {}
    try:
        samples = _served(section, path, folder, options)
    except Missing as exc:
        section.notes.append(str(exc))
    pair = samples, "with middleware", "bare app"
    section.at_most("added CPU per request, under uvicorn", cpu_added(*pair), LIMIT_ADDED, "us")
    what = "CPU per request over that of the bare app, under uvicorn"
    section.at_most(what, cpu_ratios(*pair), LIMIT_RATIO, "x", 2)
    return section


def _served(section: Section, path: Path, folder: Path, options: Options) -> Samples:
    starters: dict[str, Starter] = {
        "bare app": servers.asgi("bare", folder),
        "with middleware": servers.asgi("wrapped_app", folder, {RULES: str(path)}),
    }
    return side_by_side(section, starters, script(folder, MAPPINGS // 2, gray=False), options)


def added(path: Path, rounds: int) -> list[float]:
    """Microseconds of CPU that the middleware adds to a call, a figure for each round."""
    scopes = [_scope(head) for head in rules.heads(MAPPINGS, CALLS)]
    middleware = wrapped(path)
    middleware.start()
    with asyncio.Runner() as runner:

        def microseconds(app: ASGIApp) -> float:
            return best(lambda: runner.run(_calls(app, scopes)))

        found = [microseconds(middleware) - microseconds(bare) for _ in range(rounds)]
        runner.run(middleware.aclose())
    return found


async def _calls(app: ASGIApp, scopes: list[Scope]) -> float:
    began = thread_time_ns()
    for scope in scopes:
        await app(scope, _receive, _send)
    return (thread_time_ns() - began) / len(scopes) / 1000


async def _receive() -> Message:
    raise AssertionError("the bare app reads no body")


async def _send(message: Message) -> None:
    """Nobody listens: only the app is measured."""


def _scope(head: RequestHead) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": head.method,
        "root_path": "",
        "path": head.path.decode(),
        "raw_path": head.path,
        "query_string": b"",
        "headers": head.headers,
        "state": {},
    }
