"""docs/from-ambassador.md: its files are written as shown, and its commands print what is shown."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from installation import ROOT
from rules import document

from canary_mw.cli.main import main
from canary_mw.config.ambassador.kinds import KNOWN_KINDS

PAGE = (ROOT / "docs" / "from-ambassador.md").read_text(encoding="utf-8")
# A file has its name in the text before it.
FILES = re.findall(r"`([\w-]+\.yaml)`[^`]*\n\n```yaml\n(.*?)^```$", PAGE, re.M | re.S)
SESSIONS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.M | re.S)


def commands() -> list[tuple[str, str]]:
    """Each command, and what is shown below it."""
    found = []
    for session in SESSIONS:
        starts = [match.start() for match in re.finditer(r"^\$ ", session, re.M)] + [len(session)]
        for start, end in pairwise(starts):
            command, _, shown = session[start + 2 : end].partition("\n")
            found.append((command, shown))
    return found


@pytest.fixture(autouse=True)
def _in_a_folder_with_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES:
        Path(name).write_text(text, encoding="utf-8")


def test_every_block_is_used_here() -> None:
    assert PAGE.count("```yaml\n") == len(FILES) == len(dict(FILES))
    assert {name for name, _ in FILES} == {
        word for each, _ in commands() for word in each.split() if word.endswith(".yaml")
    }


@pytest.mark.parametrize(("command", "shown"), commands())
def test_a_command_prints_what_is_shown(command: str, shown: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "canary-mw"
    outcome = CliRunner().invoke(main, arguments)
    assert outcome.exit_code == ("error" in shown)
    lines = (r"(?:.*\n)*" if line == "..." else re.escape(f"{line}\n") for line in shown.splitlines())
    assert re.fullmatch("".join(lines), outcome.stdout), outcome.stdout


def exported() -> str:
    """What `kubectl get -o yaml` prints of an Ambassador's rules: an annotation, and a Mapping object."""
    spec = {"prefix": "/shop/", "service": "shop-gray", "headers": {"gray": "true"}}
    mapping = {"apiVersion": "getambassador.io/v2", "kind": "Mapping", "spec": spec, "status": {"state": "Running"}}
    service = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}
    annotation = document("shop-stable", version="v1", prefix="/shop/")
    service["metadata"] = {"name": "shop", "namespace": "web", "annotations": {"getambassador.io/config": annotation}}
    items = [service, mapping | {"metadata": {"name": "shop-gray", "namespace": "web"}}]
    return yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})


def test_what_a_cluster_has_is_looked_at_as_shown() -> None:
    Path("exported.yaml").write_text(exported(), encoding="utf-8")
    lines = [line.strip() for line in PAGE.splitlines() if line.startswith("   canary-mw ")]
    told = [CliRunner().invoke(main, shlex.split(line)[1:]).output for line in lines]
    assert told[0] == "2 Mappings: clean\n"
    assert "shop-gray" in told[1].splitlines()[0]


def test_every_kind_of_ambassador_has_a_row() -> None:
    rows = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| "))
    # The kinds of the CRDs of 0.86 and what came after; DevPortal belongs to Edge Stack alone.
    edge_stack = {"AmbassadorInstallation", "DevPortal", "Filter", "FilterPolicy", "RateLimit"}
    kinds = {kind for kind in KNOWN_KINDS if not kind.startswith("Project")} - edge_stack
    assert kinds <= set(re.findall(r"\w+", rows))
