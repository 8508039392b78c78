"""The command line."""

import os
import ssl
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from time import time
from typing import Any

import click

from . import __version__
from .exceptions import ConfigError
from .hops import trusted_headers
from .inspection import check, explain_command, schema
from .policies import seconds
from .settings import CERT_REQS, LOG_LEVELS, Settings, variable
from .tls import load_authorities, load_pair
from .trustedheaders import SIGNATURE

_APP = "canary_mw.proxy:create_app"
# uvicorn's own exit status for an app that cannot start.
_NOT_STARTED = 3
# Seconds until a worker that is not up, or does not answer its parent, is given up. uvicorn's 5 are too few on a busy
# node: workers would be killed while they start, again and again, and a rolling restart would be called off.
_PATIENCE = 30
_CHOICES = {"log_level": LOG_LEVELS, "ssl_cert_reqs": CERT_REQS}
_METAVARS = {
    "rules": "PATH",
    "local": "NAME",
    "upstream": "NAME=URL",
    "forwarded_allow_ips": "ADDRESS",
    "trusted_headers": "NAME",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="canary-mw")
@click.pass_context
def main(context: click.Context) -> None:
    """Gray releases by Ambassador Mapping rules."""
    if os.environ.get("NO_COLOR"):
        context.color = False


main.add_command(check)
main.add_command(explain_command)
main.add_command(schema)


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each setting; what is not given comes from its environment variable."""
    for each in reversed(fields(Settings)):
        command = _option(each.name, each.default, each.metadata)(command)
    return command


def _option(name: str, default: Any, metadata: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    flag = "--" + name.replace("_", "-")
    text = f"{metadata['help']} [env: {variable(name)}]"
    if isinstance(default, bool):
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    if metadata["separator"]:
        return click.option(flag, name, multiple=True, metavar=_METAVARS[name], help=f"{text} Repeatable.")
    shown = "" if default is None else f" [default: {default}]"
    kind: Any = click.Choice(_CHOICES[name]) if name in _CHOICES else int if isinstance(default, int) else str
    return click.option(flag, name, type=kind, default=None, help=text + shown)


def read_settings(options: dict[str, Any]) -> Settings:
    """Settings of the environment with the given options over them.

    Raises:
        click.UsageError: a value that cannot work.
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    try:
        base = Settings.from_environ()
        return Settings(**{each.name: given.get(each.name, getattr(base, each.name)) for each in fields(Settings)})
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc


@main.command()
@click.option("--once", is_flag=True, help="End after the table.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port of the proxy.")
def demo(once: bool, port: int) -> None:
    """Show a gray release on this machine.

    Starts two small upstreams and the proxy before them, sends 2,200 requests, and tells who answered them.
    """
    from .demo import run

    run(once=once, port=port)


@main.command()
@click.argument("headers", nargs=-1, required=True, metavar="NAME=VALUE...")
@click.option(
    "--key-file", required=True, envvar=variable("header_key_file"), show_envvar=True, help="Its first key signs."
)
@click.option("--valid", default="8h", show_default=True, metavar="DURATION", help="From now on, as 30m or 8h.")
def sign(headers: tuple[str, ...], key_file: str, valid: str) -> None:
    """Print headers and their signature, for a proxy with --trusted-headers and --header-key-file."""
    pairs = [header.partition("=") for header in headers]
    if bare := [name for name, equals, _ in pairs if not (name.strip() and equals)]:
        raise click.UsageError(f"{bare[0]!r} is not NAME=VALUE")
    try:
        known = trusted_headers([name for name, _, _ in pairs], key_file)
        assert known is not None, "there is a name at least"
        expires = int(time() + seconds(valid))
        signed = [(name.strip(), *known.sign(name, value, expires)) for name, _, value in pairs]
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    for name, value, _ in signed:
        click.echo(f"{name}: {value}")
    click.echo(f"{SIGNATURE.decode()}: {', '.join(signature for _, _, signature in signed)}")


@main.command()
@settings_options
def serve(**options: Any) -> None:
    """Run the standalone proxy."""
    # Servers are imported where one is run; the other commands start a third faster without.
    from .proxy import create_app

    settings = read_settings(options)
    if not settings.rules:
        raise click.UsageError(f"no rules: give --rules PATH, or set {variable('rules')}")
    try:
        tls_options(settings)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    # Workers, and this process too, read their settings from the environment.
    os.environ.update(settings.to_environ())
    try:
        app = create_app(settings)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    if settings.strict:
        app.store.reload()
        if app.store.error is not None:
            click.echo(f"canary-mw: {app.store.error}", err=True)
            sys.exit(1)
    run(settings)


def run(settings: Settings) -> None:
    """Serve until a signal ends it; settings are read from the environment by each worker."""
    import uvicorn

    from .server import Server, raise_file_limit

    raise_file_limit()
    options: dict[str, Any] = {
        **tls_options(settings),
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "loop": "auto",
        "http": "canary_mw.protocol:GuardedProtocol",
        "lifespan": "on",
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
        "access_log": False,
        "log_level": settings.log_level,
        "log_config": log_config(settings.log_level),
        "timeout_keep_alive": settings.keep_alive,
        "timeout_graceful_shutdown": settings.grace,
        "timeout_worker_healthcheck": _PATIENCE,
    }
    if settings.workers > 1:
        uvicorn.run(_APP, workers=settings.workers, **options)
        return
    server = Server(uvicorn.Config(_APP, **options))
    server.run()
    if not server.started:
        sys.exit(_NOT_STARTED)


def tls_options(settings: Settings) -> dict[str, Any]:
    """uvicorn's options for TLS on our own port.

    Raises:
        ConfigError: a file cannot be used; uvicorn itself would show a traceback.
    """
    if settings.ssl_certfile is None:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(context, settings.ssl_certfile, settings.ssl_keyfile)
    if settings.ssl_ca_certs is not None:
        load_authorities(context, settings.ssl_ca_certs)
    return {
        "ssl_certfile": settings.ssl_certfile,
        "ssl_keyfile": settings.ssl_keyfile,
        "ssl_ca_certs": settings.ssl_ca_certs,
        "ssl_cert_reqs": CERT_REQS.index(settings.ssl_cert_reqs),
    }


def log_config(level: str) -> dict[str, Any]:
    """uvicorn's own configuration, with our loggers beside its own; the access log alone goes to stdout."""
    from uvicorn.config import LOGGING_CONFIG

    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["formatters"]["canary"] = {"format": "%(message)s"}
    config["handlers"]["canary"] = {
        "class": "logging.StreamHandler",
        "formatter": "canary",
        "stream": "ext://sys.stdout",
    }
    config["loggers"]["canary_mw"] = {"handlers": ["default"], "level": level.upper(), "propagate": False}
    config["loggers"]["canary_mw.access"] = {"handlers": ["canary"], "level": "INFO", "propagate": False}
    return config
