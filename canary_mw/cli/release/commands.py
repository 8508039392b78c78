"""`canary-mw release promote`, `abort`, `retry`, `undo`, `pause`, `resume` and `set-weight`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from canary_mw.cli.admin_port import admin_option
from canary_mw.cli.release.asking import as_json, ordered, output_option, path_of, read_token, token_option
from canary_mw.cli.release.waiting import line_of
from canary_mw.cli.terminal import visible
from canary_mw.control.rollouts.settings import is_cluster
from canary_mw.server.settings import variable

# The file in the folder of the state that puts everybody on stable.
STOP = "stop"
_STOPPERS = ("operate", "stop")


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all commands have."""
    version = click.option(
        "--if-match", type=click.IntRange(0), metavar="VERSION", help="Refuse if the state has moved on since."
    )
    return admin_option(token_option(version(output_option(command))))


def _give(name: str, command: str, given: Any, query: dict[str, str] | None = None) -> None:
    """Give a command, and say what the release is then."""
    scopes = _STOPPERS if command in ("abort", "pause") else ("operate",)
    token = read_token(given["token_file"], scopes)
    path = path_of(name, command) + (f"?{urlencode(query)}" if query else "")
    answer = ordered(given["admin"], path, token, given["if_match"])
    click.echo(as_json(answer) if given["output"] == "json" else f"{visible(name)}: {line_of(answer)}")


@click.command()
@click.argument("name")
@click.option("--full", is_flag=True, help="To the end: all weights, then bake.")
@_options
def promote(name: str, full: bool, **given: Any) -> None:
    """Go on with the next step now, past what it waits for."""
    _give(name, "promote", given, {"full": "true"} if full else None)


@click.command()
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="All releases of a folder of state, without its server.")
@click.option(
    "--state",
    envvar=variable("state"),
    show_envvar=True,
    metavar="FOLDER",
    help="The folder of state, for --all.",
)
@_options
def abort(name: str | None, everything: bool, state: str | None, **given: Any) -> None:
    """Put everybody on stable, until retry.

    With --all it needs no server and no token: it writes a file into the folder of the state, which all workers obey as
    long as it is there.
    """
    if everything == (name is not None):
        raise click.UsageError("write the NAME of a release, or --all --state FOLDER")
    if everything:
        _stop_all(state)
    else:
        _give(str(name), "abort", given)


def _stop_all(state: str | None) -> None:
    if not state:
        raise click.UsageError("--all needs the folder of the state: --state FOLDER")
    if is_cluster(state):
        hint = "write --state and the run folder of a pod, CANARY_MW_RUN_DIR, to stop that pod"
        raise click.ClickException(f"{state} is no folder: {hint}; or abort each release, which is for all pods")
    folder = Path(state)
    if not folder.is_dir():
        raise click.ClickException(f"{state} is no folder: it is the one that the server has as --state")
    try:
        # It stays empty: that much is possible on a disk that is full.
        (folder / STOP).touch(mode=0o600)
    except OSError as exc:
        raise click.ClickException(f"{folder / STOP}: {exc.strerror}") from None
    click.echo(f"everybody gets stable, as long as {folder / STOP} is there")


@click.command()
@click.argument("name")
@_options
def retry(name: str, **given: Any) -> None:
    """Begin anew after a rollback or an abort, with new evidence."""
    _give(name, "retry", given)


@click.command()
@click.argument("name")
@_options
def undo(name: str, **given: Any) -> None:
    """Put everybody on stable, also after the end of a release."""
    _give(name, "undo", given)


@click.command()
@click.argument("name")
@_options
def pause(name: str, **given: Any) -> None:
    """Stay at this weight, until resume or promote."""
    _give(name, "pause", given)


@click.command()
@click.argument("name")
@_options
def resume(name: str, **given: Any) -> None:
    """Go on after a pause, through the gate of the step."""
    _give(name, "resume", given)


@click.command("set-weight")
@click.argument("name")
@click.argument("percent", type=click.FloatRange(0, 100))
@_options
def set_weight(name: str, percent: float, **given: Any) -> None:
    """Give gray this percent, and pause there."""
    _give(name, "set-weight", given, {"weight": f"{percent:g}"})
