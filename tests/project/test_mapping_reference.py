import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "mapping-reference.md"


def test_the_page_is_current() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "mapping_reference.py"), "--check"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_every_table_of_the_page_has_as_many_cells_in_each_row() -> None:
    cells = 0
    for line in PAGE.read_text("utf-8").splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        count = line.replace("\\|", "").count("|")
        cells = cells or count
        assert count == cells, line
