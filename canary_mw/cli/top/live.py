"""Keeps the releases of a server up to date on a terminal."""

import os
from collections.abc import Iterable
from time import monotonic
from typing import Any
from urllib.parse import quote, urlencode

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from canary_mw.cli.admin_port import Refusal, Unreachable, ask_json
from canary_mw.cli.terminal import visible
from canary_mw.cli.top.keys import State, next_keys, pressed, unbuffered
from canary_mw.cli.top.view import Line, Piece, Role, Wanted, releases_in, view

# Seconds between two looks at the server.
_EVERY = 1.0
_STYLES: dict[Role, str] = {
    "": "",
    "dim": "dim",
    "bold": "bold",
    "stable": "bright_blue",
    "gray": "yellow",
    "bad": "bold red",
    "warn": "bold yellow",
    "good": "green",
}
_KEYS: Line = [
    *(
        piece
        for key, what in (("q", "quit"), ("1 5 f h", "window"), ("s", "sort"), ("/", "find"), ("enter", "open"))
        for piece in (Piece(key, "bold"), Piece(f" {what}   ", "dim"))
    ),
    Piece("p", "bold"),
    Piece(" pause", "dim"),
]
_LEGEND: Line = [
    Piece("   "),
    Piece("━", "stable"),
    Piece(" stable ", "dim"),
    Piece("╍", "gray"),
    Piece(" gray", "dim"),
]


def show(admin: str, window: str) -> None:
    """Show the releases until a person ends it."""
    console = Console(no_color=bool(os.environ.get("NO_COLOR")), highlight=False)
    screen = _Screen(admin, State(window=window))
    with unbuffered(), Live(console=console, screen=True, auto_refresh=False) as live:
        while not screen.state.ended:
            live.update(_rendered(screen.lines(console.width, console.height)), refresh=True)
            for key in next_keys(screen.wait()):
                screen.state = pressed(screen.state, key)
            screen.refresh()


class _Screen:
    """What is shown, and what was last heard of the server."""

    def __init__(self, admin: str, state: State) -> None:
        self._admin = admin
        self.state = state
        self._shown: tuple[str, str] = "", ""
        self._asked = 0.0
        self._overview: Any = None
        self._error = ""
        self.refresh()

    def wait(self) -> float:
        """Seconds until the server is asked again."""
        return _EVERY if self.state.paused else max(self._asked + _EVERY - monotonic(), 0.0)

    def refresh(self) -> None:
        """Ask the server, where it is time to."""
        wanted = self.state.window, ""
        if self._shown == wanted and (self.state.paused or self.wait() > 0):
            return
        self._asked, self._shown = monotonic(), wanted
        try:
            self._overview = ask_json(self._admin, f"/api/v1/overview?{urlencode({'window': self.state.window})}")
            self._error = ""
        except (Unreachable, Refusal) as exc:
            self._error = str(exc)

    def lines(self, columns: int, rows: int) -> list[Line]:
        """The lines of the screen."""
        below = [*self._notes(), [*_KEYS, *(_LEGEND if columns >= 80 else [])]]
        if self._overview is None:
            return below
        found = releases_in(self._overview, Wanted(columns, self.state.sort, self.state.find))
        chosen = min(self.state.chosen, max(len(found) - 1, 0))
        self.state = self.state._replace(chosen=chosen)
        shown = view(self._overview, Wanted(columns, self.state.sort, self.state.find, chosen))
        if self.state.opened and found:
            shown = _opened(self._admin, self._overview, found[chosen], columns)
        return [*shown[: max(rows - len(below) - 1, 1)], [], *below]

    def _notes(self) -> list[Line]:
        notes: list[Line] = []
        if self._error:
            notes.append([Piece(f"The server is lost: {visible(self._error)}", "bad")])
        if self.state.typing or self.state.find:
            notes.append(
                [Piece("/", "bold"), Piece(visible(self.state.find)), Piece("▏" if self.state.typing else "", "dim")]
            )
        if self.state.paused:
            notes.append([Piece("Paused: p goes on", "warn")])
        return notes


def _opened(admin: str, overview: Any, release: Any, columns: int) -> list[Line]:
    """One release alone, with its events and the address of its page."""
    alone = view({**overview, "releases": [release]}, Wanted(columns))
    texts = [f"  {each['at'][11:16]}  {visible(each['text'])}" for each in release["events"]]
    page = f"{admin}/ambassador/v0/diag/releases/{quote(release['name'], safe='')}"
    return [*alone, [], *([Piece(text, "dim")] for text in texts), [Piece("  Page: ", "dim"), Piece(page)]]


def _rendered(lines: Iterable[Line]) -> Group:
    return Group(*(Text.assemble(*((each.text, _STYLES[each.role]) for each in line), no_wrap=True) for line in lines))
