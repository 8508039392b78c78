"""The keys of `canary-mw top`, one at a time, without waiting for the end of a line."""

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from canary_mw.cli.top.view import SORTS, Sort

WINDOW_KEYS = {"1": "1m", "5": "5m", "f": "15m", "h": "1h"}
_UP, _DOWN = "\x1b[A", "\x1b[B"
_ENTER = ("\r", "\n")
_BACKSPACE = ("\x7f", "\b")
_ESCAPE = "\x1b"


class State(NamedTuple):
    """What a person has chosen.

    Attributes:
        typing: the keys are those of a text to find.
        opened: the chosen release is shown alone.
    """

    window: str = "5m"
    sort: Sort = "urgency"
    find: str = ""
    typing: bool = False
    paused: bool = False
    chosen: int = 0
    opened: bool = False
    ended: bool = False


def pressed(state: State, key: str) -> State:
    """The state after a key; unknown ones change nothing."""
    if state.typing:
        return _typed(state, key)
    if key in WINDOW_KEYS:
        return state._replace(window=WINDOW_KEYS[key])
    if key in ("q", "\x03"):
        return state._replace(ended=True)
    if key == "s":
        return state._replace(sort=SORTS[(SORTS.index(state.sort) + 1) % len(SORTS)], chosen=0)
    if key == "/":
        return state._replace(typing=True, opened=False, chosen=0)
    if key == "p":
        return state._replace(paused=not state.paused)
    if key in _ENTER:
        return state._replace(opened=not state.opened)
    return _moved(state, key)


def _moved(state: State, key: str) -> State:
    if key in (_DOWN, "j"):
        return state._replace(chosen=state.chosen + 1)
    if key in (_UP, "k"):
        return state._replace(chosen=max(state.chosen - 1, 0))
    return state._replace(opened=False, find="") if key == _ESCAPE else state


def _typed(state: State, key: str) -> State:
    if key in _ENTER:
        return state._replace(typing=False)
    if key in (_ESCAPE, "\x03"):
        return state._replace(typing=False, find="")
    if key in _BACKSPACE:
        return state._replace(find=state.find[:-1])
    return state._replace(find=state.find + key) if key.isprintable() else state


@contextmanager
def unbuffered() -> Iterator[None]:
    """The terminal gives each key at once, and does not show it."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def next_keys(seconds: float) -> list[str]:
    """The keys that are pressed within some seconds; those of an arrow are one."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    if not ready:
        return []
    text = os.read(sys.stdin.fileno(), 1024).decode("utf-8", "ignore")
    # The end of the terminal.
    return [text] if text in (_UP, _DOWN) else list(text) if text else ["q"]
