"""Every command and every event in every phase: the whole table of the engine, asked as `evidence --batch` asks it.

The release has steps to 5, 25, 50 and 100 percent and a holdback of 5, and is looked at in the step of 25.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from canary_mw.exceptions import ConfigError
from canary_mw.rollout.batch.answers import answer

# A cell is the phase and the weight after an event: "same" for neither changed, "409" for a refused command, "gone"
# for the end of the release, with the weights of the Mappings. Held is by a timeout where nothing else is said, but for
# "pause {}".
TABLE = Path(__file__).with_name("transitions.txt").read_text(encoding="utf-8")
WEIGHTS = {"Pending": 0, "Baking": 95, "Completed": 100, "RolledBack": 0, "Aborted": 0}


def cells(table: str) -> Iterator[tuple[str, str, str]]:
    """(phase, event, cell) of each cell."""
    head, *rows = (line.split("|") for line in table.splitlines())
    for event, *row in rows:
        for phase, cell in zip(head[1:], row, strict=True):
            yield phase.strip(), event.strip(), cell.strip()


def told(phase: str, event: str) -> dict[str, Any]:
    return answer({"kind": "transitions", "state": phase, "event": event})


def present_weight(phase: str, event: str) -> float:
    default = 50 if "last step" in event or "confirm-promotion" in event else 25
    return WEIGHTS.get(phase, default)


@pytest.mark.parametrize(("phase", "event", "cell"), list(cells(TABLE)))
def test_what_follows(phase: str, event: str, cell: str) -> None:
    got = told(phase, event)
    if cell == "gone":
        assert (got["to"], got["weight"], got["percent"]) == ("(gone)", "Mappings' own", None)
        return
    weight = present_weight(phase, event)
    expected = f"{phase} {weight:g}" if cell in ("same", "409") else cell
    assert f"{got['to']} {got['percent']:g}" == expected
    assert got["http"] == (409 if cell == "409" else 200)


@pytest.mark.parametrize(
    ("phase", "event", "words"),
    [
        ("Pending", "promote", "first step"),
        ("Progressing", "promote", "next step"),
        ("Progressing", "promote --full", "100 less holdback"),
        ("Baking", "promote", "100"),
        ("Paused", "set-weight lower", "given"),
        ("Paused", "abort", "0"),
        ("Progressing", "get", "same"),
        ("Progressing", "controller_lost", "same, never higher"),
        ("Progressing", "document:removed", "Mappings' own"),
    ],
)
def test_a_weight_has_words(phase: str, event: str, words: str) -> None:
    assert told(phase, event)["weight"] == words


@pytest.mark.parametrize(
    ("state", "event", "text"),
    [
        ("Manual", "get", "state must be Pending or Progressing"),
        ("Pending", "explode", "event is 'explode'"),
        ("Pending", "gate:confirm-everything 2xx", "event is 'gate:confirm-everything 2xx'"),
        ("Pending", "set-weight much", "set-weight 'much' is no percent"),
        ("Pending", "get (hold by moonlight)", "'moonlight'"),
        ("Pending", 7, "event must be a text"),
    ],
)
def test_what_cannot_be_asked_says_so(state: str, event: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        answer({"kind": "transitions", "state": state, "event": event})
    assert text in str(caught.value)
