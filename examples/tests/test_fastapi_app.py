"""The tests of a FastAPI app, as they were before it had a middleware."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from fastapi_app import app


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("headers", [{}, {"gray": "true"}])
def test_everybody_gets_this_version_of_the_shop(client: TestClient, headers: dict[str, str], requests: int) -> None:
    for _ in range(requests):
        response = client.get("/shop/", headers=headers)
        assert (response.status_code, response.json()["version"]) == (200, "stable")


def test_the_rest_is_there(client: TestClient) -> None:
    assert client.get("/about").json() == {"version": "stable"}
    assert client.get("/nowhere").status_code == 404
