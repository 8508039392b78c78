"""Rules from the API of a cluster: real processes, an API server that answers as recorded ones did, and requests."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cluster_box import CANARY, READ, Version, box
from clusters import in_loop, kubeconfig
from fake_apiserver import FakeApi, mappings_kind
from load import eventually, load
from preforked import rules
from servers import fetch, fetch_admin, serving_app
from upstream import serving
from wsgiprocess import served


@pytest.mark.slow
@in_loop
async def test_shares_follow_the_annotations_through_all_that_happens_to_an_api(tmp_path: Path) -> None:
    async with box(tmp_path) as shop:
        shop.weigh(0)
        async with shop.api_served():
            with shop.serve("log"):
                await shop.ready()
                async with load(shop.port, "/shop/", clients=2, pause=0.01) as requests:
                    await shop.all_from(b"stable")
                    for weight in (20, 50, 100, 0):
                        shop.weigh(weight)
                        if weight in (20, 50):
                            await shop.weighs("gray", weight)
                            seen = await shop.both()
                            # Four standard deviations of 200 throws, and more.
                            assert abs(seen[b"gray"] - 2 * weight) <= 40
                        else:
                            await shop.all_from(b"gray" if weight else b"stable")
                    # A watch that is cut goes on.
                    shop.api.drop_watches(hard=True)
                    shop.weigh(100)
                    await shop.all_from(b"gray")
                    # What the server has forgotten is listed again: the deletion is seen.
                    shop.api.freeze()
                    shop.weigh(100)
                    shop.api.put("services", "shop", "shop-gray", None)
                    shop.api.restart()
                    shop.api.thaw()
                    await shop.all_from(b"stable")
                    # A right that is taken away changes nothing; the log says which.
                    shop.api.grant("shop", CANARY, READ[1:])
                    shop.api.drop_watches()
                    await shop.says("resources: [services]")
                    await shop.all_from(b"stable")
                    shop.api.grant("shop", CANARY, READ)
                    shop.weigh(100)
                    await shop.all_from(b"gray")
                    metrics = (await fetch_admin(shop.admin, "/metrics")).body.decode()
                    assert "canary_mw_source_synced{" in metrics
                    assert 'reason="expired"' in metrics
                assert requests.lost == []
                # An empty namespace is an empty table.
                for name in ("shop-stable", "shop-gray"):
                    shop.api.put("services", "shop", name, None)
                await shop.all_from(b"")
                assert "ready" in await shop.ready()
                assert await asyncio.to_thread(shop.proxy.stop) == 0
        assert "mine" not in shop.proxy.output


@pytest.mark.slow
@in_loop
async def test_a_process_starts_without_its_api_and_takes_the_rules_of_before(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    async with box(tmp_path, mappings_kind()) as shop:
        with shop.serve("first", "--cache", str(cache)):
            # Not ready, with the reason, and not ended.
            assert "connection attempts failed" in await shop.ready(503)
            shop.api.map("shop", "gray", {"prefix": "/shop/", "service": f"127.0.0.1:{shop.ports[1]}"})
            async with shop.api_served():
                await shop.all_from(b"gray")
                assert "kind=mappings namespace=shop version=v3alpha1 objects=1" in await shop.ready()
                await eventually(lambda: any(cache.glob("kubernetes-*.json")))
                shop.api.drop_watches(hard=True)
            # The API is lost: the pod stays ready.
            await shop.says("not synced")
            await shop.all_from(b"gray")
            assert await asyncio.to_thread(shop.proxy.stop) == 0
        with shop.serve("second", "--cache", str(cache)):
            assert "source=cache" in await shop.ready()
            await shop.all_from(b"gray")
            shop.api.map("shop", "gray", None)
            async with shop.api_served():
                await shop.all_from(b"")
                assert "source=cache" not in await shop.ready()
                shop.api.drop_watches(hard=True)


@pytest.mark.slow
@pytest.mark.parametrize(("server", "started"), [("preload", True), ("gevent preload", False), ("waitress", False)])
@in_loop
async def test_each_worker_follows_the_cluster(server: str, started: bool, tmp_path: Path) -> None:
    workers = 1 if server == "waitress" else 2
    api = FakeApi()

    async def ask(port: int) -> Any:
        return json.loads((await fetch(port, "/shop/")).body)

    async def following(port: int, number: int) -> set[int]:
        """The workers, as soon as so many of them have the rules of this number."""
        pids: set[int] = set()
        while len(pids) < workers:
            answers = await asyncio.gather(*(ask(port) for _ in range(4)))
            pids |= {each["pid"] for each in answers if each["mapping"] == f"shop-{number}"}
        return pids

    async with serving(Version(b"gray")) as upstream, serving_app(api.app, lifespan="off") as api_port:
        api.annotate("shop", "shop", rules(0, upstream.origin.port))
        address = f"k8s://shop?kubeconfig={kubeconfig(tmp_path, f'http://127.0.0.1:{api_port}')}"
        # Rules that are loaded before the fork are followed by each worker over connections of its own.
        environ = {"PREFORKED_RULES": address, **({"PREFORKED_STARTED": "1"} if started else {})}
        with served(server, "preforked:create_app", tmp_path / "log", **environ) as (running, port):
            pids = await following(port, 0)
            for number in range(1, 6):
                api.annotate("shop", "shop", rules(number, upstream.origin.port))
                assert await following(port, number) == pids
            await asyncio.to_thread(running.stop)
        assert [word for word in ("Traceback", "CRITICAL", "SIGKILL") if word in running.output] == [], running.output
        api.drop_watches(hard=True)
