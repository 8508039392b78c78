"""What no schema says about the objects of Kubernetes that are applied together: that they refer to each other."""

from collections.abc import Iterator
from typing import Any

WORKLOADS = ("Deployment", "Rollout", "StatefulSet", "DaemonSet")
# What the people who apply the manifests make themselves.
GIVEN = {("ConfigMap", "canary-rules")}


def faults(objects: list[Any]) -> list[str]:
    """References that lead nowhere, and selectors that select nobody, or the pods of two workloads."""
    workloads = [each for each in objects if each["kind"] in WORKLOADS]
    names = {(each["kind"], each["metadata"]["name"]) for each in objects} | GIVEN
    found = [text for each in workloads for text in _of_workload(each, names)]
    for each in objects:
        check = _CHECKS.get(each["kind"])
        found += [
            f"{each['kind']} {each['metadata']['name']}: {text}" for text in (check(each, objects) if check else ())
        ]
    kinds = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    return found + [f"{each} is there twice" for each in set(kinds) if kinds.count(each) > 1]


def pod_of(workload: Any) -> Any:
    """The pod that a workload makes."""
    return workload["spec"]["template"]["spec"]


def _of_workload(workload: Any, names: set[tuple[str, str]]) -> Iterator[str]:
    pod = pod_of(workload)
    labels = workload["spec"]["template"]["metadata"]["labels"]
    name = workload["metadata"]["name"]
    volumes = {each["name"]: each for each in pod.get("volumes", ())}
    if not workload["spec"]["selector"]["matchLabels"].items() <= labels.items():
        yield f"{name}: the selector is not about its pods"
    for constraint in pod.get("topologySpreadConstraints", ()):
        if not constraint["labelSelector"]["matchLabels"].items() <= labels.items():
            yield f"{name}: pods are spread by labels that they do not have"
    if (account := pod.get("serviceAccountName")) and ("ServiceAccount", account) not in names:
        yield f"{name}: no account {account}"
    for container in pod["containers"]:
        yield from (f"{name}: {text}" for text in _of_container(container, volumes))
    for volume in volumes.values():
        if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in names:
            yield f"{name}: no ConfigMap {volume['configMap']['name']}"


def _of_container(container: Any, volumes: dict[str, Any]) -> Iterator[str]:
    ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
    if len(set(ports.values())) < len(ports):
        yield "a port has two names"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        for kind in ("httpGet", "tcpSocket"):
            port = container.get(probe, {}).get(kind, {}).get("port")
            if port is not None and port not in ports:
                yield f"{probe} asks a port {port} that is not there"
    for mount in container.get("volumeMounts", ()):
        if mount["name"] not in volumes:
            yield f"no volume {mount['name']}"
        if "subPath" in mount or "subPathExpr" in mount:
            yield f"{mount['mountPath']} never changes: it is mounted by subPath"
    if "volumeMounts" in container and volumes.keys() - {each["name"] for each in container["volumeMounts"]}:
        yield "a volume is not mounted"


def _selected(labels: Any, objects: list[Any]) -> list[Any]:
    return [
        each
        for each in objects
        if each["kind"] in WORKLOADS and labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    ]


def _service(item: Any, objects: list[Any]) -> Iterator[str]:
    selected = _selected(item["spec"]["selector"], objects)
    # One without an address only says which pods there are.
    if len(selected) != 1 and not (selected and item["spec"].get("clusterIP") == "None"):
        yield f"leads to the pods of {len(selected)} workloads"
    ports = {port["name"] for each in selected for one in pod_of(each)["containers"] for port in one["ports"]}
    yield from (f"no port {each['targetPort']}" for each in item["spec"]["ports"] if each["targetPort"] not in ports)
    if item["metadata"]["name"].upper().replace("-", "_").startswith("CANARY_MW"):
        yield "pods get variables of this name that look like settings"


def _nothing(item: Any, objects: list[Any]) -> Iterator[str]:
    """Nothing is known of this kind."""
    yield from ()


def _policy(item: Any, objects: list[Any]) -> Iterator[str]:
    """One that lets pods ask each other may be about those of several workloads."""
    selector = item["spec"]["podSelector"]
    inside = [each for rule in item["spec"].get("ingress", ()) for each in rule.get("from", ())]
    if inside and all(each == {"podSelector": selector} for each in inside):
        if not _selected(selector["matchLabels"], objects):
            yield "is about no pods"
    else:
        yield from _selector("podSelector")(item, objects)


def _selector(path: str) -> Any:
    def check(item: Any, objects: list[Any]) -> Iterator[str]:
        if len(_selected(item["spec"][path]["matchLabels"], objects)) != 1:
            yield "is not about the pods of one workload"

    return check


def _autoscaler(item: Any, objects: list[Any]) -> Iterator[str]:
    target = item["spec"]["scaleTargetRef"]
    found = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (target["kind"], target["name"])]
    if [each["apiVersion"] for each in found] != [target["apiVersion"]]:
        yield "scales what is not there"
    yield from ("each apply sets the number of pods" for each in found if "replicas" in each["spec"])


def _binding(item: Any, objects: list[Any]) -> Iterator[str]:
    namespaces = {each["metadata"].get("namespace") for each in objects if each["kind"] == "ServiceAccount"}
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    if (item["roleRef"]["kind"], item["roleRef"]["name"]) not in names:
        yield "gives a role that is not there"
    for subject in item["subjects"]:
        if ("ServiceAccount", subject["name"]) not in names or subject["namespace"] not in namespaces:
            yield f"is for an account that is not there: {subject}"


def _backend(name: str, port: Any, objects: list[Any]) -> Iterator[str]:
    ports = [
        each
        for item in objects
        if (item["kind"], item["metadata"]["name"]) == ("Service", name)
        for each in item["spec"]["ports"]
    ]
    if port not in [value for each in ports for value in (each["name"], each["port"])]:
        yield f"leads to {name}:{port}, which is not there"


def _ingress(item: Any, objects: list[Any]) -> Iterator[str]:
    for rule in item["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            yield from _backend(service["name"], service["port"].get("name", service["port"].get("number")), objects)
        if rule["host"] not in [host for each in item["spec"]["tls"] for host in each["hosts"]]:
            yield f"{rule['host']} has no certificate"
    yield from _texts(item)


def _texts(item: Any) -> Iterator[str]:
    for name, value in item["metadata"].get("annotations", {}).items():
        if not isinstance(value, str):
            yield f"annotation {name} is no text"


def _route(item: Any, objects: list[Any]) -> Iterator[str]:
    for rule in item["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            yield from _backend(backend["name"], backend["port"], objects)


_CHECKS: dict[str, Any] = {
    "Service": _service,
    "PodDisruptionBudget": _selector("selector"),
    "NetworkPolicy": _policy,
    "HorizontalPodAutoscaler": _autoscaler,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
    "Ingress": _ingress,
    "HTTPRoute": _route,
}


def restricted(objects: list[Any]) -> list[str]:
    """What of the pods the Pod Security Standard "restricted" does not allow, and what we ask for besides."""
    return [
        f"{each['metadata']['name']}: {text}"
        for each in objects
        if each["kind"] in WORKLOADS
        for text in _unrestricted(pod_of(each))
    ]


_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def _unrestricted(pod: Any) -> Iterator[str]:
    if not _POD.items() <= pod["securityContext"].items():
        yield "the pod may run as root, or without seccomp"
    if not pod.keys().isdisjoint({"hostNetwork", "hostPID", "hostIPC"}):
        yield "it is in a namespace of the node"
    if pod.get("enableServiceLinks") is not False:
        yield "Services set variables in it"
    if "automountServiceAccountToken" not in pod:
        yield "it is not said whether it holds a credential of the cluster"
    kinds = {kind for volume in pod.get("volumes", ()) for kind in volume if kind != "name"}
    if not kinds <= {"configMap", "emptyDir", "downwardAPI", "secret"}:
        yield f"volumes are of the kinds {kinds}"
    for container in pod["containers"]:
        if not _CONTAINER.items() <= container["securityContext"].items():
            yield "the container may do more than it needs"
        if "memory" not in container["resources"]["limits"] or "cpu" not in container["resources"]["requests"]:
            yield "the container has no bound of its memory, or asks for no processor"
