"""`canary-mw serve`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import click

from canary_mw.cli.server_libraries import server_libraries
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.shown_settings import OPTIONS
from canary_mw.run_folder.folder import remove_folder
from canary_mw.run_folder.opened import make_run_folder
from canary_mw.server.settings import CERT_REQS, LOG_LEVELS, Settings, variable

_CHOICES = {"log_level": LOG_LEVELS, "ssl_cert_reqs": CERT_REQS}
# That of Ambassador's diagnostics.
ADMIN_PORT = 8877
_METAVARS = {
    "rules": "PATH",
    "local": "NAME",
    "upstream": "NAME=URL",
    "forwarded_allow_ips": "ADDRESS",
    "trusted_headers": "NAME",
    "admin_host_names": "NAME",
    "hook_hosts": "HOST",
    "unguarded": "PATH",
}


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for each setting; without it, the environment variable of the setting counts."""
    for each in reversed(fields(Settings)):
        command = _option(each.name, each.default, each.metadata)(command)
    return command


def _option(name: str, default: Any, metadata: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    option = flag(name)
    text = f"{metadata['help']} [env: {variable(name)}]"
    if isinstance(default, bool):
        return click.option(f"{option}/--no-{option[2:]}", name, default=None, help=text)
    if metadata["separator"]:
        return click.option(option, name, multiple=True, metavar=_METAVARS[name], help=f"{text} Repeatable.")
    default_shown = ADMIN_PORT if name == "admin_port" else default
    shown = "" if default is None else f" [default: {default_shown}]"
    kind: Any = click.Choice(_CHOICES[name]) if name in _CHOICES else int if isinstance(default, int) else str
    return click.option(option, name, type=kind, default=None, help=text + shown)


def flag(name: str) -> str:
    """The option of a setting."""
    return "--" + name.replace("_", "-")


def read_settings(options: dict[str, Any]) -> Settings:
    """Read the settings: the given options, and the environment for the others.

    Raises:
        click.UsageError: a value is invalid.
    """
    given = {name: value for name, value in options.items() if value is not None and value != ()}

    def named(name: str) -> str:
        return flag(name) if name in given else variable(name)

    try:
        return Settings(**Settings.read_environ(without=given), **given, named=named)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc


@contextmanager
def with_admin_port(settings: Settings, options: dict[str, Any]) -> Iterator[Settings]:
    """The settings with an admin port that is kept for them, where none is given; 0 is given for none."""
    if options["admin_port"] is not None or os.environ.get(variable("admin_port"), "").strip():
        yield settings
        return
    from canary_mw.admin.server import reserve

    try:
        kept = reserve(settings.admin_host, ADMIN_PORT)
    except OSError as exc:
        raise click.UsageError(f"{exc}; give --admin-host another address") from exc
    with kept:
        port = kept.getsockname()[1]
        if port != ADMIN_PORT:
            click.echo(f"canary-mw: {settings.admin_host}:{ADMIN_PORT} is taken: the admin port is {port}", err=True)
        yield replace(settings, admin_port=port, named=variable)


@click.command()
@settings_options
def serve(**options: Any) -> None:
    """Run the standalone proxy."""
    # Imported here because the other commands start a third faster without it.
    with server_libraries():
        from canary_mw.server.runner import tls_options
    settings = read_settings(options)
    if not settings.rules:
        raise click.UsageError(f"no rules: give --rules PATH, or set {variable('rules')}")
    try:
        tls_options(settings)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    with with_admin_port(settings, options) as settings:
        run_workers(settings, options)


def run_workers(settings: Settings, options: dict[str, Any]) -> None:
    """Serve until a signal; the settings are valid."""
    from canary_mw.server.app import create_app
    from canary_mw.server.runner import run

    # The workers, and the app of this process too, read their settings from the environment.
    os.environ.update(settings.to_environ())
    os.environ[OPTIONS] = ",".join(name for name, value in options.items() if value not in (None, ()))
    try:
        app = create_app(settings)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc
    if settings.strict:
        app.store.reload()
        if app.store.error is not None:
            click.echo(f"canary-mw: {app.store.error}", err=True)
            sys.exit(1)
        app.store.stop()
    with shared_folder(settings):
        run(settings)


@contextmanager
def shared_folder(settings: Settings) -> Iterator[None]:
    """Make the folder that the workers share, where none is named, and remove it at the end."""
    path = make_run_folder() if settings.run_dir is None else None
    if path is None:
        yield
        return
    os.environ[variable("run_dir")] = path
    try:
        yield
    finally:
        remove_folder(path)
