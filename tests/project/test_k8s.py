"""What a schema cannot tell about the manifests: that they refer to each other, and reload and run as intended."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import fetch, run, serving_app

from canary_mw.admin.app import create_admin
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.middleware.settings import MiddlewareSettings
from canary_mw.observability.prometheus import Metrics

K8S = Path(__file__).parents[2] / "k8s"
BASE, DEMO, IN_APP = K8S / "base", K8S / "demo", K8S / "overlays" / "in-app"
WATCH, CLUSTER_WATCH = K8S / "components" / "service-watch", K8S / "components" / "cluster-watch"
FOLDERS = sorted(path.parent for path in K8S.rglob("kustomization.yaml"))


def manifests() -> dict[str, Any]:
    """Kind -> object, for every resource that kustomization.yaml lists."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    objects: dict[str, Any] = {}
    for name in kustomization["resources"]:
        for item in yaml.safe_load_all((BASE / name).read_text(encoding="utf-8")):
            assert item["kind"] not in objects, "this test reads one object of each kind"
            objects[item["kind"]] = item
    return objects


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    return manifests()


@pytest.fixture(scope="module")
def rules() -> Any:
    """The ConfigMap of the demo."""
    return yaml.safe_load((DEMO / "configmap.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def deployment(objects: dict[str, Any]) -> Any:
    return objects["Deployment"]["spec"]


@pytest.fixture(scope="module")
def pod(deployment: Any) -> Any:
    return deployment["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


def ports_of(container: Any) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def option(container: Any, name: str) -> str:
    args = container["args"]
    value = args[args.index(name) + 1]
    assert isinstance(value, str), f"{name} has to be quoted: Kubernetes takes only texts as arguments"
    return value


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_manifest_in_the_folder_is_listed(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    files = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
    patches = [each["path"] for each in kustomization.get("patches", ()) if "path" in each]
    listed = [*kustomization.get("resources", ()), *kustomization.get("components", ()), *patches]
    generated = [name for each in kustomization.get("configMapGenerator", ()) for name in each["files"]]
    assert files == {name for name in [*listed, *generated] if not name.startswith("..")}
    for name in listed:
        assert (folder / name).exists()


def test_no_label_is_added_to_the_selectors_of_what_runs() -> None:
    for folder in FOLDERS:
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        # The selector of a Deployment cannot be changed. `commonLabels` and `includeSelectors` do it.
        assert kustomization.keys() <= {
            *("apiVersion", "kind", "namespace", "resources", "components", "patches", "images", "configMapGenerator"),
        }


def test_each_folder_of_the_components_is_one() -> None:
    for folder in FOLDERS:
        kind = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["kind"]
        assert kind == ("Component" if folder.parent.name == "components" else "Kustomization")


def test_all_selectors_choose_the_pods(objects: dict[str, Any], deployment: Any, pod: Any) -> None:
    labels = deployment["template"]["metadata"]["labels"].items()
    assert deployment["selector"]["matchLabels"].items() <= labels
    assert objects["Service"]["spec"]["selector"].items() <= labels
    assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels
    for constraint in pod["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"].items() <= labels


def test_the_service_and_the_probes_name_ports_that_exist(objects: dict[str, Any], container: Any) -> None:
    ports = ports_of(container)
    assert [port["targetPort"] for port in objects["Service"]["spec"]["ports"]] == ["http"]
    assert "http" in ports
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert ports == {"http": int(option(container, "--port")), "admin": int(option(container, "--admin-port"))}


def test_the_probes_ask_what_the_admin_port_answers(container: Any, rules: Any) -> None:
    async def answers(store: RuleStore) -> dict[str, int]:
        probes = [container[each]["httpGet"] for each in ("startupProbe", "livenessProbe", "readinessProbe")]
        async with serving_app(create_admin(store, Metrics()), lifespan="off") as port:
            return {probe["path"]: (await fetch(port, probe["path"])).status for probe in probes}

    store = RuleStore(StaticSource(rules["data"]["rules.yaml"]))
    assert run(answers(store)) == {"/healthz": 200, "/readyz": 503}
    store.reload()
    assert run(answers(store)) == {"/healthz": 200, "/readyz": 200}


def test_the_admin_port_is_not_offered_to_the_cluster(objects: dict[str, Any]) -> None:
    assert [port["name"] for port in objects["Service"]["spec"]["ports"]] == ["http"]


def test_the_admin_port_is_open_to_the_monitoring_alone_and_the_other_to_all(
    objects: dict[str, Any], container: Any
) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    rules = {port["port"]: rule.get("from") for rule in policy["ingress"] for port in rule["ports"]}
    assert rules.keys() == ports_of(container).keys()
    assert rules["http"] is None
    (peer,) = rules["admin"]
    assert peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


def test_the_rules_are_mounted_as_a_directory(rules: Any, pod: Any, container: Any) -> None:
    (volume,) = (volume for volume in pod["volumes"] if "configMap" in volume)
    assert volume["configMap"] == {"name": rules["metadata"]["name"]}
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == volume["name"])
    assert mount.keys().isdisjoint({"subPath", "subPathExpr"})
    assert {each["name"]: each["value"] for each in container["env"]} == {"CANARY_MW_RULES": mount["mountPath"]}


def test_the_base_never_replaces_the_rules_that_the_readme_tells_to_make(objects: dict[str, Any], rules: Any) -> None:
    readme = (K8S.parent / "README.md").read_text(encoding="utf-8")
    assert f"kubectl create configmap {rules['metadata']['name']} --from-file=" in readme
    assert "ConfigMap" not in objects


def test_the_rules_can_be_changed_in_place(rules: Any) -> None:
    assert rules.get("immutable", False) is False
    for kustomization in (*K8S.rglob("kustomization.yaml"),):
        # A name with a hash would make new pods. The dashboard is no file of rules, and has none either.
        for made in yaml.safe_load(kustomization.read_text(encoding="utf-8")).get("configMapGenerator", ()):
            assert (made["files"], made["options"]["disableNameSuffixHash"]) == (["dashboard.json"], True)


def test_the_rules_of_the_demo_send_a_share_to_gray_and_the_rest_to_stable(rules: Any) -> None:
    mappings = list(yaml.safe_load_all(rules["data"]["rules.yaml"]))
    assert [mapping["kind"] for mapping in mappings] == ["Mapping", "Mapping"]
    assert len({mapping["name"] for mapping in mappings}) == 2
    assert len({mapping["prefix"] for mapping in mappings}) == 1
    assert [mapping.get("weight") for mapping in mappings] == [None, 20]


def test_the_demo_brings_the_services_of_its_rules_and_their_app(rules: Any) -> None:
    apps = list(yaml.safe_load_all((DEMO / "apps.yaml").read_text(encoding="utf-8")))
    services = [each["metadata"]["name"] for each in apps if each["kind"] == "Service"]
    assert services == [each["service"] for each in yaml.safe_load_all(rules["data"]["rules.yaml"])]
    (config,) = [each for each in apps if each["kind"] == "ConfigMap"]
    app = (K8S.parent / "examples" / "compose" / "app.py").read_text(encoding="utf-8")
    assert config["data"] == {"app.py": app}


def test_the_pod_meets_the_restricted_pod_security_standard(pod: Any, container: Any) -> None:
    check_restricted(pod, container)


def check_restricted(pod: Any, container: Any) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 8888
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"})
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} == {"configMap", "emptyDir"}


def test_the_pod_holds_no_credential_of_the_cluster(objects: dict[str, Any], pod: Any) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False


def test_no_service_variable_looks_like_a_setting(objects: dict[str, Any], pod: Any) -> None:
    name = objects["Service"]["metadata"]["name"].upper().replace("-", "_")
    assert not f"{name}_".startswith("CANARY_MW_")
    assert pod["enableServiceLinks"] is False


def test_a_pod_that_drains_is_given_the_time(pod: Any, container: Any) -> None:
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause + int(option(container, "--grace")) < pod["terminationGracePeriodSeconds"]


def test_memory_is_limited_and_the_processor_is_not_throttled(container: Any) -> None:
    assert container["resources"] == {"requests": {"cpu": "200m", "memory": "100Mi"}, "limits": {"memory": "400Mi"}}


@pytest.fixture(scope="module", params=["stable", "gray"])
def twin(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Service and Deployment of one version of the app in overlays/in-app."""
    service, deployment = yaml.safe_load_all((IN_APP / f"{request.param}.yaml").read_text(encoding="utf-8"))
    assert service["metadata"]["name"] == deployment["metadata"]["name"] == f"shop-{request.param}"
    return service, deployment


def test_an_app_is_told_which_service_it_is(twin: tuple[Any, Any], rules: Any) -> None:
    service, deployment = twin
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    assert environ["CANARY_MW_LOCAL"] == service["metadata"]["name"]
    (volume,) = (volume for volume in pod["volumes"] if "configMap" in volume)
    assert volume["configMap"] == {"name": rules["metadata"]["name"]}
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == volume["name"])
    assert mount.keys().isdisjoint({"subPath", "subPathExpr"})
    assert mount["mountPath"] == environ["CANARY_MW_RULES"]


def test_the_admin_port_of_an_app_is_for_the_monitoring_alone(twin: tuple[Any, Any]) -> None:
    service, deployment = twin
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    settings = MiddlewareSettings.from_environ(environ)
    assert ports_of(container)["admin"] == settings.admin_port == 8877
    assert settings.admin_host == "0.0.0.0"
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]
    text = (IN_APP / "networkpolicy.yaml").read_text(encoding="utf-8")
    (policy,) = [each for each in yaml.safe_load_all(text) if each["metadata"]["name"] == service["metadata"]["name"]]
    rules = {port["port"]: rule.get("from") for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert rules == {"http": None, "admin": [monitoring]}
    assert policy["spec"]["podSelector"]["matchLabels"] == service["spec"]["selector"]


def test_the_selectors_of_an_app_choose_its_own_pods_only(twin: tuple[Any, Any]) -> None:
    service, deployment = twin
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    assert labels["app.kubernetes.io/component"] == service["metadata"]["name"].removeprefix("shop-")


def test_the_pods_of_an_app_meet_the_restricted_standard_too(twin: tuple[Any, Any]) -> None:
    pod = twin[1]["spec"]["template"]["spec"]
    check_restricted(pod, *pod["containers"])
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_the_rights_in_all_namespaces_are_those_in_one(objects: dict[str, Any], pod: Any) -> None:
    found = {
        item["kind"]: item
        for folder in (WATCH, CLUSTER_WATCH)
        for item in yaml.safe_load_all((folder / "access.yaml").read_text(encoding="utf-8"))
    }
    assert found["ClusterRole"]["rules"] == found["Role"]["rules"]
    assert {verb for rule in found["Role"]["rules"] for verb in rule["verbs"]} == {"list", "watch"}
    account = objects["ServiceAccount"]["metadata"]["name"]
    assert pod["serviceAccountName"] == account
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        assert found[kind]["roleRef"]["name"] == found[kind.removesuffix("Binding")]["metadata"]["name"]
        assert [each["name"] for each in found[kind]["subjects"]] == [account]
