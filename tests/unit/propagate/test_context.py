"""`record()`: an event counts for the variant that was drawn for the request, in both middlewares."""

import asyncio
import threading
from typing import Any

import pytest
from middlewares import Middleware, current, middleware, serving_middleware
from rules import document
from servers import fetch, respond, run
from wsgiservers import respond as wsgi_respond

from canary_mw import Metrics, record
from canary_mw.control.sources.static import StaticSource
from canary_mw.propagate import context

pytestmark = pytest.mark.usefixtures("interface")

RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: r
stable: shop
gray: {gray: 100}
sticky: [{header: x-user}]
choice: {header: x-gray}
"""
RULES = document("shop", prefix="/shop/") + document("gray", prefix="/shop/", weight=0) + RELEASE


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names that are known, which others of this process do not fill."""
    found: set[str] = set()
    monkeypatch.setattr(context, "_names", found)
    monkeypatch.setattr(context, "_tallies", type(context._tallies)())
    return found


class Shop:
    """An app that records what its path says: /shop/NAME or /shop/NAME/VALUE."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def serve(self, path: str) -> None:
        self.seen.append(path)
        _, _, name, *value = path.split("/")
        record(name, *map(float, value))


def served_with(metrics: Metrics, work: Any, rules: str = RULES, **options: Any) -> Middleware:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        work(scope["path"])
        await respond(send, b"app")

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        work(environ["PATH_INFO"])
        return wsgi_respond(start_response, b"app")

    both = app if current() == "asgi" else wsgi_app
    return middleware(both, rules=StaticSource(rules), observers=[metrics], **{"local": ("shop", "gray"), **options})


def counted(metrics: Metrics, *names: str) -> dict[tuple[str, ...], int]:
    counters = metrics.read(0.0).counters
    return {key: count for key, count in counters.items() if key[0] in names}


def ask(served: Middleware, *targets: str, **headers: str) -> None:
    async def main() -> None:
        async with serving_middleware(served) as port:
            for target in targets:
                answer = await fetch(
                    port, target, headers=[(name.replace("_", "-"), each) for name, each in headers.items()]
                )
                assert answer.status == 200

    run(main())


def test_an_event_counts_for_the_variant_of_its_request() -> None:
    metrics = Metrics()
    ask(served_with(metrics, Shop().serve), "/shop/checkout_failed", "/shop/checkout_failed", x_user="7")
    assert counted(metrics, "events", "event_values", "ignored_events") == {
        ("events", "r", "gray", "checkout_failed"): 2,
        ("event_values", "r", "gray", "checkout_failed"): 2000,
    }


def test_a_value_is_added_up() -> None:
    metrics = Metrics()
    ask(served_with(metrics, Shop().serve), "/shop/basket/12.5", "/shop/basket/0", "/shop/basket/0.0304", x_user="7")
    assert counted(metrics, "events", "event_values") == {
        ("events", "r", "gray", "basket"): 3,
        ("event_values", "r", "gray", "basket"): 12530,
    }
    text = metrics.render().decode()
    assert 'canary_mw_events_total{name="basket",release="r",variant="gray"} 3.0' in text
    assert 'canary_mw_event_values_total{name="basket",release="r",variant="gray"} 12.53' in text


def test_who_chose_proves_nothing() -> None:
    metrics = Metrics()
    ask(served_with(metrics, Shop().serve), "/shop/checkout_failed", x_user="7", x_gray="always")
    assert counted(metrics, "events", "ignored_events") == {("ignored_events", "not drawn"): 1}


def test_a_request_without_a_release_is_not_drawn() -> None:
    metrics = Metrics()
    ask(served_with(metrics, Shop().serve), "/other/checkout_failed")
    assert counted(metrics, "events", "ignored_events") == {("ignored_events", "not drawn"): 1}


def test_the_draw_of_a_group_without_a_release_counts_too() -> None:
    metrics = Metrics()
    rules = document("shop", prefix="/shop/") + document("gray", prefix="/shop/", weight=10)
    ask(served_with(metrics, Shop().serve, rules, local="shop", roll=lambda: 99.0), "/shop/seen")
    assert counted(metrics, "events") == {("events", "shop", "stable", "seen"): 1}


@pytest.mark.parametrize("name", ["", "1st", "a b", "x" * 65, "naïve", 'a"b', "a\n", None, 7])
def test_a_name_that_cannot_be_is_ignored_and_raises_nothing(name: Any) -> None:
    metrics = Metrics()
    ask(served_with(metrics, lambda path: record(name)), "/shop/", x_user="7")
    assert counted(metrics, "events", "ignored_events") == {("ignored_events", "invalid"): 1}


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e13, "7", None])
def test_a_value_that_cannot_be_is_ignored_and_raises_nothing(value: Any) -> None:
    metrics = Metrics()
    ask(served_with(metrics, lambda path: record("basket", value)), "/shop/", x_user="7")
    assert counted(metrics, "events", "ignored_events") == {("ignored_events", "invalid"): 1}


def test_outside_of_a_request_an_event_is_ignored_and_counted() -> None:
    metrics = Metrics()
    served = served_with(metrics, Shop().serve)
    record("checkout_failed")
    assert counted(metrics, "events", "ignored_events") == {("ignored_events", "no request"): 1}
    # The thread or task of a request is free again after it.
    ask(served, "/shop/a", x_user="7")
    record("checkout_failed")
    assert counted(metrics, "ignored_events") == {("ignored_events", "no request"): 2}


def test_where_nothing_is_counted_an_event_is_nothing() -> None:
    shop = Shop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        shop.serve(scope["path"])
        await respond(send, b"app")

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        shop.serve(environ["PATH_INFO"])
        return wsgi_respond(start_response, b"app")

    served = middleware(app if current() == "asgi" else wsgi_app, rules=StaticSource(RULES), local=("shop", "gray"))
    ask(served, "/shop/a", x_user="7")
    assert shop.seen == ["/shop/a"]
    assert not served.observed


def test_names_that_are_made_of_data_cost_no_memory(names: set[str]) -> None:
    metrics = Metrics()

    def work(path: str) -> None:
        for number in range(200):
            record(f"user-{number}")

    ask(served_with(metrics, work), "/shop/", x_user="7")
    events = counted(metrics, "events")
    assert len(names) == 64
    assert len(events) == 65
    assert events["events", "r", "gray", "(other)"] == 136


def test_work_that_a_request_starts_belongs_to_it() -> None:
    metrics = Metrics()
    if current() == "asgi":

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.gather(asyncio.create_task(later()), asyncio.to_thread(record, "in_thread"))
            await respond(send, b"app")

        async def later() -> None:
            record("in_task")

        served = middleware(app, rules=StaticSource(RULES), local=("shop", "gray"), observers=[metrics])
        ask(served, "/shop/", x_user="7")
        assert {key[3] for key in counted(metrics, "events")} == {"in_task", "in_thread"}
    else:
        # A thread has a context of its own: what it records belongs to no request.
        def work(path: str) -> None:
            thread = threading.Thread(target=record, args=("in_thread",))
            thread.start()
            thread.join()

        ask(served_with(metrics, work), "/shop/", x_user="7")
        assert counted(metrics, "events", "ignored_events") == {("ignored_events", "no request"): 1}
