"""`resolver: endpoint` in a real proxy under load: pods that are not ready, end, or move."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster_box import CANARY, READ, Box, box
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi
from load import Load, eventually, load
from servers import Answer, fetch, fetch_admin, serving_app
from upstream import Peer, serving
from wsgiprocess import served

RULE = """---
apiVersion: getambassador.io/v2
kind: Mapping
name: gray
prefix: /shop/
service: shop-gray
resolver: endpoint
timeout_ms: 30000
retry_policy: {retry_on: 5xx, num_retries: 3}
outlier_detection: {consecutive_5xx: 3, base_ejection_time: 1h, max_ejection_time: 1h, max_ejection_percent: 100}
"""
SLICES = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
READY = {"ready": True, "serving": True, "terminating": False}
NOT_READY = {"ready": False, "serving": False, "terminating": False}
ENDING = {"ready": False, "serving": True, "terminating": True}


class Pod:
    """An upstream that counts its requests; those for `/slow` wait until `go`."""

    def __init__(self, name: str) -> None:
        self.name, self.status, self.answered = name, b"200 OK", 0
        self.port, self.held, self.go = 0, 0, asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            self.answered += 1
            if b"/slow" in request.line:
                self.held += 1
                await self.go.wait()
            await peer.answer(self.name.encode(), status=self.status)


class Pods:
    """The pods behind a Service: each at a port, and so in a slice, of its own."""

    def __init__(self, shop: Box, pods: list[Pod]) -> None:
        self.shop, self.all = shop, pods

    def tell(self, pod: Pod, conditions: dict[str, bool] | None) -> None:
        """Write the slice of a pod; None deletes it."""
        made = {"endpoints": [{"addresses": ["127.0.0.1"], "conditions": conditions}], "ports": [{"port": pod.port}]}
        self.shop.api.slice("shop", "shop-gray", f"gray-{pod.name}", made if conditions else None)

    async def get_requests(self, *names: str) -> None:
        """Wait until these pods get requests and the others get none, while a hundred are answered."""
        while True:
            before = [pod.answered for pod in self.all]
            await asyncio.gather(*(fetch(self.shop.port, "/shop/") for _ in range(100)))
            found = [pod.name for pod, count in zip(self.all, before, strict=True) if pod.answered > count]
            if found == [*names]:
                return


@contextlib.asynccontextmanager
async def pods(folder: Path) -> AsyncIterator[tuple[Pods, Load]]:
    """A proxy under load, before the pods a, b and c, which are ready, and d, which is not there yet."""
    made = [Pod(name) for name in "abcd"]
    async with box(folder) as shop, contextlib.AsyncExitStack() as stack:
        for pod in made:
            pod.port = (await stack.enter_async_context(serving(pod))).origin.port
        found = Pods(shop, made)
        shop.api.grant("shop", CANARY, [*READ, SLICES])
        metadata = {"annotations": {"getambassador.io/config": RULE}}
        shop.api.put("services", "shop", "shop-gray", {"metadata": metadata, "spec": {"ports": [{"port": 80}]}})
        for pod in made[:3]:
            found.tell(pod, READY)
        await stack.enter_async_context(shop.api_served())
        with shop.serve("log"):
            await shop.ready()
            async with load(shop.port, "/shop/", clients=2, pause=0.01) as requests:
                yield found, requests
            assert await asyncio.to_thread(shop.proxy.stop) == 0
            shop.api.drop_watches(hard=True)


async def metric(shop: Box, name: str) -> list[str]:
    metrics = (await fetch_admin(shop.admin, "/metrics")).body.decode()
    return [line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith(name)]


@pytest.mark.slow
@in_loop
async def test_pods_that_are_not_ready_end_or_move_get_no_new_request_and_change_nothing_for_the_others(
    tmp_path: Path,
) -> None:
    async with pods(tmp_path) as (found, requests):
        shop, (a, b, c, d) = found.shop, found.all
        await found.get_requests("a", "b", "c")
        assert "kind=endpointslices namespace=shop version=v1 objects=3" in await shop.ready()
        # One fails, and is left alone for an hour: that is what no change may forget. Retries hide it.
        a.status = b"503 Gray"
        await found.get_requests("b", "c")
        a.status = b"200 OK"
        assert await metric(shop, "canary_mw_ejections_total{") == ["1.0"]
        found.tell(b, NOT_READY)
        await found.get_requests("c")
        found.tell(b, READY)
        await found.get_requests("b", "c")
        # One ends while it has a request: that one is answered, and no other comes.
        b.status = b"200 OK"
        slow = [asyncio.create_task(fetch(shop.port, "/shop/slow")) for _ in range(4)]
        await eventually(lambda: b.held > 0 and c.held > 0)
        found.tell(b, ENDING)
        await found.get_requests("c")
        b.go.set()
        c.go.set()
        assert [each.status for each in await asyncio.gather(*slow)] == [200] * 4
        # One moves: another takes its place.
        found.tell(d, READY)
        found.tell(b, None)
        found.tell(c, None)
        await found.get_requests("d")
        assert await metric(shop, "canary_mw_ejections_total{") == ["1.0"]
        assert requests.lost == []
        # Without any there is no answer but 503, and none of the last ones gets a request.
        before = [pod.answered for pod in found.all]
        for pod in (a, d):
            found.tell(pod, NOT_READY)
        while (answer := await fetch(shop.port, "/shop/")).status != 503:
            before = [pod.answered for pod in found.all]
        assert answer.body == b"upstream shop-gray.shop is not reachable\n"
        await asyncio.gather(*(fetch(shop.port, "/shop/") for _ in range(50)))
        found.tell(d, READY)
        while (await fetch(shop.port, "/shop/")).status != 200:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        await found.get_requests("d")
        assert sum(pod.answered for pod in (a, b, c)) - sum(before[:3]) <= 2
        assert "shop-gray.shop: none of its 2 endpoints is ready" in shop.proxy.output


@pytest.mark.slow
@pytest.mark.parametrize(("server", "started"), [("preload", True), ("gevent preload", True), ("waitress", False)])
@in_loop
async def test_each_worker_of_a_wsgi_server_reaches_the_pods(server: str, started: bool, tmp_path: Path) -> None:
    """Where watches begin before the fork, each worker has its own, and the parent's are not disturbed."""
    api, pods = FakeApi(), [Pod("a"), Pod("b")]
    workers = 1 if server == "waitress" else 2
    rule = RULE.replace("prefix: /shop/", "prefix: /pods/")

    def tell(pod: Pod) -> None:
        endpoints = [{"addresses": ["127.0.0.1"], "conditions": READY}]
        api.slice("shop", "shop-gray", "gray-1", {"endpoints": endpoints, "ports": [{"port": pod.port}]})

    async with contextlib.AsyncExitStack() as stack:
        for pod in pods:
            pod.port = (await stack.enter_async_context(serving(pod))).origin.port
        port = await stack.enter_async_context(serving_app(api.app, lifespan="off"))
        metadata = {"annotations": {"getambassador.io/config": rule}}
        api.put("services", "shop", "shop-gray", {"metadata": metadata, "spec": {"ports": [{"port": 80}]}})
        tell(pods[0])
        address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, f'http://127.0.0.1:{port}')}"
        environ = {"PREFORKED_RULES": address, **({"PREFORKED_STARTED": "1"} if started else {})}
        with served(server, "preforked:create_app", tmp_path / "log", **environ) as (running, app):
            while _lists(api) < workers + started:
                await asyncio.gather(*(fetch(app, "/pods/") for _ in range(4)))
            while b"b" not in [found.body for found in await _many(app)]:
                tell(pods[1])
            while {found.body for found in await _many(app)} != {b"b"}:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            await asyncio.to_thread(running.stop)
        assert [word for word in ("Traceback", "CRITICAL", "SIGKILL") if word in running.output] == [], running.output
        api.drop_watches(hard=True)


def _lists(api: FakeApi) -> int:
    return sum(verb == "list" and path.endswith("endpointslices") for verb, path, _ in api.requests)


async def _many(port: int) -> list[Answer]:
    return await asyncio.gather(*(fetch(port, "/pods/") for _ in range(20)))
