"""`canary-mw demo`: two small upstreams, a proxy for them and requests to it, on real sockets in this process.

Requests of the same users go on, so that the pages of the admin port have something to show.
"""

import asyncio
import errno
import logging
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import click
import uvicorn

from canary_mw.cli.demo_report import print_hints, print_page, print_rollback, print_table, print_urls, table_rows
from canary_mw.cli.demo_requests import BATCHES, PATH, keep_sending, send_batch
from canary_mw.cli.demo_verdict import RELEASE, Faults, first_step_within, page_of, phase_within, resume
from canary_mw.client.aio.client import HTTP11Client
from canary_mw.rules.upstream import Origin
from canary_mw.server.app import Proxy
from canary_mw.server.settings import Settings
from canary_mw.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
GRAY = "service-gray"
SERVICES = ("service-stable", GRAY)
ADMIN_PORT = 8877
# The file with the token for commands, beside the rules.
TOKEN = "token"
# Seconds in which the release has to begin, after which gray fails, and in which that has to be taken back.
BEGINS_WITHIN = 20
FAILS_AFTER = 5
ROLLED_BACK_WITHIN = 60


def run(*, once: bool, port: int, fault: float = 0.0) -> None:
    """Start upstreams and proxy, send the requests, print the table, and serve until Ctrl-C unless `once` is set.

    Args:
        port: of the proxy, in [0, 65535]; a free one is used and printed where this one cannot be bound.
        fault: percent of its requests that gray fails some seconds after the table; with `once` it does so at once, and
            the rollback is waited for.

    Raises:
        click.ClickException: requests failed, or the release does not begin, or is not rolled back, in time.
    """
    # SIGTERM does what Ctrl-C does, so that the file of rules is removed too. A shell without job control lets what it
    # starts in the background ignore Ctrl-C, which would take SIGTERM along.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with _rules_file() as rules, asyncio.Runner(loop_factory=_new_event_loop) as runner, _quiet_package():
            runner.run(_demo(rules, port, once, fault))
    except KeyboardInterrupt:
        click.echo("\nStopped.")


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # pragma: no cover - not available on Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@contextmanager
def _quiet_package() -> Iterator[None]:
    """No INFO of the proxy until `_log_to_stdout`: its start would stand between the lines of the demo."""
    package_logger = logging.getLogger("canary_mw")
    level = package_logger.level
    package_logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package_logger.setLevel(level)


@contextmanager
def _rules_file() -> Iterator[Path]:
    with TemporaryDirectory(prefix="canary-mw-demo-") as directory:
        path = Path(directory, "rules.yaml")
        path.write_text(rules_text(), encoding="utf-8")
        yield path


def rules_text() -> str:
    """The rules of the demo: a stable Mapping and a gray one of one prefix, and a release with steps."""
    return files(__package__).joinpath("demo.yaml").read_text(encoding="utf-8")


async def _demo(rules: Path, port: int, once: bool, fault: float) -> None:
    listeners = {service: _listen(0) for service in SERVICES}
    listener = _listen_or_free(port)
    urls = {service: f"http://{HOST}:{_port(each)}" for service, each in listeners.items()}
    upstream = tuple(f"{service}={url}" for service, url in urls.items())
    admin_port = 0 if once and not fault else _free_port(ADMIN_PORT)
    token = token_hex(32)
    proxy, faults = Proxy(_settings(rules, upstream, _port(listener), admin_port, token)), Faults()
    upstreams = {service: _upstream(service) for service in SERVICES}
    upstreams[GRAY] = faults.before(upstreams[GRAY])
    apps: list[tuple[ASGIApp, socket.socket]] = [(upstreams[service], each) for service, each in listeners.items()]
    url = f"http://{HOST}:{_port(listener)}{PATH}"
    async with _serving([*apps, (proxy, listener)]):
        print_urls(url, urls)
        await first_step_within(BEGINS_WITHIN, proxy.store)
        await _send_and_report(proxy, Origin("http", HOST, _port(listener)))
        # Whoever looks has the page open by then.
        asyncio.get_running_loop().call_later(0 if once else FAILS_AFTER, faults.begin, fault)
        if not once:
            print_page(page_of(admin_port), fault, FAILS_AFTER)
            print_hints(url, rules, _command(rules, admin_port))
        if admin_port:
            _log_to_stdout()
            await _go_on(Origin("http", HOST, _port(listener)), admin_port, token, once)


def _settings(rules: Path, upstream: tuple[str, ...], port: int, admin_port: int, token: str) -> Settings:
    tokens = rules.with_name(TOKEN)
    tokens.touch(mode=0o600)
    tokens.write_text(f"operate {token} demo\n", encoding="ascii")
    return Settings(
        rules=(str(rules),),
        upstream=upstream,
        port=port,
        admin_port=admin_port,
        admin_token_file=str(tokens),
        state=str(rules.with_name("state")),
        hop_id="demo",
    )


def _command(rules: Path, admin_port: int) -> str:
    """A command to the release that works here."""
    admin = "" if admin_port == ADMIN_PORT else f" --admin http://{HOST}:{admin_port}"
    # `make demo` puts nothing on the path.
    program = "canary-mw" if shutil.which("canary-mw") else f"{sys.executable} -m canary_mw"
    return f"{program} release pause {RELEASE} --token-file {rules.with_name(TOKEN)}{admin}"


def _listen(port: int) -> socket.socket:
    """Listen before the servers start: early connections wait in the backlog."""
    return socket.create_server((HOST, port), backlog=128)


def _listen_or_free(port: int) -> socket.socket:
    try:
        return _listen(port)
    except OSError as exc:
        listener = _listen(0)
        reason = "is taken" if exc.errno == errno.EADDRINUSE else f"cannot be bound ({exc.strerror})"
        click.echo(f"Port {port} {reason}; using {_port(listener)} instead.")
        return listener


def _free_port(port: int) -> int:
    """The port, or a free one where it is taken."""
    with _listen_or_free(port) as listener:
        return _port(listener)


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _upstream(service: str) -> ASGIApp:
    """Create an app that answers with its name, the method and the path."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = f"{service} answers {scope['method']} {scope['path']}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


class _Server(uvicorn.Server):
    """One of several servers in a loop; whoever runs the loop handles signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
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


async def _send_and_report(proxy: Proxy, origin: Origin) -> None:
    """Send the batches and print the table.

    Raises:
        click.ClickException: requests failed.
    """
    client = HTTP11Client()
    total = sum(batch.requests for batch in BATCHES)
    try:
        with click.progressbar(length=total, label=f"Sending {total:,} requests", show_eta=False) as bar:
            bar.update_min_steps = 50
            results = [await send_batch(client, origin, batch, bar.update) for batch in BATCHES]
    finally:
        await client.aclose()
    table = proxy.store.table
    print_table([row for batch, some in zip(BATCHES, results, strict=True) for row in table_rows(batch, some, table)])
    failed = sum(result.service is None for some in results for result in some)
    if failed:
        raise click.ClickException(f"{failed:,} of {total:,} requests failed; the lines above say why")


async def _go_on(origin: Origin, admin_port: int, token: str, once: bool) -> None:
    """Let the requests of the users go on: until the release is rolled back with `once`, else it goes on for ever, too.

    Raises:
        click.ClickException: it is not rolled back in time, or does not go on.
    """
    client, admin = HTTP11Client(), Origin("http", HOST, admin_port)
    sending = asyncio.create_task(keep_sending(client, origin))
    try:
        if not once:
            # The controller looks each second: only then does the step wait for somebody.
            await phase_within(BEGINS_WITHIN, "Paused", client, admin)
            await resume(client, admin, token)
            await sending
        print_rollback(await phase_within(ROLLED_BACK_WITHIN, "RolledBack", client, admin))
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await client.aclose()


def _log_to_stdout() -> None:
    """Log from here on: the user sees how the release goes on, and the effect of each edit of the rules."""
    package_logger = logging.getLogger("canary_mw")
    package_logger.addHandler(logging.StreamHandler(sys.stdout))
    package_logger.setLevel(logging.INFO)
