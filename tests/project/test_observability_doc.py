"""docs/observability.md: its tables are those of the code, and what its examples name is there."""

import json
import re
import runpy

import pytest
from installation import ROOT

from canary_mw.observability.logs.lines import FIELDS
from canary_mw.rollout.sentence import STATES

PAGE = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "observability_reference.py"))


def test_the_tables_are_those_of_the_code() -> None:
    assert SCRIPT["with_tables"](PAGE) == PAGE, "write them anew: .venv/bin/python scripts/observability_reference.py"


def test_a_table_that_is_old_is_written_anew() -> None:
    old = re.sub(r"^\| `canary_mw_.*\n", "", PAGE, flags=re.M)
    assert old != PAGE
    assert SCRIPT["with_tables"](old) == PAGE


def test_every_metric_that_is_named_is_there() -> None:
    known = set(re.findall(r"^\| `(canary_mw_\w+)`", SCRIPT["metrics_table"](), re.M))
    assert set(re.findall(r"\bcanary_mw_\w+", PAGE)) <= known


def test_the_line_that_is_shown_has_the_fields_of_a_line() -> None:
    (line,) = re.findall(r"^```json\n(.*)\n```$", PAGE, re.M)
    assert list(json.loads(line)) == [name for name in FIELDS if name in json.loads(line)]


def test_the_alert_asks_for_states_that_there_are() -> None:
    (states,) = re.findall(r'state=~"([\w|]+)"', PAGE)
    assert set(states.split("|")) <= set(STATES)


@pytest.mark.parametrize("name", ["status", "mapping", "bytes_out"])
def test_what_every_line_has_is_described(name: str) -> None:
    assert f"| `{name}` |" in SCRIPT["fields_table"]()
