"""P5: the middleware around a bare ASGI app that answers itself (the stable path), with 1,000 Mappings."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from time import thread_time_ns

from canary_mw.messages import RequestHead
from canary_mw.upstreams import ASGIApp, Message, Scope

from . import rules, servers
from .apps import RULES, bare, wrapped
from .compare import Options, best, cpu_added, cpu_ratios, in_turn, table
from .processes import Missing
from .report import Section, Verdict, at_most
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
ADDED = "added CPU per request, under uvicorn"
RATIO = "CPU per request over that of the bare app, under uvicorn"


def run(options: Options, folder: Path) -> Section:
    """Measure; without wrk only what needs none."""
    section = Section("P5", TITLE, notes=[NOTES])
    path = servers.rules_file(folder, MAPPINGS)
    section.verdicts.append(at_most("added CPU per call, in a loop", added(path, options.rounds), LIMIT_ADDED, "us", 2))
    print(f"  added: {section.verdicts[0].figure}", flush=True)
    try:
        _served(section, path, folder, options)
    except Missing as exc:
        targets = {ADDED: f"<= {LIMIT_ADDED} us", RATIO: f"<= {LIMIT_RATIO} x"}
        section.verdicts += [Verdict(what, target, str(exc), None) for what, target in targets.items()]
    return section


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


def _served(section: Section, path: Path, folder: Path, options: Options) -> None:
    lua = script(folder, MAPPINGS // 2, gray=False)
    with ExitStack() as stack:
        peers = [
            servers.uvicorn("bare app", "bare", folder),
            servers.uvicorn("with middleware", "wrapped_app", folder, {RULES: str(path)}),
        ]
        samples = in_turn([stack.enter_context(peer) for peer in peers], lua, options)
    section.table = table(samples)
    pair = samples, "with middleware", "bare app"
    section.verdicts.append(at_most(ADDED, cpu_added(*pair), LIMIT_ADDED, "us"))
    section.verdicts.append(at_most(RATIO, cpu_ratios(*pair), LIMIT_RATIO, "x", 2))
