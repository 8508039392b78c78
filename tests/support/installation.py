"""The package as its users get it: a wheel, installed into an environment of its own, away from the checkout."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

import pytest
from servers import Process

ROOT = Path(__file__).parent.parent.parent


def environ(**more: str) -> dict[str, str]:
    """The environment without what leads Python back to the checkout, or measures coverage there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_", "PYTHON"))}
    return kept | more


def build(into: Path, *options: str) -> Path:
    """Build as PyPI's releases are built, and return the wheel; by default it is made from the sdist.

    Args:
        options: of `python -m build`; `--wheel` builds from the checkout.
    """
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), *options, str(ROOT)]
    outcome = subprocess.run(command, cwd=into, env=environ(), capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (built,) = into.glob("*.whl")
    return built


def contents(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Environment:
    """An environment with nothing in it, made by an interpreter."""

    def __init__(self, folder: Path, interpreter: str | Path = sys.executable) -> None:
        command = [interpreter, "-m", "venv", "--without-pip", str(folder)]
        subprocess.run(command, env=environ(), check=True)
        self.folder = folder
        self.python = folder / "bin" / "python"

    def install(self, *arguments: str | Path) -> None:
        """Run `pip install`, with the pip of the tests."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", "--quiet"]
        command = [*pip, "install", *map(str, arguments)]
        outcome = subprocess.run(command, env=environ(), capture_output=True, text=True, check=False)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr

    def install_pinned(self, *arguments: str | Path) -> None:
        """Install from the index or pip's cache, at the versions of `constraints.txt`."""
        pins = ROOT / "constraints.txt"
        self.install("--constraint", pins, "--build-constraint", pins, *arguments)

    def run(self, *command: str | Path, cwd: Path, timeout: float = 50) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment ("python", "canary-mw") in a folder."""
        path = self.folder / "bin" / command[0]
        return subprocess.run(
            [path, *command[1:]], cwd=cwd, env=environ(), capture_output=True, text=True, check=False, timeout=timeout
        )


class Installation(Environment):
    """An environment with the wheel; whatever else it needs is found where the tests find it."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        super().__init__(folder)
        self.install("--no-deps", "--no-index", wheel)
        (packages,) = folder.glob("lib/python*/site-packages")
        # A .pth file there is not read, so the editable installation of the checkout stays out.
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")


class InstalledServer(Process):
    """A server in the environment, started by `python -m` in a folder, with its output in a file there."""

    def __init__(self, installation: Environment, command: Iterable[str], cwd: Path, variables: dict[str, str]) -> None:
        self.log = cwd / "server.log"
        self._file = self.log.open("wb")
        self.child = subprocess.Popen(
            [installation.python, "-m", *command],
            cwd=cwd,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env=environ(**variables),
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist."""
    return build(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="session")
def sdist(wheel: Path) -> Path:
    """What the wheel is built from."""
    (built,) = wheel.parent.glob("*.tar.gz")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an environment of its own."""
    return Installation(tmp_path_factory.mktemp("installed"), wheel)
