"""Every overlay as `kubectl apply -k` would apply it: valid for Kubernetes, and its objects refer to each other."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cluster_tools import VERSIONS, built, invalid
from installation import ROOT
from jsonschema import Draft202012Validator
from manifests import WORKLOADS, faults, pod_of, restricted
from rules import get, read_rules

from canary_mw.cli.main import main
from canary_mw.inspection.explanation import explain
from canary_mw.routing.table import RouteTable

K8S = ROOT / "k8s"
OVERLAYS = ["base", "demo", *sorted(f"overlays/{path.name}" for path in (K8S / "overlays").iterdir())]
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
# Of other projects: Kubernetes has no schema of them.
OTHERS = {
    "overlays/argo-rollouts": {"kind Mapping of getambassador.io/v2", "kind Rollout of argoproj.io/v1alpha1"},
    "gateway-api": {"kind HTTPRoute of gateway.networking.k8s.io/v1"},
    "monitoring": {f"kind {kind} of monitoring.coreos.com/v1" for kind in ("PodMonitor", "PrometheusRule")},
}
# A component that needs another one before it.
BEFORE = {"cluster-watch": ["service-watch"], "cache": ["service-watch"], "events": ["service-watch"]}

pytestmark = pytest.mark.slow


@cache
def _built(overlay: str) -> list[Any]:
    return built(K8S / overlay)


def objects(overlay: str) -> list[Any]:
    """What is applied, once for all tests; each of them may change it."""
    return copy.deepcopy(_built(overlay))


@pytest.fixture
def composed(request: pytest.FixtureRequest, tmp_path: Path) -> list[Any]:
    """The base with one component, and with those that it needs."""
    up = Path(*[".."] * (len(tmp_path.parts) - 1)) / K8S.relative_to("/")
    names = [*BEFORE.get(request.param, ()), request.param]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "shop",
        "resources": [str(up / "base")],
        "components": [str(up / "components" / name) for name in names],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    return built(tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_oldest_and_the_newest_kubernetes_take_an_overlay(overlay: str, version: str) -> None:
    assert set(invalid(objects(overlay), version)) == OTHERS.get(overlay, set())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_objects_of_an_overlay_refer_to_each_other(overlay: str) -> None:
    assert faults(objects(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_pods_of_an_overlay_meet_the_restricted_standard(overlay: str) -> None:
    assert restricted(objects(overlay)) == []


@pytest.mark.parametrize(("composed", "name"), [(name, name) for name in COMPONENTS], indirect=["composed"])
def test_the_base_takes_each_component(composed: list[Any], name: str) -> None:
    assert faults(composed) == []
    assert restricted(composed) == []
    for version in VERSIONS:
        assert set(invalid(composed, version)) == OTHERS.get(name, set())


def test_nothing_but_the_source_of_the_rules_differs_with_the_watch() -> None:
    plain, watching = (
        next(each for each in objects(overlay) if each["kind"] == "Deployment")["spec"]["template"]["spec"]
        for overlay in ("base", "overlays/service-annotation")
    )
    container, other = plain["containers"][0], watching["containers"][0]
    variables = {each["name"]: each["value"] for each in other.pop("env")}
    assert variables == {"CANARY_MW_RULES": "k8s://", "CANARY_MW_CACHE": "/var/cache/canary"}
    assert {each["name"] for each in other.pop("volumeMounts")} == {"cache", "tmp"}
    container.pop("env")
    container.pop("volumeMounts")
    assert container == other
    assert (plain.pop("automountServiceAccountToken"), watching.pop("automountServiceAccountToken")) == (False, True)
    assert {each["name"] for each in watching["volumes"]} == {"cache", "tmp"}
    del plain["volumes"], watching["volumes"]
    assert plain == watching


def test_the_mapping_for_argo_is_one_of_our_crd() -> None:
    found = {each["kind"]: each for each in objects("overlays/argo-rollouts")}
    mapping = found["Mapping"]
    (schema,) = [
        each["schema"]["openAPIV3Schema"]
        for each in found["CustomResourceDefinition"]["spec"]["versions"]
        if mapping["apiVersion"].endswith(f"/{each['name']}")
    ]
    accepts = Draft202012Validator(schema).is_valid
    assert accepts(mapping)
    assert accepts({"spec": {**mapping["spec"], "weight": 0}})
    weights = [{**mapping["spec"], "weight": each} for each in ("20", 20.5, 101, -1)]
    assert [each for each in ({"prefix": "/"}, {"service": "a"}, *weights) if accepts({"spec": each})] == []


@pytest.mark.parametrize("overlay", ["demo", "overlays/argo-rollouts", "overlays/pod-annotation"])
def test_the_rules_of_an_overlay_pass_the_check(overlay: str) -> None:
    found = [text for each in objects(overlay) for text in rules_of(each)]
    assert found
    outcome = CliRunner().invoke(main, ["check", "--strict", "-"], input="\n---\n".join(found))
    assert outcome.exit_code == 0, outcome.output


def rules_of(item: Any) -> list[str]:
    """The texts of rules that an object holds."""
    if item["kind"] == "Mapping":
        return [yaml.safe_dump(item)]
    if item["kind"] == "ConfigMap":
        return [text for name, text in item["data"].items() if name.endswith(".yaml")]
    annotations = item.get("spec", {}).get("template", {}).get("metadata", {}).get("annotations", {})
    return [text for name, text in annotations.items() if name == "getambassador.io/config"]


def test_only_pods_that_ask_the_api_hold_a_credential() -> None:
    for overlay in OVERLAYS:
        for item in objects(overlay):
            if item["kind"] in WORKLOADS:
                pod = pod_of(item)
                values = [each["value"] for each in pod["containers"][0].get("env", ())]
                assert pod["automountServiceAccountToken"] is any(value.startswith("k8s://") for value in values)


def test_the_copy_that_argo_makes_has_the_share_of_its_weight() -> None:
    base = next(each for each in objects("overlays/argo-rollouts") if each["kind"] == "Mapping")
    strategy = next(each for each in objects("overlays/argo-rollouts") if each["kind"] == "Rollout")["spec"]["strategy"]
    canary = strategy["canary"]
    assert canary["trafficRouting"]["ambassador"]["mappings"] == [base["metadata"]["name"]]
    # As Argo Rollouts does it: the name of the stable Service is replaced once, and labels are lost.
    service = base["spec"]["service"].replace(canary["stableService"], canary["canaryService"], 1)
    made = {**base, "metadata": {"name": f"{base['metadata']['name']}-canary"}}
    shares = {}
    for weight in (0, 5, 100):
        made["spec"] = {**base["spec"], "service": service, "weight": weight}
        rules = read_rules("---\n".join(map(yaml.safe_dump, (base, made))))
        found = explain(RouteTable.build(rules.mappings), get("/shop/")).candidates
        shares[weight] = {each.decision.mapping.service.text: each.percent for each in found if each.decision}
    assert shares == {0: {"shop-stable": 100}, 5: {"shop-canary": 5, "shop-stable": 95}, 100: {"shop-canary": 100}}
