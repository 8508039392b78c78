"""Several endpoints of one service, from the rules to the wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from middlewares import middleware, serving_middleware
from servers import Client, client_of, fetch, mapping, run
from upstream import Peer, serving

from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import ConfigError
from canary_mw.server.settings import Settings

WITH_BOTH_MIDDLEWARES = pytest.mark.usefixtures("interface")


@asynccontextmanager
async def service(broken: set[bytes], **attributes: Any) -> AsyncIterator[int]:
    """A middleware before a service of several endpoints, which answer with their names; its port."""

    async def answering(peer: Peer, name: bytes) -> None:
        while True:
            await peer.request()
            await peer.answer(name, status=b"500 Broken" if name in broken else b"200 OK")

    async with (
        serving(lambda peer: answering(peer, b"a")) as one,
        serving(lambda peer: answering(peer, b"b")) as two,
        serving(lambda peer: answering(peer, b"c")) as three,
    ):
        urls = [f"http://127.0.0.1:{each.origin.port}" for each in (one, two, three)]
        rules = StaticSource(mapping("shop", "/shop/", "shop", **attributes))
        async with serving_middleware(middleware(rules=rules, upstreams={"shop": urls})) as port:
            yield port


async def bodies(port: int, count: int = 12, cookie: str = "") -> list[bytes]:
    headers = [("cookie", cookie)] if cookie else []
    async with client_of(port) as client:
        return [(await client.get("GET", "/shop/", headers)).body for _ in range(count)]


@WITH_BOTH_MIDDLEWARES
def test_endpoints_are_asked_in_turn() -> None:
    async def main() -> None:
        async with service(set()) as port:
            assert sorted(await bodies(port)) == [b"a"] * 4 + [b"b"] * 4 + [b"c"] * 4

    run(main())


@WITH_BOTH_MIDDLEWARES
def test_a_client_gets_a_cookie_once_and_keeps_its_endpoint() -> None:
    async def main() -> None:
        balancer = "{policy: ring_hash, cookie: {name: sticky, path: /, ttl: 60s}}"
        async with service(set(), load_balancer=balancer) as port:
            first = await fetch(port, "/shop/")
            cookie = first.header("set-cookie")
            assert cookie is not None
            assert cookie.endswith("; Max-Age=60; Path=/; HttpOnly")
            again = await fetch(port, "/shop/", headers=[("cookie", cookie.partition(";")[0])])
            assert again.header("set-cookie") is None
            assert set(await bodies(port, 12, cookie.partition(";")[0])) == {first.body}
            assert len(set(await bodies(port, 60))) == 3

    run(main())


@WITH_BOTH_MIDDLEWARES
def test_an_endpoint_that_keeps_failing_is_left_alone() -> None:
    async def main() -> None:
        async with service({b"b"}, outlier_detection="{consecutive_5xx: 2}") as port:
            answers = await bodies(port, 30)
            assert answers.count(b"b") == 2
            assert b"b" not in answers[-20:]

    run(main())


@WITH_BOTH_MIDDLEWARES
def test_an_endpoint_that_fails_its_health_check_is_left_alone_until_it_passes() -> None:
    async def main() -> None:
        broken = {b"c"}
        check = "[{health_check: {http: {path: /}}, interval: 10ms}]"
        async with service(broken, health_checks=check) as port, client_of(port) as client:
            await answered_by(client, {b"a", b"b"})
            broken.clear()
            await answered_by(client, {b"a", b"b", b"c"})

    run(main())


async def answered_by(client: Client, names: set[bytes]) -> None:
    """Until a whole round of answers is from these."""
    while {(await client.get("GET", "/shop/")).body for _ in range(6)} != names:
        pass


@pytest.mark.parametrize(
    "given",
    [
        ("shop=http://a:1,http://b:2", "cart=http://c:3"),
        ("shop=http://a:1", "http://b:2", "cart=http://c:3"),
        ("shop=http://a:1", "shop=http://b:2", "cart=http://c:3"),
    ],
)
def test_several_urls_of_a_service_are_joined_by_commas_or_given_one_by_one(given: tuple[str, ...]) -> None:
    assert Settings(upstream=given).upstreams == {"shop": ["http://a:1", "http://b:2"], "cart": ["http://c:3"]}


def test_the_environment_names_several_urls_and_the_interval_of_look_ups() -> None:
    environ = {"CANARY_MW_UPSTREAM": "shop=http://a:1,http://b:2", "CANARY_MW_DNS_INTERVAL": "30"}
    settings = Settings.from_environ(environ)
    assert settings.upstreams == {"shop": ["http://a:1", "http://b:2"]}
    assert settings.dns_interval == 30
    with pytest.raises(ConfigError, match="CANARY_MW_DNS_INTERVAL is 0, not in 1"):
        Settings(dns_interval=0)


def test_a_url_without_a_service_before_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not NAME=URL"):
        Settings(upstream=("http://a:1",))
