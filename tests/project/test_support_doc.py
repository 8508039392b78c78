"""docs/support.md: its versions are those of pyproject.toml, constraints.txt, the manifests and the tests."""

import re
import tomllib
from typing import Any

import pytest
import yaml
from cluster_tools import VERSIONS
from installation import ROOT

from canary_mw.server.uvicorn_internals import TRIED_BELOW, TRIED_FROM


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


PAGE = text("docs/support.md")
PYPROJECT: dict[str, Any] = tomllib.loads(text("pyproject.toml"))
PROJECT = PYPROJECT["project"]
PINS: dict[str, str] = {
    name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text("constraints.txt"), re.M)
}


def rows(first: str) -> list[list[str]]:
    """The cells of the table whose head begins with this cell, without its head."""
    (found,) = re.findall(rf"^\| *{re.escape(first)} *\|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]


def pin(name: str) -> str:
    """The version of constraints.txt; PyPI takes `_` and `-` for the same."""
    return PINS.get(name.lower()) or PINS[name.lower().replace("-", "_")]


def python_versions() -> list[str]:
    """Those of the table, in its order."""
    lines = [cells for cells in rows("") if re.match(r"3\.", cells[1])]
    return [version for cells in lines for version in re.findall(r"3\.\d+", cells[1])]


def test_the_versions_of_python_are_those_that_are_tried() -> None:
    (tried,) = re.findall(r"^VERSIONS = \((.*)\)$", text("tests/project/test_interpreters.py"), re.M)
    assert python_versions() == re.findall(r"3\.\d+", tried)


def test_a_release_says_the_same_of_python_as_the_page() -> None:
    oldest, *_, newest = versions = python_versions()
    assert PROJECT["requires-python"] == f">={oldest}"
    classified = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)]
    # What nothing runs under is not advertised.
    assert classified == [version for version in versions if version != newest]
    checked = re.findall(r"--python-version (3\.\d+)", text("Makefile"))
    assert checked == [oldest, newest]


def test_each_library_is_there_with_the_oldest_version_and_with_the_one_that_is_tried() -> None:
    expected = [[name, oldest, pin(name)] for name, oldest in (each.split(">=") for each in PROJECT["dependencies"])]
    assert rows("library") == sorted(expected)


@pytest.mark.parametrize(("name", "version"), rows("framework or server"))
def test_a_framework_or_server_is_tried_with_the_version_of_the_page(name: str, version: str) -> None:
    groups = PYPROJECT["dependency-groups"].values()
    assert name.lower() in {re.split(r"[>=\[]", str(each))[0].lower() for group in groups for each in group}
    assert version == pin(name)


def test_the_range_of_uvicorn_is_that_of_the_guarded_protocol() -> None:
    low, high = (".".join(map(str, version)) for version in (TRIED_FROM, TRIED_BELOW))
    assert f"from {low} and\nbelow {high} only" in PAGE
    assert PROJECT["optional-dependencies"]["serve"] == [f"uvicorn[standard]>={low},<{high}"]


def test_the_manifests_need_the_kubernetes_of_the_page() -> None:
    ((needed, validated),) = [cells[1:] for cells in rows("") if cells[0] == "Kubernetes"]
    needed = needed.removesuffix(" or newer")
    assert VERSIONS[0] == needed
    assert f"validated for {' and '.join(VERSIONS)};" in validated
    for path in ("k8s/base/deployment.yaml", "docs/kubernetes.md"):
        assert re.search(rf"Kubernetes {re.escape(needed)}\b", text(path)), path
    versions = {
        item["apiVersion"]
        for path in (ROOT / "k8s").rglob("*.yaml")
        # What Helm fills in is no YAML before.
        if "templates" not in path.parts
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if item and path.name != "kustomization.yaml" and "apiVersion" in item
    }
    # Those without a beta in their name stay for as long as there is a Kubernetes 1. Those of other projects have one.
    others = ("getambassador.io/", "argoproj.io/")
    assert [each for each in versions if re.search("alpha|beta", each) and not each.startswith(others)] == []


def test_an_image_has_the_libc_of_the_page() -> None:
    assert re.search(r"^ARG PYTHON=python:3\.\d+-slim-bookworm$", text("Dockerfile"), re.M)
