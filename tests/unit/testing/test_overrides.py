"""`all_stable` and `gray_answered_by`: what they put in place, for how long, and for whom."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from threading import Barrier, Thread
from typing import Any

import pytest
from in_memory import app_that_says, ask, end
from middlewares import Middleware, middleware
from rules import get, header, mapping, table
from servers import mapping as document
from wsgiservers import hello as wsgi_hello

from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.base import MiddlewareBase
from canary_mw.testing import all_stable, gray_answered_by
from canary_mw.testing.overrides import stable_decision
from canary_mw.types import Scope
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.sync import SyncUpstreams

RULES = (
    document("stable", "/shop/", "shop-stable")
    + document("gray", "/shop/", "shop-gray", weight="20", add_request_headers="{x-added: 'yes'}")
    + document("testers", "/shop/", "shop-gray", headers="{gray: 'true'}")
    + document("pay", "/pay/", "pay", rewrite="/v1/")
    + document("only", "/only/", "shop-gray", headers="{gray: 'true'}")
    + document("copied", "/copied/", "shop-stable")
    + document("copies", "/copied/", "shop-gray", shadow="true")
)
STABLE, GRAY, MINE = (200, "stable /shop/"), (200, "gray / yes"), (200, "mine / yes")


@pytest.fixture
def make(interface: str) -> Iterator[Callable[..., Middleware]]:
    """Makes middlewares around a stable app, beside the real gray version and another service."""
    made: list[Middleware] = []

    def make_one(roll: float = 0.0) -> Middleware:
        services = {name: app_that_says(interface, name) for name in ("gray", "pay")}
        served = middleware(
            app_that_says(interface, "stable"),
            rules=StaticSource(RULES),
            local="shop-stable",
            services={"shop-gray": services["gray"], "pay": services["pay"]},
            roll=lambda: roll,
        )
        made.append(served)
        return served

    yield make_one
    for each in made:
        end(each)


@pytest.fixture
def mine(interface: str) -> Any:
    """The gray version of a test."""
    return app_that_says(interface, "mine")


def originals() -> list[object]:
    """What the overrides replace."""
    return [vars(MiddlewareBase)["decide"], vars(Upstreams)["app"], vars(SyncUpstreams)["app"]]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Every test leaves the classes as they were."""
    before = originals()
    yield
    assert originals() == before


@pytest.mark.parametrize("headers", [{}, {"gray": "true"}])
def test_all_stable_sends_what_is_gray_to_the_app(make: Callable[..., Middleware], headers: dict[str, str]) -> None:
    before = make()
    assert ask(before, **headers)[1].startswith("gray")
    with all_stable():
        assert ask(before, **headers) == STABLE
        assert ask(make(), **headers) == STABLE
    assert ask(before, **headers)[1].startswith("gray")


def test_all_stable_leaves_alone_what_is_stable(make: Callable[..., Middleware]) -> None:
    served = make(roll=99.0)
    with all_stable():
        assert ask(served) == STABLE
        assert ask(served, "/pay/card") == (200, "pay /v1/card")
        assert ask(served, "/elsewhere") == (200, "stable /elsewhere")


def test_the_gray_app_of_a_test_gets_what_the_gray_version_would(make: Callable[..., Middleware], mine: Any) -> None:
    before = make()
    assert ask(before) == GRAY
    with gray_answered_by(mine):
        assert [ask(before), ask(make())] == [MINE, MINE]
        assert ask(before, gray="true") == (200, "mine /")
        assert ask(make(roll=20.0)) == STABLE
        assert ask(before, "/pay/card") == (200, "pay /v1/card")
    assert ask(before) == GRAY


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/only/", "stable /only/"), ("/copied/", "stable /copied/")],
    ids=["nothing but gray", "a shadow"],
)
def test_no_request_leaves_the_process_while_all_is_stable(
    make: Callable[..., Middleware], path: str, expected: str
) -> None:
    served = make()
    # A copy for a shadow is sent by these.
    served.upstreams.send = served.shadows.send_now = _nobody_sends  # type: ignore[method-assign]
    with all_stable():
        assert ask(served, path, gray="true") == (200, expected)
    # It would send the copy.
    assert isinstance(served, CanaryMiddleware) or not served.upstreams.background.started


def _nobody_sends(*_: Any, **__: Any) -> Any:
    raise AssertionError("something is sent")


def test_the_override_that_was_begun_last_counts(make: Callable[..., Middleware], mine: Any, interface: str) -> None:
    served, other = make(), app_that_says(interface, "other")
    with all_stable():
        with gray_answered_by(mine):
            assert ask(served) == MINE
            with gray_answered_by(other):
                assert ask(served) == (200, "other / yes")
                with all_stable(), all_stable():
                    assert ask(served) == STABLE
                assert ask(served) == (200, "other / yes")
            assert ask(served) == MINE
        assert ask(served) == STABLE
    assert ask(served) == GRAY


def test_overrides_may_end_in_any_order(make: Callable[..., Middleware], mine: Any) -> None:
    served, one, two = make(), ExitStack(), ExitStack()
    one.enter_context(gray_answered_by(mine))
    two.enter_context(all_stable())
    one.close()
    assert ask(served) == STABLE
    two.close()
    assert ask(served) == GRAY


@pytest.mark.parametrize("override", [all_stable, lambda: gray_answered_by(wsgi_hello)], ids=["all_stable", "gray"])
def test_an_error_ends_an_override(
    make: Callable[..., Middleware], override: Callable[[], AbstractContextManager[None]]
) -> None:
    served = make()
    with pytest.raises(LookupError), override():
        raise LookupError
    assert ask(served) == GRAY


def test_an_override_of_one_thread_counts_in_all_until_its_own_end(make: Callable[..., Middleware], mine: Any) -> None:
    served, barrier, answers = make(), Barrier(3, timeout=30), []

    def use(override: AbstractContextManager[None], *, first: bool) -> None:
        with override:
            barrier.wait()
            if first:
                barrier.wait()  # The other one ends before.
        if not first:
            barrier.wait()
        barrier.wait()

    threads = [Thread(target=use, args=(all_stable(),), kwargs={"first": False})]
    threads.append(Thread(target=use, args=(gray_answered_by(mine),), kwargs={"first": True}))
    for thread in threads:
        thread.start()
    barrier.wait()
    answers.append(ask(served)[1].partition(" ")[0])
    barrier.wait()
    barrier.wait()
    for thread in threads:
        thread.join()
    assert answers in (["stable"], ["mine"])
    assert ask(served) == GRAY


def test_many_threads_leave_nothing_behind(make: Callable[..., Middleware], mine: Any) -> None:
    served = make()
    known = {STABLE, GRAY, MINE}

    def use(number: int) -> None:
        for turn in range(20):
            with all_stable() if (number + turn) % 2 else gray_answered_by(mine):
                found.append(ask(served))

    found: list[tuple[int, str]] = []
    threads = [Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert set(found) <= known - {GRAY}
    assert ask(served) == GRAY


def test_an_app_of_the_other_interface_is_an_error_that_says_so(
    make: Callable[..., Middleware], interface: str
) -> None:
    other = {"asgi": "wsgi", "wsgi": "asgi"}[interface]
    served = make()
    wrong = pytest.raises(TypeError, match=f"cannot be called as an? {interface.upper()} app")
    with gray_answered_by(app_that_says(other, "mine")), wrong:
        ask(served)
    assert ask(served) == GRAY


def test_a_gray_app_where_the_middlewares_are_off_is_an_error(mine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_MW_ENABLED", "0")
    with pytest.raises(ConfigError, match="nothing is gray where CANARY_MW_ENABLED is 0"), gray_answered_by(mine):
        raise AssertionError("it has begun")
    with all_stable():
        """Nothing is gray anyway."""


def test_a_websocket_to_gray_is_answered_by_the_app_of_a_test_too() -> None:
    messages: list[dict[str, Any]] = []
    paths: list[str] = []

    async def mine(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await send({"type": "websocket.accept"})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        messages.append(message)

    async def main() -> None:
        rules = StaticSource(document("gray", "/shop/", "shop-gray", use_websocket="true", weight="50"))
        served = CanaryMiddleware(mine, rules=rules, local="shop", roll=lambda: 0.0)
        scope = {
            "type": "websocket",
            "path": "/shop/chat",
            "raw_path": b"/shop/chat",
            "query_string": b"",
            "headers": [(b"host", b"shop")],
        }
        with gray_answered_by(mine):
            await served(scope, receive, send)
        await served.aclose()

    asyncio.run(main())
    assert paths == ["/chat"]
    assert [each["type"] for each in messages] == ["websocket.accept"]


def test_the_gray_app_of_a_test_does_not_see_the_state_of_the_app() -> None:
    states: list[Any] = []

    async def mine(scope: Any, receive: Any, send: Any) -> None:
        states.append(scope["state"])
        await app_that_says("asgi", "mine")(scope, receive, send)

    async def main() -> None:
        scope: Scope = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/shop/", "query_string": b""}
        scope.update(headers=[(b"host", b"shop")], state={"pool": "of the app"})
        served = CanaryMiddleware(mine, rules=StaticSource(RULES), local="shop-stable", roll=lambda: 0.0)
        with gray_answered_by(mine):
            await served(scope, _nobody_sends, _drop)
        await served.aclose()
        assert scope["state"] == {"pool": "of the app"}

    asyncio.run(main())
    assert states == [{}]


async def _drop(message: Any) -> None:
    """Nobody reads it."""


def test_without_an_override_the_functions_of_the_middlewares_are_their_own() -> None:
    before = originals()
    with all_stable():
        assert all(one is not other for one, other in zip(originals(), before, strict=True))
    assert originals() == before


GRAY_HEADER = header("gray", "true")
SMALL, LARGE = mapping("a", weight=30, variant="stable"), mapping("b", weight=60, variant="stable")


@pytest.mark.parametrize(
    ("mappings", "roll", "expected"),
    [
        ([mapping("a"), mapping("b", weight=20)], 0.0, "a"),
        ([mapping("a"), mapping("b", weight=20)], 50.0, "a"),
        # The version that is wholly rolled out is still the gray one.
        ([mapping("a"), mapping("b", weight=100)], 50.0, "a"),
        # Of several stable ones the draw stays, and gray goes to the largest.
        ([SMALL, LARGE, mapping("c", weight=10)], 10.0, "a"),
        ([mapping("c", weight=10), SMALL, LARGE], 5.0, "b"),
        # A group without a stable Mapping is passed over.
        ([mapping("a"), mapping("b", conditions=GRAY_HEADER)], 0.0, "a"),
        ([mapping("a"), mapping("b", conditions=GRAY_HEADER, variant="stable")], 0.0, "b"),
        ([mapping("b", variant="gray")], 0.0, None),
        ([mapping("a", prefix="/elsewhere/")], 0.0, None),
    ],
)  # fmt: skip
def test_the_stable_decision(mappings: list[Any], roll: float, expected: str | None) -> None:
    for is_middleware in (False, True):
        decision = stable_decision(table(*mappings, middleware=is_middleware), get(headers=[("gray", "true")]), roll)
        assert (decision and decision.mapping.name) == expected


def test_what_the_weights_leave_goes_to_the_app_behind_a_middleware_only() -> None:
    mappings = [mapping("a", weight=30, variant="stable"), mapping("b", weight=20)]
    found = [stable_decision(table(*mappings, middleware=each), get(), 90.0) for each in (False, True)]
    assert [decision and decision.mapping.name for decision in found] == ["a", None]
