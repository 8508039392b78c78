"""LogServices that are really told, by both middlewares: what an entry holds, and that no request waits for them."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from log_receiver import PLAIN, SERVICE, Receiver, receiving
from middlewares import Middleware, middleware, serving_middleware
from servers import fetch, mapping, run
from upstream import forever, serving, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.forking import running_threads
from canary_mw.observability.exports import destination as exports
from canary_mw.observability.logs import destination

RULES = mapping("own", "/own/", "me") + mapping("shop", "/shop/", "shop")
HEADERS = "driver_config: {additional_log_headers: [{header_name: x-user}, {header_name: content-length}]}\n"
ASKING = PLAIN.replace("driver_config: {}\n", HEADERS)
NOBODY = "http://127.0.0.1:1"
DROPPED = "log_entries", "logs", "dropped"
THREAD = "canary-mw-log-service"


def threads() -> list[str]:
    return [each.name for each in running_threads()]


def has(receiver: Receiver, entries: int) -> bool:
    return len(receiver.entries()) == entries


def told(text: str, act: Callable[[int, Receiver], Awaitable[None]]) -> Receiver:
    """Serve an app with a LogService, and a shop."""

    async def main(logs: str) -> None:
        async with serving(forever) as shop:
            upstreams = {"logs": logs, "shop": f"http://127.0.0.1:{shop.origin.port}"}
            served = middleware(rules=StaticSource(RULES + text), local="me", upstreams=upstreams)
            async with serving_middleware(served) as port:
                await act(port, receiver)

    with receiving() as (receiver, peer):
        run(main(f"http://127.0.0.1:{peer.origin.port}"))
    return receiver


async def all_kinds(port: int, receiver: Receiver) -> None:
    """One request to the app by a Mapping, one without any, one to the shop; each is told before the next."""
    for number, path in enumerate(("/own/x", "/other", "/shop/x?y=1"), 1):
        await fetch(port, path, headers=[("x-user", "bob"), ("user-agent", "ua"), ("x-request-id", f"id{number}")])
        await until(partial(has, receiver, number))


@pytest.mark.usefixtures("interface")
def test_requests_to_the_app_and_to_upstreams_are_told() -> None:
    receiver = told(SERVICE + ASKING, all_kinds)
    assert [each["log_name"] for each in receiver.identifiers] == ["als"]
    assert receiver.identifiers[0]["node"]["cluster"] == "default-default"
    assert receiver.identifiers[0]["node"]["id"]
    own, other, shop = receiver.entries()
    assert [each["request"].get("original_path") for each in (own, other, shop)] == [None, None, "/shop/x?y=1"]
    assert [each["request"]["path"] for each in (own, other, shop)] == ["/own/x", "/other", "/x?y=1"]
    assert [each["common_properties"].get("upstream_cluster") for each in (own, other, shop)] == [
        None,
        None,
        "cluster_shop_default",
    ]
    for each in (own, other, shop):
        assert each["request"]["request_headers"] == {"x-user": "bob"}
        assert each["request"]["user_agent"] == "ua"
        assert each["request"]["request_method"] == "GET"
        assert each["response"]["response_code"] == 200
        assert each["response"]["response_body_bytes"] > "0"
        assert each["response"]["response_code_details"] == "via_upstream"
        common = each["common_properties"]
        assert common["access_log_type"] == "DownstreamEnd"
        assert common["stream_id"] == each["request"]["request_id"]
        assert "response_flags" not in common
        assert {"start_time", "duration", "downstream_remote_address"} <= set(common)
    assert own["response"]["response_headers"] == {"content-length": own["response"]["response_body_bytes"]}
    assert shop["common_properties"]["upstream_request_attempt_count"] == 1
    assert shop["common_properties"]["upstream_remote_address"]["socket_address"]["address"] == "127.0.0.1"


@pytest.mark.usefixtures("interface")
def test_driver_tcp_tells_of_bytes() -> None:
    async def act(port: int, receiver: Receiver) -> None:
        await fetch(port, "/own/x")
        await until(lambda: receiver.entries("tcp_logs"))

    (entry,) = told(SERVICE + PLAIN.replace("driver: http", "driver: tcp"), act).entries("tcp_logs")
    assert entry["connection_properties"]["sent_bytes"] > "0"
    assert entry["common_properties"]["stream_id" if "stream_id" in entry["common_properties"] else "duration"]


@pytest.mark.usefixtures("interface")
def test_what_waits_is_sent_at_the_end() -> None:
    async def main(logs: str) -> None:
        rules = StaticSource(RULES + SERVICE + PLAIN.replace("time: 0", "time: 1000"))
        served = middleware(rules=rules, local="me", upstreams={"logs": logs})
        async with serving_middleware(served) as port:
            for _ in range(3):
                await fetch(port, "/own/x")
            log = served.request_log
            assert log is not None
            await until(lambda: len(log.queues.waiting()) == 3 and THREAD in threads())

    with receiving() as (receiver, peer):
        run(main(f"http://127.0.0.1:{peer.origin.port}"))
    assert (len(receiver.entries()), receiver.ended) == (3, 1)
    assert THREAD not in threads()


@pytest.mark.usefixtures("interface")
def test_each_document_gets_all() -> None:
    async def act(port: int, receiver: Receiver) -> None:
        await fetch(port, "/own/x")
        await until(lambda: len(receiver.entries()) == 2)

    receiver = told(SERVICE + PLAIN + SERVICE.replace("als", "two") + PLAIN, act)
    assert sorted(each["log_name"] for each in receiver.identifiers) == ["als", "two"]


@pytest.mark.usefixtures("interface")
def test_a_service_that_is_not_there_costs_no_request_and_what_is_too_much_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(destination, "MAX_ENTRIES", 5)
    counted: dict[tuple[str, ...], int] = {}

    def tally(*key: str, count: int = 1) -> None:
        counted[key] = counted.get(key, 0) + count

    async def main() -> None:
        rules = StaticSource(RULES + SERVICE + PLAIN)
        served = middleware(rules=rules, local="me", upstreams={"logs": NOBODY})
        served.tally.add(tally, lambda assigned, name, client, thousandths: None)
        async with serving_middleware(served) as port:
            assert [(await fetch(port, "/own/x")).status for _ in range(20)] == [200] * 20
            await until(lambda: counted.get(DROPPED) == 15)

    run(main())
    # All that was never sent, those that still waited at the end included.
    assert counted == {DROPPED: 20}


def test_a_service_that_dies_under_load_is_told_again(interface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "FIRST_DELAY", 0.001)

    async def act(port: int, receiver: Receiver) -> None:
        async def load() -> list[int]:
            return [(await fetch(port, "/own/x")).status for _ in range(20)]

        async def ends() -> None:
            # Each of its connections ends with its first message.
            await until(lambda: len(receiver.identifiers) >= 1)
            await asyncio.to_thread(receiver.drop)

        statuses, *_ = await asyncio.gather(load(), ends())
        assert statuses == [200] * 20
        await until_told(port, receiver)

    async def until_told(port: int, receiver: Receiver) -> None:
        while len(receiver.identifiers) < 2:
            assert (await fetch(port, "/own/x")).status == 200

    assert len(told(SERVICE + PLAIN, act).identifiers) >= 2


def test_a_reload_begins_and_ends_it(interface: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)

    async def put(served: Middleware, text: str) -> None:
        # In place, it might be half written.
        new = tmp_path / "new"
        new.write_text(RULES + text)
        new.replace(path)
        await asyncio.to_thread(served.store.reload)

    async def main(logs: str) -> None:
        served = middleware(rules=path, local="me", upstreams={"logs": logs})
        async with serving_middleware(served) as port:
            await fetch(port, "/own/1")
            assert (served.request_log, served.observed, served.store.table.has_extras) == (None, False, False)
            await put(served, SERVICE + PLAIN)
            await fetch(port, "/own/2")
            await until(receiver.entries)
            await put(served, "")
            await fetch(port, "/own/3")
            assert (served.request_log, served.observed, served.store.table.has_extras) == (None, False, False)
            await until(lambda: THREAD not in threads())

    with receiving() as (receiver, peer):
        run(main(f"http://127.0.0.1:{peer.origin.port}"))
    assert [each["request"]["path"] for each in receiver.entries()] == ["/own/2"]


def test_an_app_without_a_document_has_nothing_of_it(interface: str) -> None:
    async def main() -> None:
        served = middleware(rules=StaticSource(RULES), local="me")
        async with serving_middleware(served) as port:
            await fetch(port, "/own/x")
            found: list[Any] = [served.request_log, served.finished_observers, served.observed]
        assert found == [None, [], False]

    run(main())
