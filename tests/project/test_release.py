"""scripts/release: what it makes, and what it refuses."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from installation import ROOT, contents, environ

from canary_mw import __version__

SCRIPT = ROOT / "scripts" / "release"


@pytest.fixture
def release(tmp_path: Path) -> Any:
    """The script, over a copy of the files that it reads."""
    loader = SourceFileLoader("release_script", str(SCRIPT))
    spec = spec_from_loader("release_script", loader)
    assert spec is not None
    module: Any = module_from_spec(spec)
    loader.exec_module(module)
    for name in ("canary_mw/__init__.py", "CHANGELOG.md", *module.NAMED):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    module.ROOT = tmp_path
    return module


NAMED = (
    "k8s/chart/Chart.yaml",
    "k8s/base/deployment.yaml",
    "k8s/demo/apps.yaml",
    "k8s/overlays/gateway/kustomization.yaml",
    "docs/kubernetes.md",
)


def test_all_that_names_a_version_names_the_same(release: Any) -> None:
    assert tuple(release.NAMED) == NAMED
    assert release.version() == __version__


@pytest.mark.parametrize("name", NAMED)
def test_a_version_that_is_left_behind_is_named(release: Any, name: str) -> None:
    path = release.ROOT / name
    path.write_text(path.read_text(encoding="utf-8").replace(__version__, "0.0.1", 1), encoding="utf-8")
    with pytest.raises(release.Unfit, match=f"{re.escape(name)} names .*0.0.1"):
        release.version()


CHANGES = """# Changelog

## [Unreleased]

### Added

- Nothing yet.

## [0.1.0] - 2026-12-01

### Added

- The first one.
"""


def test_the_notes_are_the_section_of_the_release(release: Any) -> None:
    (release.ROOT / "CHANGELOG.md").write_text(CHANGES, encoding="utf-8")
    for dated in (True, False):
        assert release.notes("0.1.0", dated=dated) == "# canary-mw 0.1.0\n\n### Added\n\n- The first one.\n"
    assert "Nothing yet" in release.notes("0.2.0", dated=False)


@pytest.mark.parametrize(
    "head", ["[Unreleased]", "[0.1.0]", "0.1.0 - 2026-12-01", "[0.1.0] - soon", "[0.1.01] - 2026-12-01"]
)
def test_a_release_has_a_dated_section(release: Any, head: str) -> None:
    text = f"# Changelog\n\n## {head}\n\n- Something.\n"
    (release.ROOT / "CHANGELOG.md").write_text(text, encoding="utf-8")
    with pytest.raises(release.Unfit, match="has no section"):
        release.notes("0.1.0", dated=True)


def test_a_folder_that_holds_something_is_left_alone(release: Any) -> None:
    with pytest.raises(release.Unfit, match="is not empty"):
        release.make(release.ROOT, dry=True)


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_only_what_is_committed_is_released(release: Any) -> None:
    git(release.ROOT, "init")
    git(release.ROOT, "add", ".")
    git(release.ROOT, "commit", "-m", "All")
    release.check_tree()
    (release.ROOT / "new").touch()
    with pytest.raises(release.Unfit, match="not committed"):
        release.check_tree()


@pytest.mark.parametrize("builder", ["docker", "podman", "buildah"])
def test_the_image_is_built_by_what_is_there(release: Any, builder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release.shutil, "which", lambda name: name if name == builder else None)
    build, save = release.image_commands("1.2.3", Path("out"))
    assert (build[0], save[0]) == (builder, builder)
    assert {"VERSION=1.2.3", "canary-mw:1.2.3"} <= set(build)
    assert "canary_mw-1.2.3-image.tar" in " ".join(save)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_dry_run_makes_all_but_the_image(wheel: Path, tmp_path: Path) -> None:
    if shutil.which("cyclonedx-py", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("cyclonedx-bom is not there: `make test-slow` installs it where there is a network")
    command = [sys.executable, str(SCRIPT), "--dry-run", "--into", str(tmp_path / "out")]
    outcome = subprocess.run(command, env=environ(), capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert re.search(rf"^would run: \w+ \w+ .*VERSION={re.escape(__version__)}", outcome.stdout, re.M)
    assert "Nothing is published" in outcome.stdout
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    sums = made.pop("SHA256SUMS").decode()
    assert sums == "".join(f"{hashlib.sha256(made[name]).hexdigest()}  {name}\n" for name in sorted(made))
    names = {f"canary_mw-{__version__}{end}" for end in ("-py3-none-any.whl", ".tar.gz", ".cdx.json")}
    assert made.keys() - {f"canary-mw-{__version__}.tgz"} == {*names, "NOTES.md"}
    assert contents(tmp_path / "out" / wheel.name) == contents(wheel)
    assert made["NOTES.md"].startswith(f"# canary-mw {__version__}\n".encode())
    check_bill(json.loads(made[f"canary_mw-{__version__}.cdx.json"]))


def check_bill(bill: Any) -> None:
    """Each library with the version of constraints.txt, by which package databases know it."""
    assert bill["bomFormat"] == "CycloneDX"
    found = {each["name"].lower().replace("_", "-"): each for each in bill["components"]}
    assert found["canary-mw"]["version"] == __version__
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = {name.lower().replace("_", "-"): pin for name, pin in re.findall(r"^([\w.-]+)==(\S+)$", text, re.M)}
    libraries = found.keys() - {"canary-mw"}
    assert {"starlette", "uvicorn", "uvloop", "google-re2"} <= libraries
    assert {name: found[name]["version"] for name in libraries} == {name: pins[name] for name in libraries}
    assert all(found[name]["purl"].startswith("pkg:pypi/") for name in libraries)


def test_the_script_can_be_started() -> None:
    assert os.access(SCRIPT, os.X_OK)
