"""The overrides and releases: whoever is in a variant is stable, or gets the app of the test."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from in_memory import BASE, app_that_says, ask, end
from middlewares import Middleware, middleware
from servers import mapping

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.testing import all_stable, gray_answered_by, load_rules, route

RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: shop-2026
gray: {v2: {weight: 40, mappings: [shop-gray]}}
stable: shop-stable
sticky: [{header: x-user}]
missing: cookie
choice: {header: x-version}
"""
GRAY = mapping("shop-gray", "/shop/", "shop-gray", weight="0", rewrite='""')
RULES = mapping("shop-stable", "/shop/", "shop-stable") + GRAY + RELEASE
# The app is the stable version, without a Mapping.
APP = GRAY + RELEASE.replace("stable: shop-stable", "stable: local")
USERS = [str(number) for number in range(60)]


@pytest.fixture
def make(interface: str) -> Iterator[Callable[[str], Middleware]]:
    """Makes a middleware whose real gray version must not be asked."""
    made: list[Middleware] = []

    def make_one(rules: str) -> Middleware:
        app, real = app_that_says(interface, "stable"), {"shop-gray": app_that_says(interface, "real")}
        made.append(middleware(app, rules=StaticSource(rules), local="shop-stable", services=real))
        return made[-1]

    yield make_one
    for each in made:
        end(each)


@pytest.mark.parametrize("rules", [RULES, APP], ids=["a stable Mapping", "the app is stable"])
def test_users_of_a_variant_are_stable_or_get_the_app_of_a_test(
    make: Callable[[str], Middleware], interface: str, rules: str
) -> None:
    served, mine = make(rules), app_that_says(interface, "mine")
    table = load_rules(rules, local="shop-stable", middleware=True)
    variants = {user: route(table, "/shop/", headers={"x-user": user}).variant for user in USERS}
    assert set(variants.values()) == {"stable", "v2"}
    with gray_answered_by(mine):
        answers = {user: ask(served, **{"x-user": user})[1].partition(" ")[0] for user in USERS}
    assert answers == {user: "mine" if variant == "v2" else "stable" for user, variant in variants.items()}
    with all_stable():
        assert {ask(served, **{"x-user": user}) for user in USERS} == {(200, "stable /shop/")}
        assert ask(served, **{"x-version": "v2"}) == (200, "stable /shop/")
    assert ask(served, **{"x-version": "v2"}) == (200, "real /shop/")


def test_the_answer_says_its_variant_and_a_stable_one_sets_no_cookie(
    make: Callable[[str], Middleware], interface: str
) -> None:
    served = make(RULES)
    with gray_answered_by(app_that_says(interface, "mine")):
        assert headers_of(served, {"x-version": "v2"})["x-canary-variant"] == "v2"
        assert "cmw_id" in headers_of(served, {})["set-cookie"]
    with all_stable():
        found = headers_of(served, {})
    assert found["x-canary-variant"] == "stable"
    assert "set-cookie" not in found


def headers_of(served: Middleware, headers: dict[str, str]) -> Any:
    if isinstance(served, CanaryMiddleware):
        return asyncio.run(_headers_of(served, headers))
    with httpx.Client(transport=httpx.WSGITransport(served), base_url=BASE) as client:
        return client.get("/shop/", headers=headers).headers


async def _headers_of(served: CanaryMiddleware, headers: dict[str, str]) -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url=BASE) as client:
        return (await client.get("/shop/", headers=headers)).headers
