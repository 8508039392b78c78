"""Stable and gray pods run the same code with the same rules; only `local` differs."""

from itertools import cycle
from pathlib import Path

from servers import fetch, mapping, respond, run, serving_app

from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.types import ASGIApp, Receive, Scope, Send


def pod(version: bytes) -> ASGIApp:
    """The app of a pod; it says which version it is."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await respond(send, version)
            return
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})

    return app


def test_a_gray_pod_answers_what_a_stable_one_sends_it_and_draws_for_nobody_again(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(mapping("stable", "/", "shop-stable") + mapping("gray", "/", "shop-gray", weight=20))
    rolls = cycle(range(100))
    # Drawn again, 99 would send every request back.
    gray = CanaryMiddleware(pod(b"gray"), rules=rules, local="shop-gray", roll=lambda: 99.0)

    async def ask() -> list[bytes]:
        async with serving_app(gray, lifespan="on") as gray_port:
            urls = {"shop-gray": f"http://127.0.0.1:{gray_port}"}
            stable = CanaryMiddleware(
                pod(b"stable"), rules=rules, local="shop-stable", upstreams=urls, roll=lambda: float(next(rolls))
            )
            async with serving_app(stable, lifespan="on") as port:
                return [(await fetch(port)).body for _ in range(100)]

    answers = run(ask())
    assert (answers.count(b"gray"), answers.count(b"stable")) == (20, 80)
