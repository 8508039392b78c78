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
from canary_mw.middleware.admin_app import admin_app
from canary_mw.middleware.settings import MiddlewareSettings
from canary_mw.observability.prometheus import Metrics
from canary_mw.upstreams.discovery import consul_watch, discovery

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
    resolver: str

    async def answered(self, body: bytes = b"", status: int = 200) -> None:
        """Wait until a request is answered like this; a body that is not given may be any."""
        async with asyncio.timeout(20):
            while True:
                answer = await fetch(self.port, "/shop/")
                if answer.status == status and body in (b"", answer.body):
                    return
                await asyncio.sleep(0.005)


@asynccontextmanager
async def shop(resolver: str = "consul", status: int = 200) -> AsyncIterator[Shop]:
    consul = FakeConsul()
    consul.status = status
    async with (
        serving(answering(ANSWER + b"1")) as one,
        serving(answering(ANSWER + b"2")) as other,
        serving_app(consul, lifespan="off") as agent,
    ):
        consul.put("shop", (None, one.origin.port))
        document = (
            "---\napiVersion: getambassador.io/v3alpha1\nkind: ConsulResolver\nmetadata: {name: consul}\n"
            f"spec: {{address: '127.0.0.1:{agent}', datacenter: dc1}}\n"
        )
        served = middleware(rules=StaticSource(mapping("gray", "/shop/", "shop", resolver=resolver) + document))
        async with serving_middleware(served) as port:
            yield Shop(consul, one, other, port, served, document)
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


def ready(served: Any) -> str:
    """What a new process still waits for, as `/readyz` says it."""
    waiting: str = served.discovery.waiting()
    return waiting


def test_a_new_process_is_ready_with_the_first_answers(interface: str) -> None:
    async def main() -> None:
        async with shop(status=500) as it:
            await it.answered(status=503)
            assert ready(it.served) == "Consul has not answered yet about shop"
            it.consul.status = 200
            await it.answered(b"1")
            assert ready(it.served) == ""
            # What is asked for later holds up nobody.
            it.served.store.source = StaticSource(mapping("new", "/new/", "new", resolver="consul") + it.resolver)
            it.consul.status = 500
            assert it.served.store.reload()
            assert ready(it.served) == ""

    run(main())


def test_it_waits_for_some_seconds_at_most(interface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with shop(status=500) as it:
            await it.answered(status=503)
            assert ready(it.served)
            monkeypatch.setattr(discovery, "_FIRST_ANSWERS", 0.0)
            assert ready(it.served) == ""
            monkeypatch.setattr(discovery, "_FIRST_ANSWERS", 1000.0)
            # Whatever comes later: it is ready once and for all.
            assert ready(it.served) == ""

    run(main())


def test_the_admin_port_says_what_is_waited_for(interface: str) -> None:
    async def main() -> None:
        async with shop(status=500) as it:
            await it.answered(status=503)
            app = admin_app(it.served, Metrics(), MiddlewareSettings())
            async with serving_app(app, lifespan="off") as port:
                answer = await fetch(port, "/readyz")
                assert (answer.status, answer.body) == (503, b"not ready: Consul has not answered yet about shop\n")

    run(main())
