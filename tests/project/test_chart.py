"""The Helm chart by Helm 3 and 4: valid for Kubernetes, the same as the manifests, and with rules that work."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_tools import VERSIONS, helm, invalid, objects_of, run
from installation import ROOT
from manifests import faults, pod_of, restricted
from rules import get, read_rules

from canary_mw.control.rollouts.cluster.names import config_map_name, lease_name
from canary_mw.control.sources.kubernetes_url import KubernetesURL, split_rules
from canary_mw.inspection.explanation import explain
from canary_mw.routing.table import RouteTable

K8S = ROOT / "k8s"
CHART = K8S / "chart"
CASES = sorted(path.name for path in (CHART / "ci").iterdir())
NAMES = ("app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[3, 4], ids=["helm3", "helm4"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return helm(request.param, tmp_path_factory.getbasetemp())


def rendered(program: Path, *options: str, release: str = "web", chart: Path = CHART) -> list[Any]:
    """What `helm install` would apply."""
    return objects_of(run(program, "template", release, chart, "--namespace", "shops", *options))


def refused(program: Path, *options: str) -> str:
    """What is said of values that cannot be meant."""
    command = [str(program), "template", "web", str(CHART), *options]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert outcome.returncode != 0
    return outcome.stderr


def values(name: str) -> tuple[str, str]:
    return ("--values", str(CHART / "ci" / name))


def one(objects: list[Any], kind: str) -> Any:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def variables(objects: list[Any]) -> dict[str, str]:
    (container,) = pod_of(one(objects, "Deployment"))["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize("case", [None, *CASES])
def test_the_chart_is_clean(program: Path, case: str | None) -> None:
    told = run(program, "lint", "--strict", CHART, *(values(case) if case else ()))
    assert "[WARNING]" not in told
    assert "[ERROR]" not in told


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_what_is_rendered(program: Path, case: str) -> None:
    objects = rendered(program, *values(case))
    others = {f"kind {kind} of monitoring.coreos.com/v1" for kind in ("PodMonitor", "PrometheusRule")}
    expected = others if case == "production.yaml" else set()
    assert [set(invalid(objects, version)) for version in VERSIONS] == [expected, expected]
    assert {each["metadata"].get("namespace") for each in objects} <= {"shops", "shop", "cart", None}
    assert restricted(objects) == []


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("in-app")])
def test_the_objects_refer_to_each_other(program: Path, case: str) -> None:
    assert faults(rendered(program, *values(case))) == []


def without_names(item: Any) -> Any:
    """An object without what tells releases apart."""
    text = json.dumps(item).replace("web-canary-proxy", "canary-proxy")
    shown = json.loads(text)
    del shown["metadata"]["namespace"]
    for labels in labels_in(shown):
        for name in NAMES:
            labels.pop(name, None)
    return shown


def labels_in(value: Any) -> list[Any]:
    """All mappings in an object that hold labels."""
    if isinstance(value, list):
        return [found for each in value for found in labels_in(each)]
    if not isinstance(value, dict):
        return []
    inner = [found for each in value.values() for found in labels_in(each)]
    return [value, *inner] if "app.kubernetes.io/name" in value else inner


def test_the_defaults_are_the_base(program: Path) -> None:
    base = [
        item
        for path in (K8S / "base").glob("*.yaml")
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if item["kind"] != "Kustomization"
    ]
    base.append(yaml.safe_load((K8S / "components" / "pdb" / "poddisruptionbudget.yaml").read_text(encoding="utf-8")))
    ours = {item["kind"]: without_names(item) for item in rendered(program)}
    container = pod_of(ours["Deployment"])["containers"][0]
    assert container.pop("imagePullPolicy") == "IfNotPresent"
    assert ours["Service"]["spec"].pop("type") == "ClusterIP"
    assert ours == {item["kind"]: item for item in base}


def test_the_rights_are_those_of_the_component(program: Path) -> None:
    folder = K8S / "components" / "service-watch"
    role, _ = yaml.safe_load_all((folder / "access.yaml").read_text(encoding="utf-8"))
    objects = rendered(program, *values("watch.yaml"))
    assert one(objects, "Role")["rules"] == role["rules"]
    assert one(rendered(program, *values("watch-all.yaml")), "ClusterRole")["rules"] == role["rules"]
    for case in ("watch.yaml", "watch-all.yaml"):
        assert pod_of(one(rendered(program, *values(case)), "Deployment"))["automountServiceAccountToken"] is True
    for name in ("shop-stable", "shop-gray"):
        binding = one(rendered(program, *values("in-app-watch.yaml")), "RoleBinding")
        assert {"kind": "ServiceAccount", "name": name, "namespace": "shops"} in binding["subjects"]


def test_only_the_kinds_and_namespaces_that_are_read_may_be_read(program: Path) -> None:
    objects = rendered(program, *values("watch-some.yaml"))
    roles = [each for each in objects if each["kind"] == "Role"]
    assert [each["metadata"]["namespace"] for each in roles] == ["shop", "cart"]
    for role in roles:
        rights = [(*rule["resources"], *rule["verbs"]) for rule in role["rules"]]
        assert rights == [("services", "list", "watch"), ("mappings", "list", "watch"), ("events", "create")]
    assert variables(objects)["CANARY_MW_EVENTS"] == "1"


def test_endpoints_ask_for_services_and_their_slices(program: Path) -> None:
    objects = rendered(program, *values("endpoints.yaml"))
    assert variables(objects) == {"CANARY_MW_RULES": "/etc/canary", "CANARY_MW_ENDPOINTS": "k8s://"}
    assert [rule["resources"] for rule in one(objects, "Role")["rules"]] == [["services"], ["endpointslices"]]
    assert pod_of(one(objects, "Deployment"))["automountServiceAccountToken"] is True
    assert variables(rendered(program, *values("watch.yaml"))).keys() == {"CANARY_MW_RULES", "CANARY_MW_CACHE"}


def test_the_states_of_releases_are_those_of_the_component(program: Path) -> None:
    """But for the names of the releases, and for that of the release of Helm."""
    folder = K8S / "components" / "rollout"
    files = [path for path in folder.iterdir() if path.name != "kustomization.yaml"]
    component = [item for path in files for item in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    before = [(each["kind"], each["metadata"]["name"]) for each in rendered(program)]
    options = "rollout.enabled=true,rollout.releases={shop}"
    ours = [
        without_names(each)
        for each in rendered(program, "--set", options)
        if (each["kind"], each["metadata"]["name"]) not in before
    ]
    for binding in [each for each in ours if each["kind"] == "RoleBinding"]:
        assert binding["subjects"][0].pop("namespace") == "shops"
    for binding in [each for each in component if each["kind"] == "RoleBinding"]:
        del binding["subjects"][0]["namespace"]

    def by_kind(objects: list[Any]) -> Any:
        return {each["kind"]: each for each in objects}

    assert len(ours) == len(component) == len(by_kind(ours))
    assert by_kind(ours) == by_kind(component)


def test_a_pod_that_shares_states_is_told_as_in_the_component(program: Path) -> None:
    kustomization = yaml.safe_load((K8S / "components" / "rollout" / "kustomization.yaml").read_text(encoding="utf-8"))
    wanted = pod_of(yaml.safe_load(kustomization["patches"][0]["patch"]))
    pod = pod_of(without_names(one(rendered(program, *values("rollout.yaml")), "Deployment")))
    assert pod["automountServiceAccountToken"] is True
    for name in ("env", "volumeMounts"):
        assert [each for each in wanted["containers"][0][name] if each not in pod["containers"][0][name]] == []
    assert [each for each in wanted["volumes"] if each not in pod["volumes"]] == []


def test_the_states_of_all_releases_may_be_written_and_of_no_others(program: Path) -> None:
    for case, releases in {"rollout.yaml": ["shop", "cart.v2"], "in-app-rollout.yaml": ["shop"]}.items():
        objects = rendered(program, *values(case))
        names = [config_map_name(each) for each in releases]
        role = one(objects, "Role")
        assert role["rules"][0]["resourceNames"] == names
        assert [name for kind, name in named(objects) if kind == "ConfigMap" and name != "canary-rules"] == names
        assert role["rules"][1]["resourceNames"] == [one(objects, "Lease")["metadata"]["name"]]
    accounts = [each["name"] for each in one(objects, "RoleBinding")["subjects"]]
    assert accounts == ["shop-stable", "shop-gray"]
    assert (
        lease_name(variables(rendered(program, *values("rollout.yaml")))["CANARY_MW_ID"])
        == one(rendered(program, *values("rollout.yaml")), "Lease")["metadata"]["name"]
    )


def named(objects: list[Any]) -> list[tuple[str, str]]:
    return [(each["kind"], each["metadata"]["name"]) for each in objects]


def test_the_address_of_the_rules_is_read_as_it_is_meant(program: Path) -> None:
    assert variables(rendered(program, *values("watch.yaml")))["CANARY_MW_RULES"] == "k8s://"
    assert variables(rendered(program, *values("watch-all.yaml")))["CANARY_MW_RULES"] == "k8s://*"
    folder, address = split_rules(variables(rendered(program, *values("watch-some.yaml")))["CANARY_MW_RULES"], ":")
    assert folder == "/etc/canary"
    read = KubernetesURL.parse(address)
    assert read.namespaces == ("shop", "cart")
    assert read.kinds == ("services", "mappings")
    assert read.selector == "team in (a, b),tier!=test"


def test_the_mapping_kind_is_that_of_the_component(program: Path) -> None:
    path = K8S / "components" / "crds" / "mappings.yaml"
    assert (CHART / "files" / path.name).read_bytes() == path.read_bytes()
    crd = one(rendered(program, *values("watch.yaml")), "CustomResourceDefinition")
    assert crd == yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "CustomResourceDefinition" not in {each["kind"] for each in rendered(program)}


def test_the_monitoring_is_that_of_the_component(program: Path) -> None:
    folder = K8S / "components" / "monitoring"
    for name in ("prometheusrule.yaml", "dashboard.json"):
        assert (CHART / "files" / name).read_bytes() == (folder / name).read_bytes()
    objects = rendered(program, *values("production.yaml"))
    for name in ("podmonitor.yaml", "prometheusrule.yaml"):
        item = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        assert without_names(one(objects, item["kind"])) == item
    board = one(objects, "ConfigMap")
    assert board["data"] == {"dashboard.json": (folder / "dashboard.json").read_text(encoding="utf-8")}
    assert "PodMonitor" not in {each["kind"] for each in rendered(program)}


@pytest.mark.parametrize("release", ["canary-mw", "my-canary-mw", "canary-proxy", "web"])
def test_no_service_has_a_name_whose_variables_look_like_settings(program: Path, release: str) -> None:
    objects = rendered(program, release=release)
    assert faults(objects) == []
    assert "canary-proxy" in one(objects, "Service")["metadata"]["name"]


def test_a_change_of_the_rules_is_no_rollout(program: Path) -> None:
    pods = [one(rendered(program, *values("rules.yaml"), *more), "Deployment") for more in ((), ("--set", "rules=#"))]
    assert pods[0] == pods[1]


def test_a_digest_counts_before_the_tag(program: Path) -> None:
    (container,) = pod_of(one(rendered(program, *values("production.yaml")), "Deployment"))["containers"]
    assert container["image"] == f"registry.example.com/canary-mw@sha256:{'0' * 64}"
    (container,) = pod_of(one(rendered(program, "--set", "image.tag=1.2.3"), "Deployment"))["containers"]
    assert container["image"] == "canary-mw:1.2.3"


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("mode=sidecar", "mode"),
        ("mode=in-app-rules", "set `rules`"),
        ("replica=2", "replica"),
        ("image.digest=latest", "digest"),
        ("source.kubernetes.kinds={secrets}", "kinds"),
        ("source.kubernetes.namespaces={Shop}", "namespaces"),
        ("hpa.enabled=true,hpa.max=2", "hpa.max"),
        ("rollout.enabled=true", "releases"),
        ("rollout.enabled=true,rollout.releases={Shop}", "releases"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(program: Path, option: str, told: str) -> None:
    assert told in refused(program, "--set", option)


def test_all_namespaces_stand_alone_and_apps_are_named(program: Path) -> None:
    source = "source.kubernetes"
    assert "no others" in refused(program, "--set", f"{source}.enabled=true,{source}.namespaces={{*,shop}}")
    assert "serviceAccounts" in refused(program, "--set", f"mode=in-app-rules,{source}.enabled=true")
    states = "mode=in-app-rules,rules=a: 1,rollout.enabled=true,rollout.releases={shop}"
    assert "serviceAccounts" in refused(program, "--set", states)


def shares(text: str, target: str) -> dict[str, float]:
    """Service -> percent, of the rules in a text without findings."""
    rules = read_rules(text)
    assert rules.diagnostics == ()
    found = explain(RouteTable.build(rules.mappings), get(target)).candidates
    return {each.decision.mapping.service.text if each.decision else "": each.percent for each in found}


def test_rules_are_filled_in_and_routed(program: Path) -> None:
    config = one(rendered(program, *values("rules.yaml")), "ConfigMap")
    assert shares(config["data"]["rules.yaml"], "/shop/") == {"shop-gray.shops": 20, "shop-stable.shops": 80}


@pytest.fixture
def blog(tmp_path: Path) -> Path:
    """A chart of one Service with its Mapping in the annotation, as the template of the example has it."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: service\nversion: 0.1.0\n", encoding="utf-8")
    example = ROOT / "examples" / "helm"
    (tmp_path / "values.yaml").write_bytes((example / "values.yaml").read_bytes())
    (tmp_path / "templates" / "service.yaml").write_bytes((example / "service.yaml.tpl").read_bytes())
    return tmp_path


def test_the_annotation_of_the_example_is_filled_in_and_routed(program: Path, blog: Path) -> None:
    stable = ("--set", "service.name=shop-stable,service.track=stable,gray=null")
    services = [*rendered(program, *stable, chart=blog), *rendered(program, "--set", "gray.weight=5", chart=blog)]
    assert [text for version in VERSIONS for text in invalid(services, version)] == []
    text = "---\n".join(yaml.safe_dump(each) for each in services)
    assert [each.name for each in read_rules(text).mappings] == ["shop-stable_mapping", "shop-gray_mapping"]
    assert shares(text, "/shop/") == {"shop-gray.shops:8080": 5, "shop-stable.shops:8080": 95}


def test_the_annotation_of_the_blog_is_filled_in_and_routed(program: Path, blog: Path) -> None:
    template = """apiVersion: v1
kind: Service
metadata:
  name: {{ .Values.service.name }}
  annotations:
    getambassador.io/config: |
      ---
      apiVersion: ambassador/v0
      kind: Mapping
      name: {{ .Values.service.name }}_mapping
      prefix: {{ .Values.service.prefix }}
      service: {{ .Values.service.name }}.{{ .Release.Namespace }}
spec:
  ports: [{name: http, port: 80}]
"""
    (blog / "templates" / "service.yaml").write_text(template, encoding="utf-8")
    (service,) = rendered(program, "--set", "service.name=svc1,service.prefix=/svc1/", chart=blog)
    assert shares(yaml.safe_dump(service), "/svc1/a") == {"svc1.shops": 100}
