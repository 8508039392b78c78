"""Scripts and benchmarks run from start to end; what they write does not go into the checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from installation import ROOT, environ


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, check=False)


def test_the_reference_of_mappings_is_written_as_it_stands(tmp_path: Path) -> None:
    # The script writes beside the folder that it lies in.
    script = tmp_path / "scripts" / "mapping_reference.py"
    script.parent.mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "scripts" / script.name, script)
    outcome = run(sys.executable, str(script))
    assert (outcome.returncode, outcome.stderr) == (0, "")
    page = Path("docs") / "mapping-reference.md"
    assert (tmp_path / page).read_bytes() == (ROOT / page).read_bytes()


def test_make_hands_the_row_to_the_benchmarks() -> None:
    planned = run("make", "--dry-run", "bench", "ROW=P7")
    assert planned.returncode == 0, planned.stderr
    assert "-m benchmarks --row P7\n" in planned.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_row_of_the_benchmarks_is_measured(tmp_path: Path) -> None:
    rounds = ("--rounds", "1", "--seconds", "1")
    outcome = run(sys.executable, "-m", "benchmarks", "--row", "P7", *rounds, "--into", str(tmp_path))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "## P7" in (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
