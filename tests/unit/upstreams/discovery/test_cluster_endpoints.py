"""The endpoints of Services, as an API server tells them over real connections."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import in_loop
from fake_apiserver import FakeApi
from servers import free_port, serving_app
from upstream import until

from canary_mw.exceptions import ConfigError
from canary_mw.kubernetes.credentials import Connection
from canary_mw.rules.upstream import KubernetesService
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.discovery.cluster_endpoints import ClusterEndpoints, watch_cluster

HTTP = [{"name": "http", "port": 80, "targetPort": 8080}]
GRAY = KubernetesService("gray", "shop", 80)


def pods(*addresses: str, ready: bool = True, **more: Any) -> dict[str, Any]:
    endpoints = [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses]
    return {"endpoints": endpoints, "ports": [{"name": "http", "port": 8080}], **more}


class Found:
    """What is known of Services; `changes` waits until that is something else."""

    def __init__(self, api: FakeApi, endpoints: ClusterEndpoints) -> None:
        self.api, self.endpoints = api, endpoints

    async def until(self, service: KubernetesService, condition: Callable[[Answer], bool]) -> Answer:
        async with asyncio.timeout(20):
            while (answer := self.endpoints.answer(service)) is None or not condition(answer):
                await self.endpoints.moved(service, answer, 20)
        return answer

    async def shows(self, *addresses: str, service: KubernetesService = GRAY, port: int = 8080) -> None:
        expected = tuple((address, port) for address in addresses)
        assert (await self.until(service, lambda answer: answer.addresses == expected)).reason == "" or not expected

    async def by_name(self, service: KubernetesService = GRAY) -> str:
        """Why a name is looked up by DNS."""
        return (await self.until(service, lambda answer: answer.addresses is None)).reason

    def asked(self, verb: str, plural: str) -> list[tuple[str, dict[str, str]]]:
        """Paths and queries of requests."""
        return [(path, query) for which, path, query in self.api.requests if which == verb and path.endswith(plural)]


@contextlib.asynccontextmanager
async def cluster(
    api: FakeApi, *services: KubernetesService, token: str = "admin", zone: str = ""
) -> AsyncIterator[Found]:
    async with serving_app(api.app, lifespan="off") as port:
        connection = Connection(server=f"http://127.0.0.1:{port}", namespace="shop", token=lambda: token)
        endpoints = watch_cluster(lambda: connection, zone)
        endpoints.follow(lambda: services)
        try:
            yield Found(api, endpoints)
        finally:
            await asyncio.to_thread(endpoints.stop)
            api.drop_watches(hard=True)
            for _ in range(5):
                await asyncio.sleep(0)


def shop(*, old: bool = False, **options: Any) -> FakeApi:
    api = FakeApi(old=old, **options)
    api.expose("shop", "gray", HTTP)
    api.slice("shop", "gray", "gray-1", pods("10.1.0.1", "10.1.0.2"))
    return api


@pytest.mark.parametrize("old", [False, True])
@in_loop
async def test_endpoints_follow_the_slices_of_old_and_new_servers(old: bool) -> None:
    api = shop(old=old)
    async with cluster(api, GRAY) as found:
        await found.shows("10.1.0.1", "10.1.0.2")
        # One is not ready, one ends, one has moved to another slice.
        api.slice("shop", "gray", "gray-1", pods("10.1.0.2"))
        await found.shows("10.1.0.2")
        api.slice("shop", "gray", "gray-2", pods("10.1.0.2", "10.1.0.3"))
        api.slice("shop", "gray", "gray-1", pods())
        await found.shows("10.1.0.2", "10.1.0.3")
        ending = {"ready": False, "serving": True, "terminating": True}
        both = pods("10.1.0.2") | {"endpoints": [{"addresses": ["10.1.0.3"], "conditions": ending}]}
        api.slice("shop", "gray", "gray-2", both)
        # Nothing else is left.
        await found.shows("10.1.0.3")
        api.slice("shop", "gray", "gray-1", pods("10.1.0.4"))
        await found.shows("10.1.0.4")
        # A watch that is cut goes on, and what the server has forgotten is listed again.
        api.drop_watches(hard=True)
        api.slice("shop", "gray", "gray-1", None)
        api.restart()
        await found.shows("10.1.0.3")
        assert "none of its" not in str(found.endpoints.answer(GRAY))
    version = "v1beta1" if old else "v1"
    assert {path for path, _ in found.asked("list", "endpointslices")} == {
        f"/apis/discovery.k8s.io/{version}/namespaces/shop/endpointslices"
    }


@in_loop
async def test_no_usable_endpoint_is_none_and_never_the_last_ones() -> None:
    api = shop()
    async with cluster(api, GRAY) as found:
        await found.shows("10.1.0.1", "10.1.0.2")
        api.slice("shop", "gray", "gray-1", pods("10.1.0.1", "10.1.0.2", ready=False))
        await found.shows()
        assert found.endpoints.answer(GRAY) == Answer((), "gray.shop: none of its 2 endpoints is ready")
        api.slice("shop", "gray", "gray-1", None)
        answer = await found.until(GRAY, lambda answer: "its 0 endpoints" in answer.reason)
        assert answer.addresses == ()


@in_loop
async def test_the_port_of_the_service_decides_which_of_the_pods_ports_is_meant() -> None:
    api = shop()
    admin = KubernetesService("gray", "shop", 9000)
    api.expose("shop", "gray", [*HTTP, {"name": "admin", "port": 9000}])
    many = [{"name": "http", "port": 8080}, {"name": "admin", "port": 7000}]
    api.slice("shop", "gray", "gray-1", pods("10.1.0.1") | {"ports": many})
    async with cluster(api, GRAY, admin) as found:
        await found.shows("10.1.0.1")
        await found.shows("10.1.0.1", service=admin, port=7000)
        # The names change at the Service; its numbers stay.
        api.expose("shop", "gray", [{"name": "admin", "port": 80}])
        await found.shows("10.1.0.1", port=7000)
        assert "port 9000 is not among its TCP ports (80)" in await found.by_name(admin)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (None, "gray.shop: there is no such Service"),
        ({"ports": [{"port": 81}, {"port": 82}]}, "gray.shop: port 80 is not among its TCP ports (81, 82)"),
        ({"ports": [{"port": 80, "protocol": "UDP"}]}, "gray.shop: port 80 is not among its TCP ports (it has none)"),
        ({"type": "ExternalName", "externalName": "a.example.com", "ports": [{"port": 80}]}, "port 80 is not among"),
    ],
)
@in_loop
async def test_what_the_api_does_not_know_is_looked_up_by_dns(
    spec: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "canary_mw")
    api = shop()
    api.put("services", "shop", "gray", spec and {"metadata": {}, "spec": spec})
    async with cluster(api, GRAY) as found:
        assert reason in await found.by_name()
        # Until it does.
        api.expose("shop", "gray", HTTP)
        await found.shows("10.1.0.1", "10.1.0.2")
        api.put("services", "shop", "gray", None)
        assert await found.by_name() == "gray.shop: there is no such Service"
    assert [each for each in caplog.messages if reason in each and "by DNS" in each]


def access() -> list[Any]:
    """The rules of the Role that the component for the proxy brings."""
    path = Path(__file__).parents[4] / "k8s" / "components" / "service-watch" / "access.yaml"
    (role,) = [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each["kind"] == "Role"]
    return list(role["rules"])


@pytest.mark.slow
@pytest.mark.parametrize("verbs", [["list", "watch"], ["list"], ["watch"]])
@pytest.mark.parametrize("plural", ["services", "endpointslices"])
@in_loop
async def test_a_missing_right_is_named_as_a_rule_and_leaves_the_name_to_dns(plural: str, verbs: list[str]) -> None:
    api = shop(token="admin", users={"mine": "me"})
    (rule,) = [each for each in access() if each["resources"] == [plural]]
    left = {**rule, "verbs": [verb for verb in rule["verbs"] if verb not in verbs]}
    api.grant("shop", "me", [each if each != rule else left for each in access()])
    text = f'{{apiGroups: ["{rule["apiGroups"][0]}"], resources: [{plural}], verbs: [{", ".join(verbs)}]}}'
    async with cluster(api, GRAY, token="mine") as found:
        if "list" in verbs:
            reason = await found.by_name()
            assert reason.startswith(f"gray.shop: {plural} cannot be read: ")
            assert reason.endswith(f"its Role lacks the rule {text}")
        else:
            # What can be listed counts.
            await found.shows("10.1.0.1", "10.1.0.2")
        await until(lambda: any(text in str(each) for each in found.endpoints.status()))


@in_loop
async def test_the_role_of_the_component_is_enough() -> None:
    api = shop(token="admin", users={"mine": "me"})
    api.grant("shop", "me", access())
    async with cluster(api, GRAY, token="mine") as found:
        await found.shows("10.1.0.1", "10.1.0.2")
        await until(lambda: all(each.synced for each in found.endpoints.status()))


@in_loop
async def test_an_api_that_is_lost_takes_no_endpoint_along() -> None:
    api = shop()
    async with cluster(api, GRAY) as found:
        await found.shows("10.1.0.1", "10.1.0.2")
        api.fail_next(503, 1000)

        def lost() -> bool:
            # Each time: a watch may be about to begin.
            api.drop_watches(hard=True)
            return all(each.error for each in found.endpoints.status())

        await until(lost)
        await found.shows("10.1.0.1", "10.1.0.2")


@in_loop
async def test_an_api_that_does_not_answer_leaves_names_to_dns() -> None:
    connection = Connection(server=f"http://127.0.0.1:{free_port()}", namespace="shop")
    endpoints = watch_cluster(lambda: connection)
    endpoints.follow(lambda: [GRAY])
    assert "services cannot be read: " in await Found(FakeApi(), endpoints).by_name()
    await asyncio.to_thread(endpoints.stop)


@in_loop
async def test_without_an_api_the_log_says_so_once_and_a_later_one_counts(caplog: pytest.LogCaptureFixture) -> None:
    api, ways = shop(), list[Connection]()

    def connect() -> Connection:
        if not ways:
            raise ConfigError("no API is named", hint="name one")
        return ways[0]

    endpoints = watch_cluster(connect)
    for _ in range(3):
        endpoints.ensure(GRAY)
    assert endpoints.answer(GRAY) == Answer(None, "endpoints cannot be asked for: no API is named (name one)")
    assert endpoints.status() == []
    assert len([each for each in caplog.messages if "no API is named" in each]) == 1
    async with serving_app(api.app, lifespan="off") as port:
        ways.append(Connection(server=f"http://127.0.0.1:{port}", namespace="shop"))
        endpoints.ensure(GRAY)
        await Found(api, endpoints).shows("10.1.0.1", "10.1.0.2")
        await asyncio.to_thread(endpoints.stop)
        api.drop_watches(hard=True)


@in_loop
async def test_only_named_services_are_watched_in_their_namespaces() -> None:
    api = shop()
    other, here = KubernetesService("stable", "other", 80), KubernetesService("stable", "", 80)
    for namespace, address in (("other", "10.2.0.1"), ("shop", "10.1.0.9")):
        api.expose(namespace, "stable", HTTP)
        api.slice(namespace, "stable", "stable-1", pods(address))
    async with cluster(api) as found:
        assert api.requests == [] == found.endpoints.status()
        found.endpoints.follow(lambda: [GRAY])
        await found.shows("10.1.0.1", "10.1.0.2")
        found.endpoints.follow(lambda: [GRAY, here, other])
        await found.shows("10.2.0.1", service=other)
        # Without a namespace it is that of this process.
        await found.shows("10.1.0.9", service=here)
        await found.shows("10.1.0.1", "10.1.0.2")
        names = sorted(
            (path.split("/")[5], query["labelSelector"]) for path, query in found.asked("list", "endpointslices")
        )
        assert names == [
            ("other", "kubernetes.io/service-name in (stable)"),
            ("shop", "kubernetes.io/service-name in (gray)"),
            ("shop", "kubernetes.io/service-name in (gray,stable)"),
        ]
        # What is no longer named is no longer known, and nothing is listed again for it.
        found.endpoints.follow(lambda: [GRAY])
        await until(lambda: found.endpoints.answer(other) is None)
        assert {each.namespace for each in found.endpoints.status()} == {"shop"}
        assert len(found.asked("list", "endpointslices")) == 3
        found.endpoints.follow(list)
        assert found.endpoints.status() == []
        await until(lambda: not api.watching)


@in_loop
async def test_many_services_are_watched_as_a_whole_namespace() -> None:
    api = FakeApi()
    services = [KubernetesService(f"s{number}", "shop", 80) for number in range(51)]
    for number, service in enumerate(services):
        api.expose("shop", service.name, HTTP)
        api.slice("shop", service.name, f"{service.name}-x", pods(f"10.1.0.{number}"))
    async with cluster(api, *services) as found:
        await found.shows("10.1.0.50", service=services[50])
        assert ["labelSelector" in query for _, query in found.asked("list", "endpointslices")] == [False]


@in_loop
async def test_the_zone_of_the_node_comes_first() -> None:
    api = shop()
    endpoints = [
        {"addresses": [f"10.1.0.{number}"], "conditions": {"ready": True}, "hints": {"forZones": [{"name": zone}]}}
        for number, zone in ((1, "a"), (2, "b"))
    ]
    api.slice("shop", "gray", "gray-1", pods() | {"endpoints": endpoints})
    async with cluster(api, GRAY, zone="b") as found:
        await found.shows("10.1.0.2")


@in_loop
async def test_a_change_wakes_those_alone_that_wait_for_it() -> None:
    api = shop()
    stable = KubernetesService("stable", "shop", 80)
    api.expose("shop", "stable", HTTP)
    async with cluster(api, GRAY, stable) as found:
        await found.shows("10.1.0.1", "10.1.0.2")
        await found.shows(service=stable)
        endpoints, seen = found.endpoints, found.endpoints.answer(stable)
        waiting = asyncio.create_task(endpoints.moved(stable, seen, 60))
        assert await endpoints.moved(stable, seen, 0.01) is False
        api.slice("shop", "gray", "gray-1", None)
        await found.shows()
        assert not waiting.done()
        api.slice("shop", "stable", "stable-1", pods("10.1.0.7"))
        assert await waiting
