"""The lane on forwarded requests, in both middlewares: set by the decision, and by nothing else."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from middlewares import ASGI_ONLY, middleware, serving_middleware
from middlewares import current as interface_name
from redirecting import Heard, listening
from rules import document
from servers import fetch, run
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from canary_mw import StaticSource, propagate

pytestmark = pytest.mark.usefixtures("interface")

MAPPINGS = document("shop", prefix="/shop/") + document("gray", prefix="/shop/", weight=0)
RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
stable: shop
sticky: [{header: k}]
"""


@pytest.fixture(autouse=True)
def _uninstalled() -> Iterator[None]:
    yield
    propagate.uninstall()


def heard(rules: str, headers: dict[str, str], header: str = "x-canary-lane", **options: Any) -> str | None:
    """The header that the service of a decision gets."""

    async def main(service: Heard) -> None:
        upstreams = {"*": service.url, **options.pop("upstreams", {})}
        given = {"rules": StaticSource(rules), "trusted": ["127.0.0.1"], "upstreams": upstreams, **options}
        async with serving_middleware(middleware(**given)) as port:
            assert (await fetch(port, "/shop/", headers=[("k", "1"), *headers.items()])).status == 200

    with listening(header) as service:
        run(main(service))
    (value,) = service.lanes
    return value


def release(fields: str) -> str:
    return MAPPINGS + RELEASE + fields


@pytest.mark.parametrize(
    ("fields", "before", "after"),
    [
        ("gray: {gray: 100}", None, "r=gray"),
        # A decision once taken holds behind: stable, too.
        ("gray: {gray: 0}", None, "r=stable"),
        ("gray: {gray: 100}", "r=stable, other=x", "r=stable, other=x"),
        ("gray: {gray: 0}", "other=x, r=gray", "r=gray, other=x"),
        ("gray: {gray: 100}\nenabled: false", "r=gray, other=x", "r=stable, other=x"),
        ("gray: {gray: 100}\nlane: common", "r=a", "common=gray, r=a"),
        # Without a Mapping of its own in the group the user is in the variant all the same.
        ("gray: {gray: 0, other: {weight: 100, mappings: [elsewhere]}}", None, "r=other"),
    ],
)
def test_the_decision_is_told(fields: str, before: str | None, after: str) -> None:
    rules = document("elsewhere", prefix="/elsewhere/") + release(fields)
    assert heard(rules, {} if before is None else {"x-canary-lane": before}) == after


TAG = "\npropagate: {header: x-mse-tag, format: tag}"


@pytest.mark.parametrize(
    ("fields", "before", "after"),
    [
        ("gray: {gray: 100}", None, "gray"),
        ("gray: {gray: 0}", None, None),
        ("gray: {gray: 0}", "gray", "gray"),
        ("gray: {gray: 100}", "blue", "blue"),
        ("gray: {gray: 100}\nenabled: false", "gray", None),
    ],
)
def test_a_tag_is_told(fields: str, before: str | None, after: str | None) -> None:
    given = {} if before is None else {"x-mse-tag": before}
    assert heard(release(fields + TAG), given, "x-mse-tag") == after


def test_baggage_is_told_to_a_listed_service_alone() -> None:
    fields = "gray: {gray: 100}\npropagate: {baggage: true, hosts: [%s]}"
    given = {"baggage": "u=1,canary-lane=r%3Dstable%2C%20a%3Db"}
    assert heard(release(fields % "shop"), given, "baggage") == "u=1,canary-lane=r%3Dstable%2C%20a%3Db"
    assert heard(release(fields % "gray"), given, "baggage") == "u=1"
    # Where the release leaves it alone it is carried on, for services behind that do not.
    assert heard(release("gray: {gray: 100}"), given, "baggage") == given["baggage"]


def test_lanes_of_baggage_that_the_header_has_not_are_told() -> None:
    """A service in between may have set one of the two only."""
    fields = "gray: {gray: 100}\npropagate: {baggage: true, hosts: [shop, gray]}"
    given = {"baggage": "canary-lane=r%3Dstable%2C%20a%3Db", "x-canary-lane": "c=d, a=first"}
    assert heard(release(fields), given) == "r=stable, c=d, a=first"
    assert heard(release(fields), given, "baggage") == "canary-lane=r%3Dstable%2C%20c%3Dd%2C%20a%3Dfirst"
    tag = fields.replace("true,", "true, header: x-mse-tag, format: tag,")
    assert heard(release(tag), given, "baggage") == "canary-lane=r%3Dstable%2C%20c%3Dd%2C%20a%3Dfirst"


def test_a_mapping_may_remove_the_lane() -> None:
    """As one that leads out of the house. The patches for the requests of an app leave forwarded ones alone."""
    propagate.install(["127.0.0.1"])
    kept = release("gray: {gray: 0}")
    removed = document("shop", prefix="/shop/", remove_request_headers="[x-canary-lane]")
    rules = removed + document("gray", prefix="/shop/", weight=0) + RELEASE + "gray: {gray: 0}"
    transport = httpx.AsyncHTTPTransport() if interface_name() == "asgi" else httpx.HTTPTransport()
    assert heard(kept, {"x-canary-lane": "a=b"}) == "r=stable, a=b"
    assert heard(rules, {"x-canary-lane": "a=b"}) is None
    assert heard(rules, {"x-canary-lane": "a=b"}, transports={"shop": transport}) is None


def test_stable_in_place_of_a_failing_gray_is_told_stable() -> None:
    """The user stays in gray, and what stable calls has to fit stable."""
    rules = release("gray: {gray: 100}\nfallback: {}")
    with listening("x-canary-lane", status=503) as gray:
        assert heard(rules, {"x-canary-lane": "a=b"}, upstreams={"gray": gray.url}) == "r=stable, a=b"
    assert gray.lanes == ["r=gray, a=b"]


@ASGI_ONLY
def test_the_handshake_of_a_websocket_is_told(interface: str) -> None:
    rules = release("gray: {gray: 100}")

    async def main(service: Heard) -> None:
        served = middleware(rules=StaticSource(rules), trusted=["127.0.0.1"], upstreams={"*": service.url})
        async with serving_middleware(served) as port:
            # The service speaks no websockets.
            with pytest.raises(InvalidStatus):
                await connect(f"ws://127.0.0.1:{port}/shop/", additional_headers={"k": "1"}, proxy=None)

    with listening("x-canary-lane") as service:
        run(main(service))
    assert service.lanes == ["r=gray"]
