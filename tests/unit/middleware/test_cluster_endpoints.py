"""`resolver: endpoint` in both middlewares: requests go to the pods that the API of a cluster names."""

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from clusters import kubeconfig
from fake_apiserver import FakeApi, mappings_kind
from middlewares import Middleware, middleware, serving_middleware
from servers import fetch, mapping, run, serving_app
from upstream import forever, serving, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.settings import MiddlewareSettings
from canary_mw.routing.table import RouteTable

GRAY = mapping("gray", "/shop/", "gray", resolver="endpoint")


class Shop:
    """A cluster with a Service `gray`, and the pods that may stand behind it."""

    def __init__(self, api: FakeApi, address: str, ports: list[int]) -> None:
        self.api, self.address, self.ports = api, address, ports
        api.expose("shop", "gray", [{"port": 80}])
        self.slice(0)

    def slice(self, *numbers: int) -> None:
        """These pods are ready; each is an upstream at a port of its own, and so in a slice of its own."""
        for number, port in enumerate(self.ports):
            conditions = {"ready": number in numbers}
            pod = {"addresses": ["127.0.0.1"], "conditions": conditions}
            self.api.slice("shop", "gray", f"gray-{number}", {"endpoints": [pod], "ports": [{"port": port}]})


@contextlib.asynccontextmanager
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    api = FakeApi(mappings_kind())
    async with serving(forever) as one, serving(forever) as other, serving_app(api.app, lifespan="off") as port:
        path = kubeconfig(tmp_path, f"http://127.0.0.1:{port}", token="admin")
        yield Shop(api, f"k8s://?kubeconfig={path}", [one.origin.port, other.origin.port])
        api.drop_watches(hard=True)
        for _ in range(5):
            await asyncio.sleep(0)


async def answered_by(served: Middleware, port: int, pod: int) -> None:
    """Requests reach this port and no other."""
    async with asyncio.timeout(20):
        while _endpoints(served) != [f"127.0.0.1:{pod}"]:
            await fetch(port, "/shop/")
            await asyncio.sleep(0.005)
    assert (await fetch(port, "/shop/")).status == 200


def _endpoints(served: Any) -> list[str]:
    upstreams = served.upstreams
    states = [upstreams._routes] if hasattr(upstreams, "_routes") else [each.routes for each in upstreams._states.all()]
    routes = [route for state in states for route in state.values()]
    return [endpoint.name for route in routes for endpoint in route.endpoints.endpoints]


def test_rules_of_a_file_reach_the_pods_of_the_api_that_is_named(
    interface: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with shop(tmp_path) as cluster:
            monkeypatch.setenv("CANARY_MW_ENDPOINTS", cluster.address)
            served = middleware(rules=StaticSource(GRAY))
            async with serving_middleware(served) as port:
                await answered_by(served, port, cluster.ports[0])
                cluster.slice(1)
                await answered_by(served, port, cluster.ports[1])
                cluster.slice()
                await until(lambda: not _endpoints(served))
                assert (await fetch(port, "/shop/")).status == 503
                kinds = {each.kind for each in served.source_status()}
                assert kinds == {"services", "endpointslices"}

    run(main())


def test_rules_of_an_api_reach_its_pods_and_a_change_of_rules_changes_what_is_watched(
    interface: str, tmp_path: Path
) -> None:
    spec = {"prefix": "/shop/", "service": "gray", "resolver": "endpoint"}

    async def main() -> None:
        async with shop(tmp_path) as cluster:
            cluster.api.map("shop", "gray", spec)
            served = middleware(rules=cluster.address)
            # The first load waits for the API, which this loop serves.
            await asyncio.to_thread(served.start)
            async with serving_middleware(served) as port:
                await answered_by(served, port, cluster.ports[0])
                watched = {each.kind for each in served.discovery.cluster.status()}
                assert watched == {"services", "endpointslices"}
                # Nothing asks for endpoints any more.
                cluster.api.map("shop", "gray", {**spec, "resolver": "kubernetes-service"})
                await until(lambda: not served.discovery.cluster.status())

    run(main())


# The app itself, and what is found elsewhere, too.
@pytest.mark.parametrize(
    ("rules", "options"),
    [
        (mapping("gray", "/shop/", "gray"), {}),
        (mapping("gray", "/shop/", "gray", resolver="kubernetes-service"), {}),
        (GRAY, {"local": "gray"}),
        (GRAY, {"upstreams": {"gray": "http://127.0.0.1:9"}}),
        (GRAY, {"upstreams": {"*": "http://127.0.0.1:9"}}),
    ],
)
def test_nothing_is_watched_that_no_request_needs(
    rules: str, options: dict[str, Any], interface: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_MW_ENDPOINTS", f"k8s://?kubeconfig={kubeconfig(tmp_path, 'http://127.0.0.1:9')}")
    served = middleware(rules=StaticSource(rules), **options)
    served.start()
    assert served.discovery.cluster.status() == []
    assert not served.discovery.cluster._thread.started
    served._stop()


def test_a_table_that_is_told_late_does_not_count(interface: str) -> None:
    """A start tells the table that it has read, while a reload may have told a newer one."""
    served = middleware(rules=StaticSource(GRAY))
    served.start()
    wanted = served.discovery.cluster._services
    assert [each.name for each in wanted] == ["gray"]
    served._find_services(RouteTable.build(()))
    assert served.discovery.cluster._services == wanted
    served._stop()


def test_without_an_api_the_name_is_looked_up_and_the_log_says_so(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    rules = mapping("gray", "/shop/", "gray.test", resolver="endpoint")

    async def main() -> None:
        served = middleware(rules=StaticSource(rules))
        async with serving_middleware(served) as port:
            caplog.set_level(logging.WARNING, "canary_mw")
            assert (await fetch(port, "/shop/")).status == 503

    run(main())
    assert "the rules come from no API, and none is named" in caplog.text
    assert "gray.test: no address" in caplog.text


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("https://10.0.0.1", "write k8s:// or"),
        ("k8s://shop", "leave all but"),
        ("k8s://*", "leave all but"),
        ("k8s://?selector=a", "leave all but"),
        ("k8s://?kinds=services", "leave all but"),
        ("k8s://?empty=keep", "leave all but"),
        ("k8s://?exec=all", "exec=allow"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_at_the_start(address: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="CANARY_MW_ENDPOINTS") as caught:
        MiddlewareSettings.from_environ({"CANARY_MW_ENDPOINTS": address})
    assert hint in str(caught.value)


@pytest.mark.slow
def test_nothing_of_a_cluster_is_imported_before_rules_ask_for_endpoints(tmp_path: Path) -> None:
    code = """
import json, sys
from canary_mw import CanaryWSGIMiddleware
from canary_mw.control.sources.static import StaticSource
CanaryWSGIMiddleware(lambda *_: [], rules=StaticSource(sys.argv[1])).start()
print(json.dumps([name for name in sys.modules if "cluster_watch" in name or name == "httpx"]))
"""
    rules = mapping("gray", "/shop/", "gray")
    done = subprocess.run([sys.executable, "-c", code, rules], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []
