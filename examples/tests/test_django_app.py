"""The tests of a Django project, as they were before it had a middleware, and through its middlewares."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from django.test import Client
from django_app import asgi, wsgi

Get = Callable[[str, dict[str, str]], tuple[int, str]]
BASE = "http://shop.example"


def by_client(path: str, headers: dict[str, str]) -> tuple[int, str]:
    """Django's own client calls its views without wsgi.py or asgi.py, so without the middleware around them."""
    response = Client(headers=headers).get(path)
    return response.status_code, response.content.decode()


def by_wsgi(path: str, headers: dict[str, str]) -> tuple[int, str]:
    with httpx.Client(transport=httpx.WSGITransport(wsgi), base_url=BASE) as client:
        response = client.get(path, headers=headers)
        return response.status_code, response.text


async def _by_asgi(path: str, headers: dict[str, str]) -> tuple[int, str]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(asgi), base_url=BASE) as client:
        response = await client.get(path, headers=headers)
        return response.status_code, response.text


def by_asgi(path: str, headers: dict[str, str]) -> tuple[int, str]:
    return asyncio.run(_by_asgi(path, headers))


@pytest.mark.parametrize("headers", [{}, {"gray": "true"}])
@pytest.mark.parametrize("get", [by_client, by_wsgi, by_asgi])
def test_everybody_gets_this_version_of_the_shop(get: Get, headers: dict[str, str], requests: int) -> None:
    for _ in range(requests):
        status, text = get("/shop/", headers)
        assert (status, '"version": "stable"' in text) == (200, True)


@pytest.mark.parametrize("get", [by_client, by_wsgi, by_asgi])
def test_the_rest_is_there(get: Get) -> None:
    assert get("/about", {}) == (200, '{"version": "stable"}')
    assert get("/nowhere", {})[0] == 404
