"""`resolver` with the name of a ConsulResolver, in both middlewares: requests go to the instances that Consul names."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from consul import FakeConsul
from middlewares import middleware, serving_middleware
from servers import fetch, mapping, run, serving_app
from upstream import Upstream, answering, serving, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.upstreams.discovery import consul_watch

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_pause_between_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_watch, "_INTERVAL", 0.01)


class Shop(NamedTuple):
    """An agent, two instances that say who they are, and the port of an app in the middleware."""

    consul: FakeConsul
    one: Upstream
    other: Upstream
    port: int
    served: Any

    async def answered(self, body: bytes = b"", status: int = 200) -> None:
        """Wait until a request is answered like this; a body that is not given may be any."""
        async with asyncio.timeout(20):
            while True:
                answer = await fetch(self.port, "/shop/")
                if answer.status == status and body in (b"", answer.body):
                    return
                await asyncio.sleep(0.005)


@asynccontextmanager
async def shop(resolver: str = "consul") -> AsyncIterator[Shop]:
    consul = FakeConsul()
    async with (
        serving(answering(ANSWER + b"1")) as one,
        serving(answering(ANSWER + b"2")) as other,
        serving_app(consul, lifespan="off") as agent,
    ):
        consul.put("shop", (None, one.origin.port))
        text = mapping("gray", "/shop/", "shop", resolver=resolver) + (
            "---\napiVersion: getambassador.io/v3alpha1\nkind: ConsulResolver\nmetadata: {name: consul}\n"
            f"spec: {{address: '127.0.0.1:{agent}', datacenter: dc1}}\n"
        )
        served = middleware(rules=StaticSource(text))
        async with serving_middleware(served) as port:
            yield Shop(consul, one, other, port, served)
        consul.turn(consul.index)


def test_requests_follow_the_instances_and_there_is_a_503_without_any(interface: str) -> None:
    async def main() -> None:
        async with shop() as it:
            await it.answered(b"1")
            it.consul.put("shop", (None, it.other.origin.port))
            await it.answered(b"2")
            it.consul.put("shop")
            await it.answered(status=503)
            it.consul.put("shop", (None, it.one.origin.port))
            await it.answered(b"1")

    run(main())


def test_the_other_name_of_the_resolver_is_known_and_the_watch_ends_with_its_mapping(interface: str) -> None:
    async def main() -> None:
        async with shop("consul-endpoint") as it:
            await it.answered(b"1")
            assert [each.kind for each in it.served.source_status()] == ["shop"]
            it.served.store.source = StaticSource(mapping("gray", "/shop/", "shop"))
            assert it.served.store.reload()
            await until(lambda: not it.served.source_status())

    run(main())
