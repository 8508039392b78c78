"""docs/kubernetes.md: its commands are run where no cluster is needed; the others name what is in the manifests."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cluster_tools import helm, kubectl, objects_of, run
from installation import ROOT
from rules import document

from canary_mw.cli.main import main

K8S = ROOT / "k8s"
PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^( *)```shell\n(.*?)^ *```$", PAGE, re.M | re.S)
LINES = [line.strip() for _, block in BLOCKS for line in block.splitlines()]
RULES = document("shop-stable", prefix="/shop/") + document("shop-gray", prefix="/shop/", weight=20)


def lines(*words: str) -> list[str]:
    """The commands that begin with some words."""
    return [line for line in LINES if shlex.split(line)[: len(words)] == list(words)]


def objects() -> list[Any]:
    """All that the manifests hold, as written."""
    paths = [path for path in K8S.rglob("*.yaml") if "chart" not in path.parts and path.name != "kustomization.yaml"]
    return [item for path in paths for item in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def names(kind: str) -> set[str]:
    return {item["metadata"]["name"] for item in objects() if item["kind"] == kind}


def deployment(path: str) -> Any:
    found = yaml.safe_load_all((K8S / path).read_text(encoding="utf-8"))
    return next(item for item in found if item["kind"] == "Deployment")["spec"]["template"]["spec"]


def invoke(command: str, **environ: str) -> str:
    """What a command of canary-mw prints."""
    program, *arguments = shlex.split(command)
    assert program == "canary-mw"
    outcome = CliRunner().invoke(main, arguments, env=environ)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_each_command_is_of_a_program_that_is_looked_at_here() -> None:
    programs = {shlex.split(line)[0] for line in LINES}
    assert programs <= {"kubectl", "canary-mw", "docker", "helm", "curl"}
    verbs = {shlex.split(line)[1] for line in lines("kubectl")}
    assert verbs <= {"create", "apply", "annotate", "exec", "get", "port-forward"}


def test_the_page_applies_what_there_is() -> None:
    applied = {line.split()[-1] for line in lines("kubectl", "apply", "-k")}
    assert applied >= {"k8s/overlays/in-app", "k8s/demo", "k8s/overlays/gateway", "k8s/overlays/service-annotation"}
    assert [each for each in applied if not (ROOT / each / "kustomization.yaml").is_file()] == []


def test_the_page_names_what_the_manifests_hold() -> None:
    found = [word for line in LINES for word in shlex.split(line) if word.startswith("deploy/")]
    assert {word.removeprefix("deploy/") for word in found} <= names("Deployment")
    assert {line.split()[4] for line in lines("kubectl", "annotate", "--overwrite", "service")} <= names("Service")
    volumes = deployment("base/deployment.yaml")["volumes"]
    named = {line.split()[3] for line in lines("kubectl", "create", "configmap")}
    assert named == {volumes[0]["configMap"]["name"]}
    namespaces = {line.split()[3] for line in lines("kubectl", "create", "namespace")}
    assert namespaces == names("Namespace")
    used = re.findall(r"--namespace (\S+)", "\n".join(LINES))
    assert set(used) == namespaces


def test_labels_of_the_page_are_those_of_pods() -> None:
    heads = [item["spec"]["template"]["metadata"] for item in objects() if "template" in item.get("spec", {})]
    labels = {f"{name}={value}" for each in heads for name, value in each.get("labels", {}).items()}
    assert {line.split()[5] for line in lines("kubectl", "annotate", "--overwrite", "pods")} <= labels
    assert set(re.findall(r"`(app\.kubernetes\.io/name=\S+)`", PAGE)) <= labels


def test_the_page_has_the_figures_of_the_manifests() -> None:
    pod = deployment("base/deployment.yaml")
    container = pod["containers"][0]
    (image,) = re.findall(r"docker build -t (\S+)", PAGE)
    assert container["image"] == image
    (pause,) = re.findall(r"preStop sleeps for (\d+) seconds", PAGE)
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == int(pause)
    ((grace, whole),) = re.findall(r"have (\d+) seconds \(`--grace`\), and the pod (\d+) in all", PAGE)
    args = container["args"]
    assert (args[args.index("--grace") + 1], pod["terminationGracePeriodSeconds"]) == (grace, int(whole))
    assert f"nothing for {pause} and then {grace} seconds" in PAGE


def test_the_pod_explains_as_shown(tmp_path: Path) -> None:
    (line,) = lines("kubectl", "exec")
    container = deployment("overlays/in-app/stable.yaml")["containers"][0]
    assert "CANARY_MW_RULES" in {each["name"] for each in container["env"]}
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    _, _, command = line.partition(" -- ")
    assert "the wrapped app answers" in invoke(command, CANARY_MW_RULES=str(tmp_path))


def test_the_rules_are_checked_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    assert [invoke(line) for line in lines("canary-mw")] == ["2 Mappings: clean\n"]


@pytest.mark.slow
def test_the_config_map_holds_what_was_checked(tmp_path: Path) -> None:
    for name in ("rules.yaml", "rules-stable.yaml"):
        (tmp_path / name).write_text(RULES, encoding="utf-8")
    made = [line.partition(" | ")[0] for line in lines("kubectl", "create", "configmap")]
    for line in made:
        command = shlex.split(line.removesuffix(" --dry-run=client -o yaml"))[1:]
        text = run(kubectl(), *command, "--dry-run=client", "-o", "yaml", cwd=tmp_path)
        (config,) = objects_of(text)
        assert list(config["data"]) == ["rules.yaml"]
        checked = CliRunner().invoke(main, ["check", "--strict", "-"], input=text)
        assert (checked.exit_code, checked.output) == (0, "2 Mappings: clean\n")


@pytest.mark.slow
@pytest.mark.parametrize("major", [3, 4])
def test_the_release_of_the_chart_has_the_rules(major: int, tmp_path: Path) -> None:
    (line,) = lines("helm", "upgrade")
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    (tmp_path / "k8s").symlink_to(K8S)
    arguments = [each for each in shlex.split(line)[3:] if each != "--create-namespace"]
    found = objects_of(run(helm(major, tmp_path), "template", *arguments, cwd=tmp_path))
    assert [each["data"]["rules.yaml"].strip() for each in found if each["kind"] == "ConfigMap"] == [RULES.strip()]
