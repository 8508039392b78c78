"""The checks of manifests that the tests of the overlays use: each of them notices what it is there for."""

import copy
from typing import Any

import pytest
import yaml
from installation import ROOT
from manifests import faults, restricted

K8S = ROOT / "k8s"
FILES = [
    *sorted(path for path in (K8S / "base").glob("*.yaml") if path.name != "kustomization.yaml"),
    K8S / "components" / "service-watch" / "access.yaml",
    *(K8S / "components" / "pdb").glob("pod*.yaml"),
    *(K8S / "components" / "ingress").glob("ingress.yaml"),
    *(K8S / "components" / "gateway-api").glob("http*.yaml"),
    *(K8S / "components" / "hpa").glob("hor*.yaml"),
]


def everything() -> dict[str, Any]:
    """One object of each kind, as they are applied."""
    found = [item for path in FILES for item in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    for item in found:
        item["metadata"]["namespace"] = "default"
    objects = {item["kind"]: item for item in found}
    del objects["Deployment"]["spec"]["replicas"]
    return objects


def at(path: str, value: Any) -> Any:
    """Put a value where a path leads to."""
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]

    def change(objects: dict[str, Any]) -> None:
        place: Any = objects
        for step in steps:
            place = place[step]
        place[last] = value

    return change


POD = "Deployment/spec/template/spec"
CONTAINER = f"{POD}/containers/0"
WRONG = {
    "selector": at("Deployment/spec/selector/matchLabels", {"app": "other"}),
    "spread": at(f"{POD}/topologySpreadConstraints/0/labelSelector/matchLabels", {"app": "other"}),
    "account": at(f"{POD}/serviceAccountName", "other"),
    "probe": at(f"{CONTAINER}/readinessProbe/httpGet/port", "health"),
    "ports": at(f"{CONTAINER}/ports/1/containerPort", 8080),
    "volume": at(f"{CONTAINER}/volumeMounts/0/name", "other"),
    "not mounted": at(f"{CONTAINER}/volumeMounts", []),
    "sub path": at(f"{CONTAINER}/volumeMounts/0/subPath", "rules.yaml"),
    "config map": at(f"{POD}/volumes/0/configMap/name", "other"),
    "service": at("Service/spec/selector", {"app": "other"}),
    "target": at("Service/spec/ports/0/targetPort", "web"),
    "variables": at("Service/metadata/name", "canary-mw"),
    "budget": at("PodDisruptionBudget/spec/selector/matchLabels", {"app": "other"}),
    "policy": at("NetworkPolicy/spec/podSelector/matchLabels", {"app": "other"}),
    "scaled": at("HorizontalPodAutoscaler/spec/scaleTargetRef/name", "other"),
    "replicas": at("Deployment/spec/replicas", 3),
    "role": at("RoleBinding/roleRef/name", "other"),
    "subject": at("RoleBinding/subjects/0/name", "other"),
    "namespace": at("RoleBinding/subjects/0/namespace", "other"),
    "backend": at("Ingress/spec/rules/0/http/paths/0/backend/service/port/name", "web"),
    "certificate": at("Ingress/spec/tls", []),
    "annotation": at("Ingress/metadata/annotations/a", 600),
    "route": at("HTTPRoute/spec/rules/0/backendRefs/0/port", 8080),
}
LOOSE = {
    "root": at(f"{POD}/securityContext/runAsNonRoot", False),
    "host": at(f"{POD}/hostNetwork", True),
    "links": at(f"{POD}/enableServiceLinks", True),
    "kind of volume": at(f"{POD}/volumes/0", {"name": "rules", "hostPath": {"path": "/"}}),
    "escalation": at(f"{CONTAINER}/securityContext/allowPrivilegeEscalation", True),
    "bounds": at(f"{CONTAINER}/resources/limits", {}),
}


def test_what_is_there_has_no_faults() -> None:
    objects = list(everything().values())
    assert faults(objects) == []
    assert restricted(objects) == []
    assert len(faults([*objects, copy.deepcopy(objects[0])])) > 0


@pytest.mark.parametrize("name", WRONG)
def test_a_reference_that_leads_nowhere_is_found(name: str) -> None:
    objects = everything()
    WRONG[name](objects)
    assert faults(list(objects.values())) != []


@pytest.mark.parametrize("name", LOOSE)
def test_a_pod_that_may_do_too_much_is_found(name: str) -> None:
    objects = everything()
    LOOSE[name](objects)
    assert len(restricted(list(objects.values()))) == 1
