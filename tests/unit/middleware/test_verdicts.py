"""From requests to the verdict: both middlewares, over what figures keep and what the statistics say of it."""

from itertools import count
from typing import Any

import pytest
from in_memory import ask, end
from middlewares import current, middleware
from rules import document

from canary_mw import Metrics
from canary_mw.control.sources.static import StaticSource

pytestmark = pytest.mark.usefixtures("interface")

RULES = document("shop", prefix="/shop/") + document("gray", prefix="/shop/", weight=20)


def app_with(status: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        start_response(f"{status} x", [])
        return []

    return app if current() == "asgi" else wsgi_app


def verdict_after(gray_status: int, requests: int) -> str:
    """What is said of gray, which gets each fifth request."""
    metrics, turns = Metrics(), count()
    served = middleware(
        app_with(200),
        rules=StaticSource(RULES),
        local="shop",
        services={"gray": app_with(gray_status)},
        observers=[metrics],
        roll=lambda: next(turns) % 5 * 20.0,
    )
    for _ in range(requests):
        ask(served)
    end(served)
    lines = metrics.render().decode().splitlines()
    (said,) = [line for line in lines if line.startswith("canary_mw_verdict{") and line.endswith(" 1.0")]
    return said


def test_gray_that_fails_is_worse() -> None:
    assert 'release="shop",state="worse"' in verdict_after(500, requests=100)


def test_gray_that_fails_as_often_as_stable_is_not() -> None:
    assert 'state="worse"' not in verdict_after(200, requests=100)


def test_what_clients_do_wrong_is_no_failure_of_gray() -> None:
    assert 'state="worse"' not in verdict_after(404, requests=100)
