"""`canary-mw demo`: two small upstreams, the proxy before them and requests to it, on real sockets in this process."""

import asyncio
import errno
import logging
import math
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import click
import uvicorn

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import RequestHead, raw_headers
from canary_mw.inspection.explanation import explain
from canary_mw.routing.table import RouteTable
from canary_mw.rules.upstream import Origin
from canary_mw.server.app import Proxy
from canary_mw.server.settings import Settings
from canary_mw.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("canary_mw.demo")

HOST = "127.0.0.1"
PATH = "/svc/"
SERVICES = ("service-stable", "service-gray")
AT_A_TIME = 8

_HEADINGS = ("rule", "variant", "requests", "expected", "seen", "p50", "p99")
_COLOURS = {"stable": "green", "gray": "magenta"}


class Round(NamedTuple):
    """Requests of one kind, and the rule that they show."""

    rule: str
    headers: dict[str, str]
    requests: int


ROUNDS = (Round("weight: 20", {}, 2000), Round("headers: gray: true", {"gray": "true"}, 200))


class Answer(NamedTuple):
    """Who answered a request, by its own words, and after how many seconds; None where it failed."""

    service: str | None
    seconds: float


def run(*, once: bool, port: int) -> None:
    """Start everything, show the rounds, and serve until Ctrl-C unless `once` is set.

    Args:
        port: of the proxy, in [0, 65535]; where it cannot be had, a free one is used and named.

    Raises:
        click.ClickException: requests failed.
    """
    # Whoever terminates it wants what Ctrl-C does: the file of rules goes too.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with _rules_file() as rules, asyncio.Runner(loop_factory=_new_event_loop) as runner:
            runner.run(_demo(rules, port, once))
    except KeyboardInterrupt:
        click.echo("\nStopped.")


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # pragma: no cover - there is none for Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@contextmanager
def _rules_file() -> Iterator[Path]:
    with TemporaryDirectory(prefix="canary-mw-demo-") as directory:
        path = Path(directory, "rules.yaml")
        path.write_text(rules_text(), encoding="utf-8")
        yield path


def rules_text() -> str:
    """The rules of the demo: a weight and a header form beside a stable Mapping of the same prefix."""
    return files(__package__).joinpath("demo.yaml").read_text(encoding="utf-8")


async def _demo(rules: Path, port: int, once: bool) -> None:
    listeners = {service: _listen(0) for service in SERVICES}
    listener = _listen_or_free(port)
    places = {service: f"http://{HOST}:{_port(each)}" for service, each in listeners.items()}
    upstream = tuple(f"{service}={url}" for service, url in places.items())
    proxy = Proxy(Settings(rules=(str(rules),), upstream=upstream, port=_port(listener), hop_id="demo"))
    apps: list[tuple[ASGIApp, socket.socket]] = [(_upstream(service), each) for service, each in listeners.items()]
    url = f"http://{HOST}:{_port(listener)}{PATH}"
    async with _serving([*apps, (proxy, listener)]):
        _print_places(url, places)
        await _show(proxy, Origin("http", HOST, _port(listener)))
        if once:
            return
        _print_hints(url, rules)
        await asyncio.Event().wait()


def _listen(port: int) -> socket.socket:
    """Connections queue up from here on, so nobody has to wait for the servers to start."""
    return socket.create_server((HOST, port), backlog=128)


def _listen_or_free(port: int) -> socket.socket:
    try:
        return _listen(port)
    except OSError as exc:
        listener = _listen(0)
        reason = "is taken" if exc.errno == errno.EADDRINUSE else f"cannot be had ({exc.strerror})"
        click.echo(f"Port {port} {reason}; using {_port(listener)} instead.")
        return listener


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _upstream(service: str) -> ASGIApp:
    """An app that names itself and what it was asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = f"{service} answers {scope['method']} {scope['path']}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


class _Server(uvicorn.Server):
    """One of several in a loop; signals are for whoever runs the loop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


@asynccontextmanager
async def _serving(apps: Sequence[tuple[ASGIApp, socket.socket]]) -> AsyncIterator[None]:
    servers = [_Server(_config(app)) for app, _ in apps]
    tasks = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, (_, listener) in zip(servers, apps, strict=True)
    ]
    try:
        yield
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on" if isinstance(app, Proxy) else "off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # As in `serve`: the proxy passes on the date of the upstream.
        date_header=not isinstance(app, Proxy),
        timeout_graceful_shutdown=1,
    )


async def _show(proxy: Proxy, origin: Origin) -> None:
    """Send the rounds and print what came of them."""
    client = HTTP11Client()
    total = sum(each.requests for each in ROUNDS)
    try:
        with click.progressbar(length=total, label=f"Sending {total:,} requests", show_eta=False) as bar:
            bar.update_min_steps = 50
            answers = [await _send(client, origin, each, bar.update) for each in ROUNDS]
    finally:
        await client.aclose()
    rows = [row for each, some in zip(ROUNDS, answers, strict=True) for row in _rows(each, some, proxy.store.table)]
    _print_table(rows)
    failed = sum(answer.service is None for some in answers for answer in some)
    if failed:
        raise click.ClickException(f"{failed:,} of {total:,} requests failed; the lines above say why")


async def _send(client: HTTP11Client, origin: Origin, each: Round, tick: Callable[[int], None]) -> list[Answer]:
    """Send one round, a few requests at a time."""
    headers = [("host", origin.authority), *each.headers.items()]
    request = UpstreamRequest("demo", "GET", PATH.encode(), raw_headers(headers), timeout=10.0, replayable=True)
    numbers = iter(range(each.requests))
    answers: list[Answer] = []

    async def worker() -> None:
        for _ in numbers:
            answers.append(await _ask(client, origin, request))
            tick(1)

    await asyncio.gather(*(worker() for _ in range(AT_A_TIME)))
    return answers


async def _ask(client: HTTP11Client, origin: Origin, request: UpstreamRequest) -> Answer:
    began = perf_counter()
    body = b""
    try:
        response = await client.send(origin, request)
        while piece := await response.read():
            body += piece
    except UpstreamError as exc:
        logger.warning("a request failed: %s", exc)
        return Answer(None, perf_counter() - began)
    if response.head.status != 200:
        logger.warning("a request was answered %d: %s", response.head.status, body.decode(errors="replace").strip())
        return Answer(None, perf_counter() - began)
    return Answer(body.split()[0].decode(), perf_counter() - began)


def _rows(each: Round, answers: list[Answer], table: RouteTable) -> Iterator[tuple[str, ...]]:
    """One row for each service that the rules give a share to: what they promise beside what was seen."""
    candidates = explain(table, RequestHead("GET", PATH, each.headers)).candidates
    for candidate in sorted(candidates, key=lambda c: -c.percent):
        if candidate.decision is None:
            continue
        service = candidate.decision.mapping.service.text
        seconds = sorted(answer.seconds for answer in answers if answer.service == service)
        seen = 100.0 * len(seconds) / len(answers)
        yield (
            each.rule,
            candidate.decision.variant,
            f"{len(seconds):,}",
            f"{candidate.percent:.1f} %",
            f"{seen:.1f} %",
            _milliseconds(seconds, 50),
            _milliseconds(seconds, 99),
        )


def _milliseconds(ordered: list[float], percent: int) -> str:
    """The smallest value that `percent` of them do not exceed."""
    if not ordered:
        return "-"
    return f"{1000 * ordered[math.ceil(len(ordered) * percent / 100) - 1]:.2f} ms"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Texts to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]

    def line(cells: tuple[str, ...]) -> list[str]:
        return [
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]

    click.echo()
    click.secho("  ".join(line(_HEADINGS)), bold=True)
    for row in rows:
        rule, variant, *rest = line(row)
        click.echo("  ".join((rule, click.style(variant, fg=_COLOURS[row[1]]), *rest)))


def _print_places(url: str, places: dict[str, str]) -> None:
    click.echo(f"The proxy listens on {click.style(url, bold=True)} before")
    width = max(map(len, places))
    for service, place in places.items():
        click.echo(f"  {service.ljust(width)}  {place}/")
    click.echo()


def _print_hints(url: str, rules: Path) -> None:
    click.echo()
    click.secho("Try it in another terminal:", bold=True)
    click.echo(f"  curl {url}")
    click.echo(f"  curl -H 'gray: true' {url}")
    click.echo(f"  for i in $(seq 10); do curl -s {url}; done")
    click.echo()
    click.echo(f"Edit {click.style(str(rules), bold=True)}: a change is live within a second.")
    click.echo("Serving until Ctrl-C.")
    # From here on the rules are the user's: say what becomes of each edit.
    ours = logging.getLogger("canary_mw")
    ours.addHandler(logging.StreamHandler(sys.stdout))
    ours.setLevel(logging.INFO)
