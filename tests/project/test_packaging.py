"""What a release holds."""

import subprocess
from pathlib import Path
from zipfile import ZipFile

from installation import ROOT, build

from canary_mw import __version__

PACKAGE = ROOT / "canary_mw"
INFO = f"canary_mw-{__version__}.dist-info"
METADATA = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def package_files() -> list[str]:
    """What git tracks; what is there, in an archive of the sources, which has no history."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "canary_mw"]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [path.relative_to(ROOT).as_posix() for path in files]


def test_the_wheel_holds_each_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    expected = {name: (ROOT / name).read_bytes() for name in package_files()}
    found = contents(wheel)
    info = {name for name in found if name.startswith(f"{INFO}/")}
    assert info == {f"{INFO}/{name}" for name in METADATA}
    assert {name: found[name] for name in found.keys() - info} == expected
    assert {"canary_mw/py.typed", "canary_mw/cli/demo.yaml"} <= expected.keys()


def test_the_sdist_builds_the_same_wheel_as_the_checkout(wheel: Path, tmp_path: Path) -> None:
    assert contents(build(tmp_path, "--wheel")) == contents(wheel)
