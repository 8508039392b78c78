import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = ("mapping-reference", "gray-release-reference", "kinds-reference")


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_current(page: str) -> None:
    command = [sys.executable, str(ROOT / "scripts" / f"{page.replace('-', '_')}.py"), "--check"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_every_table_of_the_page_has_as_many_cells_in_each_row(page: str) -> None:
    cells = 0
    for line in (ROOT / "docs" / f"{page}.md").read_text("utf-8").splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        count = line.replace("\\|", "").count("|")
        cells = cells or count
        assert count == cells, line
