"""Line charts as SVG, for a page of documentation; nothing needs to be installed for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log2, log10

Point = tuple[float, float]

_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 52, 52
# Told apart by people who see few colours too (Okabe and Ito), and by their marks.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#8a5a83", "#777777")
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #333; }
.title { font-weight: 600; font-size: 15px; }
.grid { stroke: #ddd; } .axis { stroke: #888; } .paper { fill: #fff; }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd; } .grid { stroke: #3a3a3a; } .axis { stroke: #777; } .paper { fill: #161b22; }
}"""


@dataclass(frozen=True)
class Chart:
    """Lines over an axis that doubles from mark to mark; the other begins at 0, or is logarithmic where values differ
    by more than a factor of 20.

    Attributes:
        name: of the file, without suffix.
        lines: points by the name of their line, with x in ascending order and positive values.
        ticks: the x that get a label, with it.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[Point]]
    ticks: Mapping[str, float]


class _Scale:
    """Values -> pixels."""

    def __init__(self, chart: Chart) -> None:
        points = [point for line in chart.lines.values() for point in line]
        xs = [x for x, _ in points] + list(chart.ticks.values())
        ys = [y for _, y in points]
        self.low_x, self.high_x = log2(min(xs)), log2(max(xs))
        self.logarithmic = max(ys) > 20 * min(ys)
        self.marks = _decades(min(ys), max(ys)) if self.logarithmic else _steps(max(ys))

    def x(self, value: float) -> float:
        share = (log2(value) - self.low_x) / ((self.high_x - self.low_x) or 1)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.marks[0], self.marks[-1]
        share = log10(value / low) / log10(high / low) if self.logarithmic else value / high
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 and so on, from the last one not above `low` to the first one not below `high`."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    marks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    first = max(number for number, mark in enumerate(marks) if mark <= low)
    last = min(number for number, mark in enumerate(marks) if mark >= high)
    return marks[first : last + 1]


def _steps(high: float) -> list[float]:
    """0 and four to eight equal steps of a round size, the last one not below `high`."""
    rough = high / 6
    size = 10 ** floor(log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    return [step * number for number in range(ceil(high / step) + 1)]


def svg(chart: Chart) -> str:
    """The picture; it follows the reader's light or dark scheme."""
    scale = _Scale(chart)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(chart.title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        text(_LEFT, 24, chart.title, "start", "title"),
        text(_LEFT, 42, chart.y_label, "start"),
        text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, chart.x_label),
        *_axes(chart, scale),
        *_lines(chart, scale),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axes(chart: Chart, scale: _Scale) -> Iterator[str]:
    for mark in scale.marks:
        y = scale.y(mark)
        kind = "axis" if mark == scale.marks[0] else "grid"
        yield f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield text(_LEFT - 8, y + 4, f"{mark:,g}" if mark < 1e5 else f"{mark:,.0f}", "end")
    for label, value in chart.ticks.items():
        yield text(scale.x(value), _HEIGHT - _BOTTOM + 18, label)


def _lines(chart: Chart, scale: _Scale) -> Iterator[str]:
    ends = {name: scale.y(line[-1][1]) for name, line in chart.lines.items() if line}
    labels = _apart(ends)
    for number, (name, line) in enumerate((name, line) for name, line in chart.lines.items() if line):
        colour = COLOURS[number % len(COLOURS)]
        places = [(scale.x(x), scale.y(y)) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for (x, y), (_, value) in zip(places, line, strict=True):
            tip = escape(f"{name}: {value:,.1f}")
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{tip}</title></circle>'
        yield f'<circle cx="{_WIDTH - _RIGHT + 14}" cy="{labels[name]:.1f}" r="4" fill="{colour}"/>'
        yield text(_WIDTH - _RIGHT + 23, labels[name] + 4, f"{name} {line[-1][1]:,.0f}", "start")


def _apart(ends: dict[str, float], gap: float = 18.0) -> dict[str, float]:
    """The same heights, pushed down where two labels would touch."""
    placed: dict[str, float] = {}
    last = float("-inf")
    for name, y in sorted(ends.items(), key=lambda item: item[1]):
        last = placed[name] = max(y, last + gap)
    return placed


def text(x: float, y: float, content: str, anchor: str = "middle", kind: str = "") -> str:
    """A text of a picture."""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(content)}</text>'
