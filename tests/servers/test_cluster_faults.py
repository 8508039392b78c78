"""What happens to an API server, seen by the users of a proxy that reads its rules there: real processes under load."""

import asyncio
from pathlib import Path

import pytest
from cluster_box import Box, box
from clusters import in_loop
from fake_apiserver import mappings_kind
from load import load
from servers import fetch_admin

pytestmark = pytest.mark.slow


async def contact(shop: Box) -> float:
    """Seconds since the last answer about Services, by the metric."""
    page = (await fetch_admin(shop.admin, "/metrics")).body.decode()
    (line,) = [
        each
        for each in page.splitlines()
        if each.startswith("canary_mw_source_last_contact_seconds{") and 'kind="services"' in each
    ]
    return float(line.rpartition(" ")[2])


@in_loop
async def test_an_api_that_comes_back_with_another_state_and_no_history_is_followed(tmp_path: Path) -> None:
    async with box(tmp_path) as shop:
        shop.weigh(50)
        with shop.serve("log"):
            async with shop.api_served():
                await shop.ready()
                await shop.both()
                shop.api.drop_watches(hard=True)
            async with load(shop.port, clients=2, pause=0.01) as requests:
                await shop.says("not synced")
                # Meanwhile gray is deleted, and nothing tells of it.
                shop.api.put("services", "shop", "shop-gray", None)
                shop.api.compact()
                await requests.more(100)
                assert set(await shop.both()) == {b"stable", b"gray"}
                assert "ready" in await shop.ready()
                async with shop.api_served():
                    await shop.all_from(b"stable")
                    shop.api.drop_watches(hard=True)
            assert requests.lost == []


@in_loop
async def test_a_connection_that_is_half_open_is_found(tmp_path: Path) -> None:
    async with box(tmp_path) as shop, shop.api_served():
        shop.api.bookmark_every = 0.2
        shop.weigh(50)
        with shop.serve("log", module="impatient"):
            await shop.ready()
            await shop.both()
            last = await contact(shop)
            while (now := await contact(shop)) >= last:
                # As long as no bookmark has come, silence means nothing.
                last = now
            async with load(shop.port, clients=2, pause=0.01) as requests:
                shop.api.freeze()
                shop.weigh(100)
                seen = [await contact(shop)]
                while seen[-1] < 1.5:
                    seen.append(await contact(shop))
                # Nobody has told yet: the old shares, and ready.
                assert set(await shop.both()) == {b"stable", b"gray"}
                assert "ready" in await shop.ready()
                while 'code="silence"' not in (await fetch_admin(shop.admin, "/metrics")).body.decode():
                    pass
                # A server that is asked anew answers on another connection.
                shop.api.thaw()
                await shop.all_from(b"gray")
            assert requests.lost == []


@pytest.mark.parametrize("old", [True, False])
@in_loop
async def test_a_conversion_webhook_that_is_dead_is_gone_round(old: bool, tmp_path: Path) -> None:
    async with box(tmp_path, mappings_kind("v2", "v3alpha1", webhook=True)) as shop, shop.api_served():
        shop.api.old = old
        shop.map(100)
        with shop.serve("log"):
            assert "kind=mappings namespace=shop version=v2 objects=2" in await shop.ready()
            async with load(shop.port, clients=2, pause=0.01) as requests:
                await shop.all_from(b"gray")
                shop.map(0)
                await shop.all_from(b"stable")
            assert requests.lost == []
            assert "not synced" not in await shop.ready()


@in_loop
async def test_pods_come_and_go_while_the_api_is_away(tmp_path: Path) -> None:
    async with box(tmp_path) as shop:
        shop.weigh(100)
        with shop.serve("old") as old:
            async with shop.api_served():
                await shop.ready()
                await shop.all_from(b"gray")
                shop.api.drop_watches(hard=True)
            async with load(shop.port, clients=4) as requests:
                await requests.more(100)
                with shop.serve("new") as new:
                    # Not ready, and not ended.
                    await shop.ready(503)
                    # The old pod ends under load; its clients leave when it has answered them.
                    requests.over = True
                    assert await asyncio.to_thread(old.stop) == 0
                    assert requests.lost == []
                    assert new.child.poll() is None
                    await shop.ready(503)
                    async with shop.api_served():
                        await shop.ready()
                        await shop.all_from(b"gray")
                        shop.api.drop_watches(hard=True)
                    assert await asyncio.to_thread(new.stop) == 0


@in_loop
async def test_replicas_follow_many_changes_to_the_last_one(tmp_path: Path) -> None:
    async with box(tmp_path, mappings_kind()) as shop, shop.api_served():
        for number in range(200):
            shop.map(0, prefix=f"/{number}/", ending=str(number))
        with shop.serve("one"):
            ports = [shop.admin]
            with shop.serve("two"):
                ports.append(shop.admin)
                await shop.ready()
                async with load(shop.port, "/7/", clients=2, pause=0.01) as requests:
                    for change in range(100):
                        shop.map(change, prefix=f"/{change % 20}/", ending=str(change % 20))
                        await asyncio.sleep(0.01)
                    for shop.admin in ports:
                        for number in range(20):
                            await shop.weighs(f"gray{number}", 80 + number)
                assert requests.lost == []
                assert requests.answered
