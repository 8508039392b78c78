"""A tag through services that know nothing of canary-mw, as those of a Java agent."""

from typing import Any

import httpx
import pytest
from middlewares import middleware, serving_middleware
from rules import document
from servers import Client, client_of, respond, run, serving_app
from wsgiservers import respond as wsgi_respond

from canary_mw import StaticSource

pytestmark = pytest.mark.usefixtures("interface")

MAPPINGS = document("a", prefix="/") + document("b", prefix="/", weight=0)
RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: %s
stable: a
gray: {gray: {weight: %s, mappings: [b]}}
sticky: [{header: k}]
propagate: {header: x-mse-tag, format: tag}
"""


async def app(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, scope["canary_mw"].release.variant.encode())


def wsgi_app(environ: Any, start_response: Any) -> Any:
    return wsgi_respond(start_response, environ["canary_mw.decision"].release.variant.encode())


def test_a_service_behind_java_meets_the_variant_of_the_entry(interface: str) -> None:
    async def answer(client: Client, number: int) -> tuple[str | None, bytes]:
        found = await client.get("GET", "/", [("k", f"user-{number}")])
        return found.header("x-canary-variant"), found.body

    async def main() -> list[tuple[str | None, bytes]]:
        trusted = {"trusted": ["127.0.0.1"]}
        last = middleware(
            app if interface == "asgi" else wsgi_app,
            **{"rules": StaticSource(MAPPINGS + RELEASE % ("last", 0)), "local": ("a", "b"), **trusted},
        )
        async with serving_middleware(last) as port, httpx.AsyncClient(trust_env=False) as client:

            async def java(scope: Any, receive: Any, send: Any) -> None:
                """Puts the tag of a request on its own one, and else nothing."""
                tags = [pair for pair in scope["headers"] if pair[0] == b"x-mse-tag"]
                behind = await client.get(f"http://127.0.0.1:{port}/", headers=tags)
                await respond(send, behind.content)

            async with serving_app(java) as java_port:
                upstreams = {"*": f"http://127.0.0.1:{java_port}"}
                first = middleware(rules=StaticSource(MAPPINGS + RELEASE % ("first", 50)), upstreams=upstreams)
                async with serving_middleware(first) as entry, client_of(entry) as asking:
                    return [await answer(asking, number) for number in range(20)]

    found = run(main())
    assert set(found) == {("gray", b"gray"), ("stable", b"stable")}
