"""Bar charts as SVG, in groups, for a page of documentation."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from .chart import COLOURS, STYLE, text

_WIDTH, _LEFT, _RIGHT, _TOP = 720, 190, 70, 52
_BAR, _GAP, _GROUP = 22, 6, 34


@dataclass(frozen=True)
class Bars:
    """Groups of horizontal bars.

    Attributes:
        name: of the file, without suffix.
        label: what the bars are, with its unit.
        bars: positive values by their name, by the name of the group.
    """

    name: str
    title: str
    label: str
    bars: Mapping[str, Mapping[str, float]]


def svg_of_bars(chart: Bars) -> str:
    """The picture; it follows the reader's light or dark scheme."""
    longest = max((value for group in chart.bars.values() for value in group.values()), default=1.0)
    parts, y = [], float(_TOP)
    for title, group in chart.bars.items():
        parts.append(text(_LEFT, y + 16, title, "start", "title"))
        y += _GROUP - 8
        for number, (name, value) in enumerate(group.items()):
            width = (_WIDTH - _LEFT - _RIGHT) * value / longest
            colour = COLOURS[number % len(COLOURS)]
            parts.append(f'<rect x="{_LEFT}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>')
            parts.append(text(_LEFT - 8, y + _BAR / 2 + 4, name, "end"))
            parts.append(text(_LEFT + width + 6, y + _BAR / 2 + 4, f"{value:,.0f}", "start"))
            y += _BAR + _GAP
        y += _GAP
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 8:.0f}" role="img">',
        f"<title>{escape(chart.title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{y + 8:.0f}"/>',
        text(16, 24, chart.title, "start", "title"),
        text(16, 42, chart.label, "start"),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"
