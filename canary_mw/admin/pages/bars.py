"""Bars as SVG, of numbers alone: nothing that somebody writes comes into markup here.

Lengths are percents, so that bars fill what is there. Colours are classes of the stylesheet.
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

# A line of an interval, and the space between two of them, in pixels.
_BAR, _ROW = 7, 10
# Length of the shortest interval, in percent of the scale. One up to twice as long has no tick: it would hide it.
_NARROW = 2.5


class Span(NamedTuple):
    """An interval with its figure, in the units of its scale; None where it is open."""

    low: float | None
    value: float | None
    high: float | None


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def _rect(classes: str, x: float, y: float, width: float, height: float) -> str:
    place = f'x="{_number(x)}%" y="{_number(y)}" width="{_number(width)}%" height="{_number(height)}"'
    return f'<rect class="{classes}" {place}/>'


def _tick(x: float, y: float, height: float) -> str:
    at = _number(x)
    return f'<line class="tick" x1="{at}%" x2="{at}%" y1="{_number(y)}" y2="{_number(y + height)}"/>'


def split_parts(shares: Sequence[float], height: int, plain: bool = False) -> Markup:
    """The inside of a bar: the shares of gray variants in percent from the left, and stable behind them."""
    gray = "fill-gray-plain" if plain else "fill-gray"
    parts, at = [_rect("fill-stable", 0, 0, 100, height)], 0.0
    for share in shares:
        length = min(max(share, 0.0), 100.0 - at)
        parts.append(_rect(gray, at, 0, length, height))
        at += length
    return Markup("".join(parts))


def split_bar(seen: Sequence[float], by_rules: float, height: int = 11) -> Markup:
    """What gray got, and a tick where it ends by the rules."""
    return split_parts(seen, height) + Markup(_tick(min(max(by_rules, 0.2), 99.8), 0, height))


def intervals(spans: Sequence[Span], top: float) -> Markup:
    """An interval a row, stable first, on a scale from 0 to `top`, with a tick at its figure."""
    parts = []
    for row, (low, value, high) in enumerate(spans):
        y, narrow = 1 + row * _ROW, False
        parts.append(_rect("fill-track", 0, y + _BAR / 2 - 0.5, 100, 1))
        if low is not None or high is not None:
            start = 100 * min((low or 0.0) / top, 1)
            end = max(100 * min((top if high is None else high) / top, 1), start + _NARROW)
            parts.append(_rect("fill-gray" if row else "fill-stable", min(start, 100 - _NARROW), y, end - start, _BAR))
            narrow = end - start < 2 * _NARROW
        if value is not None and not narrow:
            parts.append(_tick(100 * min(value / top, 1), y - 1, _BAR + 2))
    return Markup("".join(parts))


def ring(ranges: Sequence[tuple[float, float]], before: Sequence[float], at: float | None = None) -> Markup:
    """The ring of keys, laid out: the ranges of gray, where they ended before, and where one key lies. In percent."""
    parts = [_rect("fill-stable", 0, 6, 100, 14)]
    parts += [_rect("fill-gray", low, 6, high - low, 14) for low, high in ranges]
    parts += [_tick(high, 3, 20) for low, high in ranges if low < high < 100]
    for each in before:
        x = _number(each)
        parts.append(f'<line class="upright before" x1="{x}%" x2="{x}%" y1="3" y2="23"/>')
    if at is not None:
        parts.append(_tick(min(max(at, 0.2), 99.8), 0, 26))
    return Markup("".join(parts))


def length(part: float, whole: float, fill: str = "fill-gray-plain") -> Markup:
    """A part of a whole as a bar."""
    share = 100 * part / whole if whole else 0.0
    return Markup(_rect("fill-track", 0, 0, 100, 5) + _rect(fill, 0, 0, share, 5))
