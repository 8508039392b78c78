"""A release that is watched: on a terminal its lines stay up to date, elsewhere each transition is a line."""

import shutil
import sys
import time
from typing import Any

import click

from canary_mw.cli.admin_port import Refusal, Unreachable, ask_json
from canary_mw.cli.release.asking import as_json, asked, path_of
from canary_mw.cli.release.history import change_line
from canary_mw.cli.release.painting import painted
from canary_mw.cli.release.view import view
from canary_mw.cli.terminal import visible
from canary_mw.cli.top.view import Piece

# Seconds between two looks.
EVERY = 1.0
_HOME_AND_CLEAR, _CLEAR_BELOW = "\x1b[H\x1b[2J", "\x1b[H\x1b[J"


def watch_release(admin: str, name: str, output: str) -> None:
    """Show a release until a person ends it."""
    answer = asked(admin, path_of(name))
    if output == "text" and sys.stdout.isatty():
        _on_a_terminal(admin, name, answer)
    else:
        _as_lines(admin, name, answer, output)


def _on_a_terminal(admin: str, name: str, answer: Any) -> None:
    # `click.echo` leaves out codes for terminals where nobody wants colours.
    sys.stdout.write(_HOME_AND_CLEAR)
    lost = ""
    while True:
        lines = view(answer, shutil.get_terminal_size().columns)
        if lost:
            lines += [[], [Piece(f"The server is lost: {lost}", "bad")]]
        sys.stdout.write(_CLEAR_BELOW)
        click.echo(painted(lines))
        time.sleep(EVERY)
        answer, lost = _again(admin, name, answer)


def _as_lines(admin: str, name: str, answer: Any, output: str) -> None:
    """The transitions so far, and each one that follows."""
    shown: list[Any] = []
    lost = ""
    while True:
        changes = [*reversed(answer["rollout"]["history"])] if answer["rollout"] else []
        new = [each for each in changes if each not in shown]
        if output == "json" and (new or not shown):
            click.echo(as_json(answer))
        elif output == "text":
            for each in new:
                click.echo(change_line(each))
        shown = changes or shown
        time.sleep(EVERY)
        answer, now_lost = _again(admin, name, answer)
        if now_lost and not lost:
            click.echo(f"the server is lost: {now_lost}", err=True)
        lost = now_lost


def _again(admin: str, name: str, before: Any) -> tuple[Any, str]:
    """The newest answer; the one before, and why, where there is none."""
    try:
        return ask_json(admin, path_of(name)), ""
    except (Unreachable, Refusal) as exc:
        return before, visible(str(exc))
