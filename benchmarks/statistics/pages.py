"""The tables as Markdown, for RESULTS.md and for docs/."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence

from .tables import Row

_INTRODUCTION = """\
# Statistics of releases, simulated

Written by `python -m benchmarks.statistics`, not by hand. The seeds are fixed, and nothing here depends on the machine.
10,000 users have very different habits (the logarithm of their rates has a deviation of 1.2); 0.5 % of their requests
fail in stable. "Few users" means that 2 % of them cause 80 % of the errors. The code that judges releases looks at gray
with each failure. The other rules look once a minute: in the shape of Flagger (less than 99 % of the requests of a
minute succeed, 5 times), in that of Argo Rollouts (the same query, 4 times), and a z-test of both variants (1 %,
one-sided). alpha is 1 %.
"""


def page(found: Dict[str, Sequence[Row]]) -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for title, table in tables(found).items():
        parts.append(f"## {title}\n\n{table}")
    return "\n".join(parts)


def tables(found: Dict[str, Sequence[Row]]) -> dict[str, str]:
    """The tables by their titles."""
    return {
        "Equal versions that are taken back": _false_alarms(found["false alarms"]),
        "Minutes until gray is taken back": _detections(found["detections"]),
        "Slow answers": _slow(found["slow answers"]),
        "Whole releases": _whole(found["whole releases"]),
    }


def _false_alarms(rows: Sequence[Row]) -> str:
    head = ("stream", "canary-mw", "of", "Flagger's shape", "Argo's shape", "z-test each look", "of")
    names = ("flagger", "argo", "z_test")
    cells = [[f"{row['ours']} %", row["runs"], *(f"{row[name]} %" for name in names), row["rivals"]] for row in rows]
    return _table(head, [[row["stream"], *each] for row, each in zip(rows, cells, strict=True)])


def _detections(rows: Sequence[Row]) -> str:
    head = ("stream (median / 90 %)", "releases", "canary-mw", "Flagger's shape", "Argo's shape")
    return _table(
        head,
        [
            [row["stream"], row["runs"], *(_times(row, f"{name} ") for name in ("ours", "flagger", "argo"))]
            for row in rows
        ],
    )


def _times(row: Row, prefix: str = "") -> str:
    return " / ".join("–" if row[prefix + name] is None else f"{row[prefix + name]}" for name in ("median", "90 %"))


def _slow(rows: Sequence[Row]) -> str:
    head = ("stream", "releases", "called slower", "minutes, median / 90 %")
    return _table(head, [[row["stream"], row["runs"], f"{row['found']} %", _times(row)] for row in rows])


def _whole(rows: Sequence[Row]) -> str:
    text = (
        "Steps of 1, 5, 25, 50 and 100 percent, 5 minutes each at least, a bake of 15 minutes, 1,000 requests a\n"
        "minute; errors alone are judged. The engine of the product decides once a minute, and rolls back with each\n"
        "failure. Flagger's shape grows by 5 % a minute up to 50 %. Beyond the margin: releases in which a step newly\n"
        "hit more than 0.5 % of all requests. Extra: requests that failed because gray is worse, on average.\n\n"
    )
    head = (
        "gray",
        "releases",
        "completed / rolled back / not yet",
        "minutes",
        "largest weight",
        "extra",
        "beyond the margin",
        "Flagger's shape: completed / rolled back",
        "extra",
    )
    return text + _table(head, [_whole_row(row) for row in rows])


def _whole_row(row: Row) -> list[object]:
    rest = 100 - float(row["completed"] or 0) - float(row["rolled back"] or 0)
    ends = f"{row['completed']} / {row['rolled back']} / {abs(round(rest, 1))} %"
    theirs = f"{row['flagger completed']} / {row['flagger rolled back']} %"
    ours = [row["minutes"], f"{row['weight']} %", row["extra"], row["beyond margin"]]
    return [row["gray"], row["runs"], ends, *ours, theirs, row["flagger extra"]]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)
