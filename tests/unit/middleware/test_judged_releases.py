"""A release with steps is judged by the requests of its middleware, where nobody asked for figures, too."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from middlewares import Middleware, middleware, serving_middleware
from rules import document
from servers import fetch, respond, run
from upstream import until
from wsgiservers import respond as wsgi_respond

from canary_mw import record
from canary_mw.control.rollouts_by_store import rollouts_known
from canary_mw.observability.evidence import ArmCounts, Evidence

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("interface")]

STEPS = """steps: [{setWeight: 100}, {pause: {}}]
analysis: {metrics: [{name: error_rate}, {name: bought, kind: event}, {name: basket, kind: value, threshold: 12.5}]}
"""
RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
stable: shop
gray: [gray]
sticky: [{header: x-user}]
"""
RULES = document("shop", prefix="/shop/") + document("gray", prefix="/shop/", weight=0)
LOCAL = ["shop", "gray"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    record("bought")
    record("basket", 12.5)
    record("basket", 12.501)
    await respond(send, b"app")


def wsgi_app(environ: Any, start_response: Any) -> Any:
    record("bought")
    record("basket", 12.5)
    record("basket", 12.501)
    return wsgi_respond(start_response, b"app")


def evidence_of(served: Middleware) -> Evidence | None:
    counters = served.counters()
    return None if counters is None else counters.evidence().releases.get("r")


def gray_of(served: Middleware) -> ArmCounts:
    found = evidence_of(served)
    assert found is not None
    return next(iter(found.epochs.values()))["gray"]


def test_requests_are_counted_where_a_release_has_steps(tmp_path: Path, interface: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES + RELEASE.replace("[gray]", "{gray: 100}"))
    served = middleware(
        app if interface == "asgi" else wsgi_app, rules=str(path), local=LOCAL, state=str(tmp_path / "state")
    )

    async def asked(port: int, user: str) -> bool:
        answer = await fetch(port, "/shop/", headers=[("x-user", user)])
        return (b"x-canary-variant", b"gray") in answer.headers

    async def main() -> None:
        async with serving_middleware(served) as port:
            assert await asked(port, "anna")
            assert evidence_of(served) is None
            path.write_text(RULES + RELEASE + STEPS)
            served.store.reload()
            # A thread stores the state, and the weights follow from it.
            await until(lambda: served.store.table.releases["r"].epoch.attempt == 1)
            while not await asked(port, "anna"):
                pass
            first = gray_of(served).requests
            assert await asked(port, "berta")
            assert await asked(port, "anna")
            await until(lambda: gray_of(served).requests == first + 2)

    run(main())
    gray = gray_of(served)
    assert (gray.seen, gray.measures["event bought"].firsts) == (2, 2)
    assert gray.measures["event bought"].exposures == 2
    basket = gray.measures["value basket above 12.5"]
    assert (basket.firsts, basket.exposures, basket.bad) == (2, 2, 3)


JUDGED = """steps: [{setWeight: 50}, {pause: {}}]
analysis: {metrics: [{name: error_rate}, {name: basket, kind: value, direction: decrease, threshold: 10}]}
"""


def basket_of(decision: Any) -> float:
    return 9.99 if decision.mapping.name == "gray" else 10


async def basket_app(scope: Any, receive: Any, send: Any) -> None:
    record("basket", basket_of(scope["canary_mw"]))
    await respond(send, b"app")


def wsgi_basket_app(environ: Any, start_response: Any) -> Any:
    record("basket", basket_of(environ["canary_mw.decision"]))
    return wsgi_respond(start_response, b"app")


def test_smaller_values_of_gray_take_it_back(tmp_path: Path, interface: str) -> None:
    """The value that is the threshold counts, where less is worse."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES + RELEASE + JUDGED)
    local = basket_app if interface == "asgi" else wsgi_basket_app
    served = middleware(local, rules=str(path), local=LOCAL, state=str(tmp_path / "state"))

    def state() -> Any:
        found = rollouts_known(served.store)
        standing = found.standing("r") if found is not None else None
        return standing.state if standing is not None else None

    async def main() -> None:
        async with serving_middleware(served) as port:
            # An app without lifespan begins with its first request.
            assert (await fetch(port, "/shop/")).status == 200
            await until(lambda: state() is not None and state().weight == 50)
            number = 0
            while state().phase != "RolledBack":
                number += 1
                assert (await fetch(port, "/shop/", headers=[("x-user", f"user-{number}")])).status == 200
            assert state().reason.startswith("the values of gray are smaller (gray, basket): ")
            assert state().weights == {"gray": 0}

    run(main())


# A process knows by the path which Mapping has sent it a request.
WHOLE_PATHS = RULES.replace("prefix: /shop/", 'prefix: /shop/\nrewrite: ""')


def is_at_half(served: Middleware) -> bool:
    return '"gray": 50' in served.store.table.releases["r"].epoch.weights


def test_what_the_app_of_gray_records_in_a_process_of_its_own_is_no_less(tmp_path: Path, interface: str) -> None:
    """Each app answers one version; fewer events of gray would take the release back."""
    path = tmp_path / "rules.yaml"
    paid = "{name: bought, kind: event, direction: decrease}"
    path.write_text(
        WHOLE_PATHS + RELEASE + JUDGED.replace("{name: basket, kind: value, direction: decrease, threshold: 10}", paid)
    )
    shared = {"rules": str(path), "state": str(tmp_path / "state"), "run_dir": str(tmp_path / "run")}
    local = app if interface == "asgi" else wsgi_app
    users = [f"user-{number}" for number in range(40)]

    async def main() -> None:
        gray = middleware(local, local=["gray"], **shared)
        async with serving_middleware(gray) as behind:
            stable = middleware(local, local=["shop"], upstreams={"gray": f"http://127.0.0.1:{behind}"}, **shared)
            async with serving_middleware(stable) as port:
                for each in (port, behind):
                    # An app without lifespan begins with its first request.
                    assert (await fetch(each, "/")).status == 200
                for served in (stable, gray):
                    await until(partial(is_at_half, served))
                for user in users * 2:
                    answer = await fetch(port, "/shop/", headers=[("x-user", user)])
                    assert (answer.status, answer.body) == (200, b"app")
                found = evidence_of(stable)
                assert found is not None
                arms = {}
                for epoch in found.epochs.values():
                    for name, counted in epoch.items():
                        arms[name] = counted.measures["event bought"]
                firsts = [each.firsts for each in arms.values()]
                assert sum(firsts) == len(users)
                assert min(firsts) > 5
                # A second request of a user is no exposure any more.
                assert [each.exposures for each in arms.values()] == firsts

    run(main())
