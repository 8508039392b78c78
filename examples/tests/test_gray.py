"""The apps with a gray version that the test brings along: some requests are answered by it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import fastapi_app
import flask_app
import flask_gray_app
import gray_app
import httpx
import pytest
from django_app import wsgi
from fastapi.testclient import TestClient

from canary_mw.testing import load_rules, route

Get = Callable[[dict[str, str]], Any]


def by_fastapi(headers: dict[str, str]) -> Any:
    return TestClient(fastapi_app.app).get("/shop/", headers=headers).json()


def by_flask(headers: dict[str, str]) -> Any:
    return flask_app.app.test_client().get("/shop/", headers=headers).get_json()


def by_django(headers: dict[str, str]) -> Any:
    with httpx.Client(transport=httpx.WSGITransport(wsgi), base_url="http://shop.example") as client:
        return client.get("/shop/", headers=headers).json()


# A gray version has the interface of the middleware, and may be written in anything.
SHOPS = [(by_fastapi, gray_app.app), (by_flask, flask_gray_app.app), (by_django, flask_gray_app.app)]


@pytest.mark.parametrize(("get", "gray"), SHOPS)
def test_testers_get_the_gray_version(get: Get, gray: Any, gray_answered_by: Callable[[Any], Any]) -> None:
    with gray_answered_by(gray):
        assert get({"gray": "true"}) == {"version": "gray"}


@pytest.mark.parametrize(("get", "gray"), SHOPS)
def test_some_users_get_the_gray_version(
    get: Get, gray: Any, gray_answered_by: Callable[[Any], Any], requests: int
) -> None:
    gray_answered_by(gray)
    versions = Counter(get({})["version"] for _ in range(requests))
    # One in ten. That none is gray, or none stable, happens once in 10^45 runs.
    assert versions.keys() == {"stable", "gray"}


@pytest.mark.parametrize("rules", [fastapi_app.RULES, flask_app.RULES])
def test_the_rules_say_who_gets_it(rules: str) -> None:
    shop = load_rules(rules, local="shop-stable", middleware=True)
    assert route(shop, "/shop/").shares == {"gray": 10, "stable": 90}
    assert route(shop, "/shop/", headers={"gray": "true"}).variant == "gray"
    assert route(shop, "/about").reason == "app"
