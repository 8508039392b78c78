"""Lines of `top` in the colours of a terminal, by click alone."""

from collections.abc import Iterable
from typing import Any

import click

from canary_mw.cli.top.view import Line, Role

_STYLES: dict[Role, dict[str, Any]] = {
    "": {},
    "dim": {"dim": True},
    "bold": {"bold": True},
    "stable": {"fg": "bright_blue"},
    "gray": {"fg": "yellow"},
    "bad": {"fg": "red", "bold": True},
    "warn": {"fg": "yellow", "bold": True},
    "good": {"fg": "green"},
}


def painted(lines: Iterable[Line]) -> str:
    """The lines with colours; `click.echo` leaves them out where nobody sees them."""
    return "\n".join("".join(click.style(each.text, **_STYLES[each.role]) for each in line) for line in lines)
