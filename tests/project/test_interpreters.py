"""Other versions of Python than the one that runs the tests: the demo without a warning, and a part of the tests."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import ROOT, Environment, environ

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
MINE = f"{sys.version_info.major}.{sys.version_info.minor}"
# What versions of Python differ in: forks beside threads, event loops, signals, imports, pickles.
PART = """
tests/unit/test_forking.py tests/unit/test_locks.py tests/unit/test_host.py
tests/unit/client/test_name_lookup.py tests/unit/upstreams/test_loop_states.py
tests/unit/middleware/test_both.py tests/unit/middleware/test_dropped_apps.py tests/unit/middleware/test_shutdown.py
tests/project/test_pickling.py tests/project/test_public_api.py
""".split()


def interpreter(version: str) -> str:
    """An interpreter of this version, or the test is skipped."""
    for path in candidates(version):
        # Run, not only looked up: version managers put one on the path that refuses to start.
        if says(path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return path
    pytest.skip(f"no Python {version} is found: `make pythons` installs it where there is a network")


def candidates(version: str) -> Iterator[str]:
    """Paths on which it may be: those of the shell, of `make pythons`, and of pyenv."""
    if found := shutil.which(f"python{version}"):
        yield found
    for folder in (ROOT / ".venv" / "pythons", Path.home() / ".pyenv" / "versions"):
        yield from (str(path) for path in sorted(folder.glob(f"*{version}.*/bin/python{version}")))


def says(*command: str) -> str:
    """What a command prints; nothing, if it fails."""
    try:
        return subprocess.run(command, env=environ(), capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("version", [each for each in VERSIONS if each != MINE])
def test_the_demo_and_a_part_of_the_tests_run_without_warnings(version: str, wheel: Path, tmp_path: Path) -> None:
    other = Environment(tmp_path / "environment", interpreter(version))
    other.install_pinned(f"{wheel}[all]", "--group", f"{ROOT / 'pyproject.toml'}:test")
    demo = ("python", "-X", "dev", "-W", "error", "-m", "canary_mw", "demo", "--once", "--port", "0")
    outcome = other.run(*demo, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "gray: true" in outcome.stdout
    assert "Warning" not in outcome.stderr
    part = ("python", "-m", "pytest", "-q", "-n", "2", "-m", "not slow", "-p", "no:cacheprovider", *PART)
    outcome = other.run(*part, cwd=ROOT, timeout=300)
    assert outcome.returncode == 0, outcome.stdout[-5000:] + outcome.stderr
    assert int(outcome.stdout.rpartition(" passed")[0].split()[-1]) > 100, outcome.stdout[-1000:]
