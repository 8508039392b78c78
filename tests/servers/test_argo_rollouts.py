"""Argo Rollouts drives a release: its calls, a real proxy, and requests that none of it may lose."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from argo import ArgoRollouts, Conflict
from cluster_box import Box, box
from clusters import in_loop
from fake_apiserver import mappings_kind
from load import Load, eventually, load

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def rollout(
    tmp_path: Path, *versions: str, argo_version: str = "getambassador.io/v2", **more: str
) -> AsyncIterator[tuple[Box, ArgoRollouts, Load]]:
    """A base Mapping under load, whose release Argo drives.

    Args:
        versions: those of Mapping that the cluster serves.
        more: attributes of the base Mapping.
    """
    async with box(tmp_path, mappings_kind(*versions)) as shop, shop.api_served():
        shop.api.map("shop", "shop", {"prefix": "/shop/", "service": "shop-stable:80", "rewrite": "", **more})
        stable, canary = (f"http://127.0.0.1:{port}" for port in shop.ports)
        upstreams = ["--upstream", f"shop-stable.shop={stable}", "--upstream", f"shop-canary.shop={canary}"]
        argo = ArgoRollouts(f"http://127.0.0.1:{shop.api_port}", "shop", version=argo_version)
        async with contextlib.aclosing(argo):
            with shop.serve("log", *upstreams):
                await shop.ready()
                async with load(shop.port, "/shop/", clients=2, pause=0.01) as requests:
                    await shop.all_from(b"stable")
                    yield shop, argo, requests
                assert requests.lost == []
        shop.api.drop_watches(hard=True)


@in_loop
async def test_a_release_that_is_promoted_follows_each_step_and_loses_no_request(tmp_path: Path) -> None:
    async with rollout(tmp_path, "v2", "v3alpha1") as (shop, argo, _):
        for weight in (5, 20, 50):
            await argo.set_weight(weight)
            await shop.weighs("shop-canary", weight)
            # The next reconcile writes the same again, which changes nothing.
            await argo.set_weight(weight)
            seen = await shop.both()
            share = 200 * weight / 100
            # Four standard deviations of 200 throws, and more.
            assert abs(seen[b"gray"] - share) <= 4 * (share * (1 - weight / 100)) ** 0.5 + 1, seen
        await argo.set_weight(100)
        await shop.all_from(b"gray")
        # The stable Service leads to the new pods now.
        shop.stable.answer = b"promoted"
        await argo.set_weight(0)
        await shop.all_from(b"promoted")
        asked = shop.gray.asked
        await argo.delete()
        await shop.says("objects=1")
        await shop.all_from(b"promoted")
        assert shop.gray.asked == asked


@in_loop
async def test_an_abort_sends_everybody_to_stable_at_once(tmp_path: Path) -> None:
    async with rollout(tmp_path, "v3alpha1", argo_version="getambassador.io/v3alpha1") as (shop, argo, requests):
        await argo.set_weight(20)
        await shop.both()
        await argo.set_weight(0)
        await shop.weighs("shop-canary", 0)
        asked = shop.gray.asked
        await requests.more(200)
        # Weight 0 is nobody, not a weight that is not set.
        assert shop.gray.asked == asked
        await argo.delete()
        await shop.says("objects=1")
        await requests.more(100)
        assert shop.gray.asked == asked


@in_loop
async def test_a_write_that_is_refused_changes_nothing_until_the_next_reconcile(tmp_path: Path) -> None:
    async with rollout(tmp_path) as (shop, _, requests):
        argo = ArgoRollouts(f"http://127.0.0.1:{shop.api_port}", "shop", version="getambassador.io/v3alpha1")
        await argo.set_weight(50)
        await shop.both()
        # Somebody else writes between its read and its write.
        stale = await argo.get()
        other = await argo.get()
        other["spec"]["timeout_ms"] = 5000
        await argo.put(other)
        stale["spec"]["weight"] = 100
        with pytest.raises(Conflict):
            await argo.put(stale)
        assert set(await shop.both()) == {b"stable", b"gray"}
        await argo.set_weight(100)
        await shop.all_from(b"gray")
        await requests.more(50)
        await argo.aclose()


@in_loop
async def test_a_release_of_ours_over_argo_keeps_users_and_takes_its_weight(tmp_path: Path) -> None:
    async with rollout(tmp_path, "v2") as (shop, argo, _):
        release = (
            "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: shop\ngray: [shop-canary]\n"
            "sticky: {header: x-user-id}\nfallback: {}\n"
        )
        # Argo's Mapping is not there yet: a warning, and everybody is stable.
        shop.api.annotate("shop", "shop-stable", release)
        await eventually(lambda: "there is no Mapping shop-canary" in shop.proxy.output)
        await shop.all_from(b"stable")
        before: set[str] = set()
        for weight in (20, 50, 100):
            await argo.set_weight(weight)
            await shop.weighs("shop-canary", weight)
            gray = {user for user in map(str, range(100)) if await shop.answer_to(user) == b"gray"}
            # Who has gray keeps it while it grows.
            assert before <= gray
            before = gray
        assert len(before) == 100
        await argo.set_weight(0)
        await shop.all_from(b"stable")
        await argo.delete()
        await shop.says("objects=1")
        await shop.all_from(b"stable")
        assert await asyncio.gather(*(shop.answer_to(user) for user in map(str, range(20)))) == [b"stable"] * 20


@in_loop
async def test_a_copy_that_comes_and_goes_under_load_loses_no_request(tmp_path: Path) -> None:
    async with rollout(tmp_path, "v2") as (shop, argo, requests):
        for last in (0, 100, 50):
            await argo.set_weight(50)
            await shop.both()
            # Somebody deletes it at any weight.
            await argo.set_weight(last)
            await shop.weighs("shop-canary", last)
            await argo.delete()
            await shop.says("objects=1")
            await shop.all_from(b"stable")
        await requests.more(100)


@in_loop
async def test_a_release_with_steps_over_argo_is_refused_at_every_weight_of_it(tmp_path: Path) -> None:
    async with rollout(tmp_path, "v2") as (shop, argo, requests):
        release = (
            "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: shop\ngray: [shop-canary]\n"
            "sticky: {header: x-user-id}\nfallback: {}\n"
        )
        await argo.set_weight(0)
        await argo.set_weight(20)
        await shop.both()
        shop.api.annotate("shop", "shop-stable", release + "steps: [{setWeight: 50}, {pause: {}}]\n")
        await eventually(lambda: "release-drivers" in shop.proxy.output)
        # Gray of a release in error gets nothing.
        await shop.all_from(b"stable")
        asked = shop.gray.asked
        for weight in (0, 50):
            await argo.set_weight(weight)
            await eventually(partial(told, shop, f"has the weight {weight} "))
            await requests.more(100)
        assert shop.gray.asked == asked
        assert "begins attempt" not in shop.proxy.output
        # Without steps Argo drives.
        shop.api.annotate("shop", "shop-stable", release)
        await argo.set_weight(100)
        await shop.weighs("shop-canary", 100)
        assert await shop.answer_to("anna") == b"gray"


def told(shop: Box, text: str) -> bool:
    return text in shop.proxy.output
