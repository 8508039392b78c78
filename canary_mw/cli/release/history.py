"""What `canary-mw release history` and `list` show."""

from collections.abc import Sequence
from typing import Any

from canary_mw.cli.release.words import phase_of, step_of
from canary_mw.cli.terminal import fitted, visible, width
from canary_mw.cli.top.view import Line, Piece
from canary_mw.rollout.formatting import share


def history_lines(rollout: Any) -> list[Line]:
    """What happened, the newest last."""
    head = ("TIME", "PHASE", "STEP", "WEIGHT", "BY", "REASON")
    return table(head, [_change(each) for each in reversed(rollout["history"])])


def list_lines(releases: Sequence[Any]) -> list[Line]:
    """All releases, a line each."""
    head = ("NAME", "PHASE", "STEP", "WEIGHT", "ATTEMPT", "REASON")
    return table(head, [_listed(each) for each in releases])


def change_line(change: Any) -> str:
    """Something that happened, on a line."""
    return "  ".join(filter(None, (change["at"], *_change(change)[1:])))


def _change(change: Any) -> tuple[str, ...]:
    moved = change["before"] and change["before"] != change["after"]
    phase = f"{change['before']} → {change['after']}" if moved else change["after"]
    by = " ".join(visible(each) for each in (change["who"], change["address"]) if each)
    weight = share(sum(change["weights"].values()))
    return change["at"], phase, str(change["item"] or ""), weight, by, visible(change["reason"])


def _listed(release: Any) -> tuple[str, ...]:
    rollout = release["rollout"]
    if rollout is None:
        gray = sum(percent for name, percent in release["weights"].items() if name != "stable")
        return visible(release["name"]), "–", "", share(gray), "", "nothing raises it by itself"
    weight = rollout["weight"]
    if rollout["phase"] == "Manual":
        weight = sum(percent for name, percent in release["weights"].items() if name != "stable")
    cells = phase_of(rollout)[0], step_of(rollout), share(weight), str(rollout["attempt"])
    return (
        visible(release["name"]),
        *cells,
        "; ".join(map(visible, filter(None, (rollout["reason"], *rollout["findings"])))),
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Line]:
    """Rows below their head, in columns as wide as they need."""
    sizes = [max(width(row[column]) for row in (head, *rows)) for column in range(len(head) - 1)]
    lines: list[Line] = []
    for number, row in enumerate((head, *rows)):
        text = "  ".join([*(fitted(cell, size) for cell, size in zip(row, sizes, strict=False)), row[-1]])
        lines.append([Piece(text.rstrip(), "" if number else "dim")])
    return lines
