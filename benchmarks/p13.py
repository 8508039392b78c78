"""P13: the middleware for WSGI under gunicorn's worker with threads: an app that answers itself, and forwarding."""

from collections.abc import Mapping as Dict
from contextlib import ExitStack
from pathlib import Path
from time import thread_time_ns

from canary_mw.http.messages import RequestHead
from canary_mw.types import Environ, WSGIApp

from . import clients, rules, servers
from .apps import RULES, TIME, UPSTREAM, bare_wsgi, wrapped_wsgi
from .compare import Options, Samples, Starter, Target, best, cpu_added, cpu_ratios, in_turn, start, table
from .processes import Missing, get
from .report import Section, spread
from .servers import Server
from .wrk import CONNECTIONS, script

MAPPINGS, FEW = 1000, 10
HEADERS = 12
CALLS = 10_000
CLIENT_ROUNDS = 3
LIMIT_ADDED = 8
LIMIT_RATIO = 1.5
TITLE = f"middleware for WSGI under gunicorn gthread, {servers.THREADS} threads, against ASGI under uvicorn"
NOTES = f"""\
Local: an app that answers itself, without and with the middleware and {MAPPINGS:,} Mappings; {HEADERS} headers, random
prefixes, no gray requests. In a loop: the app called {CALLS:,} times in a row with environs as gunicorn makes them.
Under gunicorn: the median of the CPU time of single calls, taken by the thread that makes them; the process as a whole
costs far more than what is to be seen, and not twice the same, for its threads contend for the interpreter lock.
Forwarded: {FEW} Mappings, every request gray, so that all go to nginx; what forwarding adds is the CPU per request less
that of the bare app under the same server with the same requests. granian serves both kinds of apps by the same code,
WSGI with {servers.THREADS} threads, so that there the two ways to forward can be compared. wrk -t1 -c{CONNECTIONS}."""
CLIENTS = f"""\
Clients alone, one request at a time and {servers.THREADS}, each in a thread, or a task for asyncio, without a server;
CPU us per request, median (smallest-largest) of {CLIENT_ROUNDS} rounds:"""

GUNICORN_LOCAL = "gunicorn, bare app"
GUNICORN_STABLE = "gunicorn, with middleware"
GUNICORN_BARE = "gunicorn, bare app, gray requests"
GUNICORN_GRAY = "gunicorn, forwarded"
UVICORN_BARE = "uvicorn, bare app, gray requests"
UVICORN_GRAY = "uvicorn, forwarded"
GRANIAN_THREADS = "granian WSGI, forwarded"
GRANIAN_TASKS = "granian ASGI, forwarded"


def run(options: Options, folder: Path) -> Section:
    """Measure; without wrk and nginx only what needs neither."""
    section = Section("P13", TITLE, [NOTES])
    path = servers.rules_file(folder, MAPPINGS)
    section.at_most("added CPU per local call, in a loop", added(path, options.rounds), LIMIT_ADDED, "us", 2)
    samples: Samples = {}
    calls: list[float] = []
    try:
        samples, calls = _served(section, path, folder, options)
    except Missing as exc:
        section.notes.append(str(exc))
    section.at_most("added CPU per local call, under gunicorn", calls, LIMIT_ADDED, "us", 2)
    whole = cpu_added(samples, GUNICORN_STABLE, GUNICORN_LOCAL)
    section.figure("added CPU per local request, gunicorn as a whole", whole, "us")
    for name, bare in ((GUNICORN_GRAY, GUNICORN_BARE), (UVICORN_GRAY, UVICORN_BARE)):
        section.figure(f"added CPU per request, {name}", cpu_added(samples, name, bare), "us")
    ratios = cpu_ratios(samples, GRANIAN_THREADS, GRANIAN_TASKS)
    section.at_most("CPU per forwarded request, WSGI over ASGI, both under granian", ratios, LIMIT_RATIO, "x", 2)
    return section


def _served(section: Section, path: Path, folder: Path, options: Options) -> tuple[Samples, list[float]]:
    """The servers' figures, and what the middleware adds to a call of the app that answers itself."""
    with ExitStack() as stack:
        ports = stack.enter_context(servers.upstream(folder))
        started = start(stack, _starters(path, folder, ports.gray), section)
        for name in {GUNICORN_GRAY, UVICORN_GRAY, GRANIAN_THREADS, GRANIAN_TASKS} & set(started):
            servers.routing(started[name])
        samples = in_turn(_targets(started, folder), options)
        section.table = table(samples)
        _clients(section, ports.stable, min(options.rounds, CLIENT_ROUNDS))
        if not {GUNICORN_LOCAL, GUNICORN_STABLE} <= set(started):
            return samples, []
        without, with_it = (_microseconds(started[name]) for name in (GUNICORN_LOCAL, GUNICORN_STABLE))
    return samples, [with_it - without]


def _starters(path: Path, folder: Path, upstream: int) -> dict[str, Starter]:
    few = {RULES: str(servers.rules_file(folder, FEW)), UPSTREAM: f"http://127.0.0.1:{upstream}"}
    return {
        GUNICORN_LOCAL: servers.wsgi("timed_wsgi_app", folder),
        GUNICORN_STABLE: servers.wsgi("timed_wrapped_wsgi_app", folder, {RULES: str(path)}),
        GUNICORN_BARE: servers.wsgi("bare_wsgi", folder),
        GUNICORN_GRAY: servers.wsgi("wrapped_wsgi_app", folder, few),
        UVICORN_BARE: servers.asgi("bare", folder),
        UVICORN_GRAY: servers.asgi("wrapped_app", folder, few),
        GRANIAN_THREADS: servers.wsgi("wrapped_wsgi_app", folder, few, server="granian"),
        GRANIAN_TASKS: servers.asgi("wrapped_app", folder, few, server="granian"),
    }


def _targets(started: Dict[str, Server], folder: Path) -> list[Target]:
    local = script(folder, MAPPINGS // 2, gray=False, extra=HEADERS - 1)
    gray = script(folder, FEW // 2, gray=True, every=1)
    own = GUNICORN_LOCAL, GUNICORN_STABLE
    return [Target(name, server, local if name in own else gray) for name, server in started.items()]


def _microseconds(server: Server) -> float:
    """What `Timed` measured."""
    return float(get(server.port, TIME)[1])


def _clients(section: Section, port: int, rounds: int) -> None:
    one, many = (clients.costs(port, count, rounds) for count in (1, servers.THREADS))
    lines = [f"- {name}: {spread(one[name])}; {spread(values)}" for name, values in many.items()]
    section.notes.append("\n".join([CLIENTS, "", *lines]))
    what = "CPU per request of our client for threads over that for asyncio"
    section.figure(f"{what}, one at a time", _over_asyncio(one), "x", 2)
    section.at_most(f"{what}, {servers.THREADS} at once", _over_asyncio(many), LIMIT_RATIO, "x", 2)


def _over_asyncio(found: dict[str, list[float]]) -> list[float]:
    return [one / other for one, other in zip(found[clients.THREADED], found[clients.ASYNCIO], strict=True)]


def added(path: Path, rounds: int) -> list[float]:
    """Microseconds of CPU that the middleware adds to a call, a figure for each round."""
    environs = [_environ(head) for head in rules.heads(MAPPINGS, CALLS)]
    middleware = wrapped_wsgi(path)
    middleware.start()
    pairs = [
        (best(lambda: _calls(middleware, environs)), best(lambda: _calls(bare_wsgi, environs))) for _ in range(rounds)
    ]
    middleware.close()
    return [with_it - without for with_it, without in pairs]


def _calls(app: WSGIApp, environs: list[Environ]) -> float:
    began = thread_time_ns()
    for environ in environs:
        app(environ, _start_response)
    return (thread_time_ns() - began) / len(environs) / 1000


def _start_response(_status: str, _headers: list[tuple[str, str]], _exc_info: object = None, /) -> type[bytes]:
    """Nobody listens: only the app is measured."""
    return bytes


def _environ(head: RequestHead) -> Environ:
    path = head.path.decode()
    return {
        "wsgi.errors": None,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": None,
        "wsgi.input_terminated": True,
        "SERVER_SOFTWARE": "gunicorn",
        "wsgi.input": None,
        "gunicorn.socket": None,
        "REQUEST_METHOD": head.method,
        "QUERY_STRING": "",
        "RAW_URI": path,
        "SERVER_PROTOCOL": "HTTP/1.1",
        **{f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in head.headers},
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
    }
