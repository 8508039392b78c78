"""What the manifests let the proxy do in a cluster is what the source of its rules asks for: no less, and no more.

The fake API server evaluates roles and bindings. They are put there as they are applied, and the source runs as the
account of the proxy.
"""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_tools import helm, objects_of, run
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi, mappings_kind
from installation import ROOT
from manifests import pod_of
from rules import document
from servers import serving_app
from state_cluster import StateCluster, state_cluster
from state_cluster import until as until_done

from canary_mw.control.sources.named import source_of
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import StoreAway
from canary_mw.rollout.state import ReleaseState

K8S = ROOT / "k8s"
VERBS = ("list", "watch")
SHOP = ReleaseState(name="shop", phase="Progressing", weights={"gray": 5.0})


def component(name: str, namespace: str = "shop") -> list[Any]:
    """The objects of a component, with the namespace of an overlay, as kustomize puts it in."""
    path = K8S / "components" / name / "access.yaml"
    found = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for item in found:
        if not item["kind"].startswith("Cluster"):
            item["metadata"]["namespace"] = namespace
        for subject in item.get("subjects", ()):
            subject["namespace"] = "shop"
    return found


def api(objects: list[Any], account: str = "canary-proxy") -> FakeApi:
    """A cluster that knows a token of the account of the proxy, in the namespace shop."""
    server = FakeApi(mappings_kind(), token="nobody", users={"mine": f"system:serviceaccount:shop:{account}"})
    for item in objects:
        if item["kind"].endswith(("Role", "Binding")):
            server.apply(item)
    return server


@contextlib.asynccontextmanager
async def reading(server: FakeApi, folder: Path, address: str, **options: Any) -> AsyncIterator[RuleStore]:
    """A store that follows an address of the manifests, with the credentials of the account."""
    async with serving_app(server.app, lifespan="off") as port:
        path = kubeconfig(folder, f"http://127.0.0.1:{port}", token="mine")
        store = RuleStore(source_of([f"{address}{'&' if '?' in address else '?'}kubeconfig={path}"], **options))
        await asyncio.to_thread(store.start)
        try:
            yield store
        finally:
            await asyncio.to_thread(store.stop)
            server.drop_watches(hard=True)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - a thread makes it true
            await asyncio.sleep(0.005)


def watched(store: RuleStore) -> bool:
    """Whether each kind is listed and watched."""
    found = list(store.source_status())
    return bool(found) and all(each.synced for each in found)


async def check(server: FakeApi, folder: Path, address: str, namespaces: tuple[str, ...]) -> None:
    """The source reads all that it wants to, and nothing was ever refused."""
    for namespace in namespaces:
        server.annotate(namespace, f"{namespace}-stable", document(f"{namespace}-stable"))
        server.map(namespace, f"{namespace}-gray", {"prefix": f"/{namespace}/", "service": "gray"})
    expected = {f"{namespace}-{version}" for namespace in namespaces for version in ("stable", "gray")}
    async with reading(server, folder, address) as store:
        await until(lambda: {mapping.name for mapping in store.table.mappings} == expected and watched(store))
        assert [each for each in store.diagnostics if each.severity != "notice"] == []
    # Whoever has logged in may ask what he may.
    asked = {verb for verb, path, _ in server.requests if not path.endswith("/selfsubjectaccessreviews")}
    assert asked == {"discover", *VERBS}


@in_loop
async def test_the_component_is_enough_in_its_namespace(tmp_path: Path) -> None:
    await check(api(component("service-watch")), tmp_path, "k8s://", ("shop",))


@in_loop
async def test_the_component_for_the_cluster_is_enough_in_all(tmp_path: Path) -> None:
    await check(api(component("cluster-watch")), tmp_path, "k8s://*", ("shop", "cart"))


def without_one() -> Iterator[tuple[str, str, list[Any]]]:
    """Plural name, verb, and the objects of the component without the right to it."""
    role, _ = component("service-watch")
    # Those of endpoints are asked for by what follows endpoints: tests/unit/upstreams/discovery.
    rules = [rule for rule in role["rules"] if rule["resources"] != ["endpointslices"]]
    for at, rule in enumerate(rules):
        for verb in VERBS:
            namespace = f"no-{verb}-{rule['resources'][0]}"
            changed, binding = copy.deepcopy(component("service-watch", namespace))
            changed["rules"][at]["verbs"].remove(verb)
            yield rule["resources"][0], verb, [changed, binding]


@in_loop
async def test_each_verb_of_each_rule_of_the_component_is_missed(tmp_path: Path) -> None:
    cases = list(without_one())
    server = api([item for _, _, objects in cases for item in objects])
    namespaces = ",".join(objects[0]["metadata"]["namespace"] for _, _, objects in cases)

    def missed(store: RuleStore, plural: str, verb: str, namespace: str) -> bool:
        lines = [str(each) for each in store.source_status() if each.namespace == namespace]
        return [f"resources: [{plural}], verbs: [{verb}]" in line for line in lines].count(True) == 1

    async with reading(server, tmp_path, f"k8s://{namespaces}?kinds=services,ingresses,mappings") as store:
        for plural, verb, objects in cases:
            namespace = objects[0]["metadata"]["namespace"]
            await until(lambda p=plural, v=verb, n=namespace: missed(store, p, v, n))


def written(server: FakeApi) -> list[Any]:
    """The Events that are there."""
    return [item for (key, _, _), item in server.objects.items() if key == "events"]


@in_loop
async def test_the_component_for_events_is_what_writes_them(tmp_path: Path) -> None:
    server = api([*component("service-watch"), *component("events")])
    server.annotate("shop", "broken", document("broken", service=None))
    async with reading(server, tmp_path, "k8s://", events=True):
        await until(lambda: written(server))
    assert {(each["involvedObject"]["kind"], each["involvedObject"]["name"]) for each in written(server)} == {
        ("Service", "broken")
    }


@in_loop
async def test_without_the_component_for_events_nothing_is_written(tmp_path: Path) -> None:
    server = api(component("service-watch"))
    server.annotate("shop", "broken", document("broken", service=None))
    async with reading(server, tmp_path, "k8s://", events=True):
        await until(lambda: any(path.endswith("/events") for _, path, _ in server.requests))
    assert written(server) == []


# What keeps states asks for these rights of the component; what finds the other pods asks for the rest.
STATES = ["configmaps", "leases"]


def rollout_objects() -> list[Any]:
    """The objects that pods write, as the component makes them."""
    path = K8S / "components" / "rollout" / "objects.yaml"
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@contextlib.contextmanager
def states_of(role: list[Any], folder: Path) -> Iterator[StateCluster]:
    """A cluster with the objects of the component, and with these roles."""
    server = FakeApi(token="nobody", users={"mine": "system:serviceaccount:shop:canary-proxy"})
    for item in role:
        server.apply(item)
    with state_cluster(folder, server, made=False) as found:
        for item in rollout_objects():
            plural = {"ConfigMap": "configmaps", "Lease": "leases.coordination.k8s.io"}[item["kind"]]
            found.put(plural, item["metadata"]["name"], item)
        yield found


def rights_of(role: list[Any]) -> list[Any]:
    """The role and its binding, and no policy."""
    return [item for item in role if item["kind"].endswith(("Role", "Binding"))]


def test_the_component_for_states_is_enough(tmp_path: Path) -> None:
    """The store reads, follows, writes and leads, and nothing is refused."""
    with states_of(rights_of(component("rollout")), tmp_path) as cluster:
        one, other = (
            cluster.speaking(releases={"shop": True}, lease="canary-mw-canary-proxy", token="mine") for _ in range(2)
        )
        until_done(lambda: one.contend(speaks=True) or other.contend(speaks=True))
        assert one.compare_and_set("shop", SHOP, None) == 1
        until_done(lambda: other.has_changed() and other.load().states)
        assert other.load().unreadable == {}
        assert other.problems == one.problems == ()
    verbs = {(verb, path.split("/")[-2 if verb in ("get", "update") else -1]) for verb, path, _ in cluster.api.requests}
    role = component("rollout")[0]
    needed = {(verb, *rule["resources"]) for rule in role["rules"] for verb in rule["verbs"]}
    assert verbs == {each for each in needed if each[1] in STATES}


def without_one_right() -> list[Any]:
    """Plural name, verb, and the objects of the component without the right to it."""
    role = component("rollout")[0]
    return [
        pytest.param(number, verb, id=f"{verb}-{rule['resources'][0]}")
        for number, rule in enumerate(role["rules"])
        if rule["resources"][0] in STATES
        for verb in rule["verbs"]
    ]


@pytest.mark.parametrize(("number", "verb"), without_one_right())
def test_each_right_to_states_is_missed_and_named(number: int, verb: str, tmp_path: Path) -> None:
    changed = rights_of(component("rollout"))
    rule = changed[0]["rules"][number]
    rule["verbs"].remove(verb)
    missing = f"resourceNames: {str(rule['resourceNames']).replace(chr(39), '')}, verbs: [{verb}]"
    with states_of(changed, tmp_path) as cluster:
        store = cluster.speaking(releases={"shop": True}, lease="canary-mw-canary-proxy", token="mine")

        def told() -> str:
            try:
                store.compare_and_set("shop", SHOP, None)
            except StoreAway as exc:
                return str(exc)
            return " ".join([*store.load().unreadable.values(), *store.problems])

        until_done(lambda: missing in told())


@in_loop
async def test_the_account_of_another_namespace_has_no_right(tmp_path: Path) -> None:
    objects = component("service-watch")
    objects[1]["subjects"][0]["namespace"] = "other"
    async with reading(api(objects), tmp_path, "k8s://") as store:
        await until(lambda: any("forbidden" in str(each) for each in store.source_status()))
        assert store.generation == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", ["watch.yaml", "watch-some.yaml", "watch-all.yaml"])
@in_loop
async def test_the_rights_of_the_chart_are_enough(case: str, tmp_path: Path) -> None:
    values = K8S / "chart" / "ci" / case
    text = run(helm(3, tmp_path), "template", "web", K8S / "chart", "--namespace", "shop", "--values", values)
    objects = objects_of(text)
    (workload,) = [each for each in objects if each["kind"] == "Deployment"]
    variables = {each["name"]: each["value"] for each in pod_of(workload)["containers"][0]["env"]}
    address = variables["CANARY_MW_RULES"].removeprefix("/etc/canary:")
    server = api(objects, account="web-canary-proxy")
    # The selector of the example is about labels that nothing here has.
    address = address.partition("&selector=")[0]
    await check(server, tmp_path, address, ("shop",) if case == "watch.yaml" else ("shop", "cart"))
