"""The tests of a Flask app, as they were before it had a middleware."""

import pytest
from flask.testing import FlaskClient
from flask_app import app


@pytest.fixture
def client() -> FlaskClient:
    # It calls `app.wsgi_app`, which is the middleware.
    return app.test_client()


@pytest.mark.parametrize("headers", [{}, {"gray": "true"}])
def test_everybody_gets_this_version_of_the_shop(client: FlaskClient, headers: dict[str, str], requests: int) -> None:
    for _ in range(requests):
        response = client.get("/shop/", headers=headers)
        assert (response.status_code, response.get_json()["version"]) == (200, "stable")


def test_the_rest_is_there(client: FlaskClient) -> None:
    assert client.get("/about").get_json() == {"version": "stable"}
    assert client.get("/nowhere").status_code == 404
