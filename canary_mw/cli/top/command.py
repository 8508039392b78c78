"""The command itself: once as text, or kept up to date on a terminal."""

import shutil
import sys
from urllib.parse import urlencode

import click

from canary_mw.cli.admin_port import Refusal, Unreachable, admin_option, ask_json
from canary_mw.cli.top.view import WINDOWS, Wanted, plain, view

# Columns where there is no terminal.
_COLUMNS = 80


@click.command()
@admin_option
@click.option(
    "--window", type=click.Choice(list(WINDOWS)), default="5m", show_default=True, help="Time of the figures."
)
@click.option("--once", is_flag=True, help="Print it as text, and exit.")
def top(admin: str, window: str, once: bool) -> None:
    """Show the releases of a server: stable beside gray, the most urgent first.

    On a terminal it stays up to date; the last line names its keys. Without one, and with --once, it is text.
    """
    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo(_text(admin, window))
        return
    try:
        from canary_mw.cli.top.live import show
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "rich":
            raise
        message = "rich is not installed: pip install 'canary-mw[top]' brings it; --once does without"
        raise click.UsageError(message) from exc
    show(admin, window)


def _text(admin: str, window: str) -> str:
    try:
        overview = ask_json(admin, f"/api/v1/overview?{urlencode({'window': window})}")
    except (Unreachable, Refusal) as exc:
        raise click.ClickException(str(exc)) from exc
    columns = shutil.get_terminal_size((_COLUMNS, 24)).columns if sys.stdout.isatty() else _COLUMNS
    return plain(view(overview, Wanted(columns)))
