"""Charts over time as SVG, of numbers alone.

Lines are drawn in a box of 100 by 100 that is stretched; strokes keep their width. Values are read by pointing at one
of the columns, whose titles need no script.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

Values = Sequence[float | None]


class Line(NamedTuple):
    """The values of a variant and the bounds of its band, None where nothing was measured."""

    values: Values
    lows: Values = ()
    highs: Values = ()


def nice_ceiling(value: float) -> float:
    """The smallest of 1, 2, 3, 4, 5, 6, 8 and 10, times a power of ten, that is not below the value; 1 for none."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = float(10 ** math.floor(math.log10(value)))
    for factor in (1, 2, 3, 4, 5, 6, 8):
        if value <= factor * power * (1 + 1e-9):
            return factor * power
    return 10 * power


def top_of(lines: Sequence[Line]) -> float:
    """The end of a scale on which all values lie, and the bands as far as they do not dwarf them."""
    values = [value for line in lines for value in line.values if value is not None]
    bounds = [bound for line in lines for bound in line.highs if bound is not None]
    highest = max(values, default=0.0)
    return nice_ceiling(
        max(highest, min(max(bounds, default=0.0), 2 * highest) if highest else max(bounds, default=0.0))
    )


def chart(
    lines: Sequence[Line], top: float, uprights: Sequence[float], titles: Sequence[str], limit: float | None = None
) -> Markup:
    """Lines with bands, stable first.

    Args:
        uprights: where something happened, 0 to 1.
        titles: of each column; made of numbers.
        limit: a value at which something happens.
    """
    grid = "".join(f'<line class="grid" x1="0" x2="100%" y1="{y}%" y2="{y}%"/>' for y in (0, 50, 100))
    marks = "".join(
        f'<line class="upright" x1="{100 * x:.2f}%" x2="{100 * x:.2f}%" y1="0" y2="100%"/>'
        for x in uprights
        if 0 <= x <= 1
    )
    bands = "".join(_band(line, top, _class(row)) for row, line in enumerate(lines))
    strokes = "".join(_stroke(line, top, f"{_class(row)} n{row}") for row, line in enumerate(lines))
    inner = f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{bands}{strokes}</svg>'
    return Markup(grid + inner + marks + _limit(limit, top) + _columns(titles))


def _limit(limit: float | None, top: float) -> str:
    if limit is None:
        return ""
    y = f"{100 - 100 * min(max(limit / top, 0), 1):.2f}%"
    return f'<line class="limit" x1="0" x2="100%" y1="{y}" y2="{y}"/>'


def _class(row: int) -> str:
    return "gray" if row else "stable"


def _points(values: Values, top: float) -> list[list[tuple[float, float]]]:
    """The points of a line, in runs without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    step = 100 / max(len(values) - 1, 1)
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((index * step, 100 - 100 * min(max(value / top, 0), 1)))
    return [run for run in runs if run]


def _text(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _stroke(line: Line, top: float, name: str) -> str:
    """A line for each run; a value between two gaps is a dash."""
    found = []
    for run in _points(line.values, top):
        ((x, y),) = run[:1]
        points = run if len(run) > 1 else [(max(x - 0.6, 0), y), (min(x + 0.6, 100), y)]
        found.append(f'<polyline class="line-{name}" points="{_text(points)}"/>')
    return "".join(found)


def _band(line: Line, top: float, name: str) -> str:
    lows, highs = _points(line.lows, top), _points(line.highs, top)
    return "".join(
        f'<polygon class="band-{name}" points="{_text([*high, *reversed(low)])}"/>'
        for low, high in zip(lows, highs, strict=False)
        if len(low) == len(high) > 1
    )


def _columns(titles: Sequence[str]) -> str:
    """Columns that show nothing but their title, at the pointer."""
    width = 100 / max(len(titles), 1)
    return "".join(
        f'<rect class="hover" x="{index * width:.2f}%" y="0" width="{width:.2f}%" height="100%">'
        f"<title>{Markup.escape(title)}</title></rect>"
        for index, title in enumerate(titles)
    )
