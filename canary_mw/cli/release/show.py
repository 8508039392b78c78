"""`canary-mw release list`, `get`, `watch` and `history`."""

import shutil
import sys

import click

from canary_mw.cli.admin_port import admin_option
from canary_mw.cli.release.asking import as_json, asked, output_option, path_of
from canary_mw.cli.release.history import history_lines, list_lines
from canary_mw.cli.release.painting import painted
from canary_mw.cli.release.view import view
from canary_mw.cli.release.watching import watch_release

# Columns where there is no terminal.
_COLUMNS = 120


@click.command("list")
@admin_option
@output_option
def list_command(admin: str, output: str) -> None:
    """List the releases, and how far they are."""
    answer = asked(admin, "/api/v1/releases")
    click.echo(as_json(answer) if output == "json" else painted(list_lines(answer["releases"])))


@click.command()
@click.argument("name")
@admin_option
@click.option("-w", "--watch", "watches", is_flag=True, help="Keep it up to date, until it is interrupted.")
@output_option
def get(name: str, admin: str, watches: bool, output: str) -> None:
    """Show how far a release is: its step, what its evidence says, and what comes next."""
    if watches:
        watch_release(admin, name, output)
        return
    answer = asked(admin, path_of(name))
    click.echo(as_json(answer) if output == "json" else painted(view(answer, columns())))


@click.command()
@click.argument("name")
@admin_option
@output_option
def watch(name: str, admin: str, output: str) -> None:
    """Show how far a release is, and keep it up to date: `get --watch`.

    Where the output is no terminal, it is a line for each transition; with -o json each is an answer of its own.
    """
    watch_release(admin, name, output)


@click.command()
@click.argument("name")
@admin_option
@output_option
def history(name: str, admin: str, output: str) -> None:
    """Show what happened to a release: when, why, and by whom."""
    answer = asked(admin, path_of(name))
    rollout = answer["rollout"]
    changes = [] if rollout is None else rollout["history"]
    if output == "json":
        click.echo(as_json(changes))
    elif rollout is None:
        click.echo("nothing raises this release by itself: the page of reloads shows what changed")
    else:
        click.echo(painted(history_lines(rollout)))


def columns() -> int:
    """The width of the terminal."""
    return shutil.get_terminal_size((_COLUMNS, 24)).columns if sys.stdout.isatty() else _COLUMNS
