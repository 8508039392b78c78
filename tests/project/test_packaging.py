"""What a release holds."""

import re
import subprocess
import sys
import tarfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from installation import ROOT, build, contents, environ
from trove_classifiers import classifiers

from canary_mw import __version__

PACKAGE = ROOT / "canary_mw"
INFO = f"canary_mw-{__version__}.dist-info"
VENDORED = "licenses/canary_mw/admin/static"
METADATA = (
    *("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"),
    *(f"{VENDORED}/htmx-LICENSE.txt", f"{VENDORED}/inter-LICENSE.txt"),
)


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
    assert {"canary_mw/py.typed", "canary_mw/cli/demo.yaml", "canary_mw/admin/static/inter.woff2"} <= expected.keys()


def test_the_sdist_builds_the_same_wheel_as_the_checkout(wheel: Path, tmp_path: Path) -> None:
    assert contents(build(tmp_path, "--wheel")) == contents(wheel)


@pytest.fixture(scope="session")
def metadata(wheel: Path) -> Message:
    return message_from_bytes(contents(wheel)[f"{INFO}/METADATA"])


def test_the_metadata_tells_what_an_index_shows(metadata: Message) -> None:
    told = ("Name", "Version", "Summary", "Author", "License-Expression", "License-File", "Keywords", "Requires-Python")
    assert [name for name in told if not metadata[name]] == []
    assert metadata["Description-Content-Type"] == "text/markdown"
    found = metadata.get_all("Classifier")
    assert found is not None
    assert set(found) <= classifiers


def test_pytest_finds_the_plugin_and_a_shell_the_command(wheel: Path) -> None:
    text = contents(wheel)[f"{INFO}/entry_points.txt"].decode()
    assert "[console_scripts]\ncanary-mw = canary_mw.cli.main:main\n" in text
    assert "[pytest11]\ncanary_mw = canary_mw.pytest_plugin\n" in text


def test_the_page_of_a_release_has_no_link_that_leads_nowhere_there(metadata: Message) -> None:
    page = str(metadata.get_payload())
    assert page.startswith("# canary-mw\n")
    relative = r"\]\((?!https?:)[^)]*\)|\b(?:src|href)=[\"'](?!https?:)|^\[[^\]]+\]: +(?!https?:)\S+"
    assert re.findall(relative, page, re.M) == []


def test_the_sdist_holds_all_that_the_readme_links_to(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 5
    prefix = sdist.name.removesuffix(".tar.gz")
    missing = [link for link in links if not any(f"{name}/".startswith(f"{prefix}/{link}/") for name in names)]
    assert missing == []


@pytest.mark.slow
def test_an_index_would_take_both_files(wheel: Path, sdist: Path) -> None:
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", str(wheel), str(sdist)]
    outcome = subprocess.run(command, env=environ(), capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stdout.count("PASSED")) == (0, 2), outcome.stdout + outcome.stderr
