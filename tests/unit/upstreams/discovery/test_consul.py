"""What an agent of Consul is asked, and what its answers mean."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from certificates import OURS, leaf, secret, write
from consul import FakeConsul
from servers import run, serving_app
from upstream import until

from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.rules.upstream import ConsulAgent, ConsulService, Origin
from canary_mw.upstreams.discovery import consul_watch
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.discovery.consul import ConsulSettings, addresses_of, next_index
from canary_mw.upstreams.discovery.consul_watch import ConsulWatch


@pytest.fixture(autouse=True)
def _no_pause_between_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_watch, "_INTERVAL", 0.01)


@pytest.mark.parametrize(
    ("told", "last", "expected"),
    [
        (b"7", 0, 7),
        (b"7", 7, 7),
        (b"8", 7, 8),
        # It goes backwards: the agent begins anew.
        (b"6", 7, 0),
        (b"", 0, 1),
        (b"", 7, 0),
        (b"0", 0, 1),
        (b"-3", 0, 1),
        (b"x", 0, 1),
        (b"9" * 30, 0, 1),
    ],
)
def test_the_index_of_the_next_query_follows_from_the_answer(told: bytes, last: int, expected: int) -> None:
    assert next_index(told, last) == expected


def entry(**given: object) -> dict[str, object]:
    return {"Node": {"Address": "10.0.0.9"}, "Service": {"Address": "10.0.0.1", "Port": 80, **given}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], ()),
        ([entry()], (("10.0.0.1", 80),)),
        ([entry(Address="")], (("10.0.0.9", 80),)),
        ([entry(Address=None)], (("10.0.0.9", 80),)),
        ([entry(Port=81), entry(), entry()], (("10.0.0.1", 80), ("10.0.0.1", 81))),
        ([entry(Port=0), entry(Port="80"), entry(Port=None), entry(Port=99999)], ()),
        ([entry(Address="10.0.0.1\r\nx")], ()),
        ([None, 1, {}, {"Service": 3}, {"Service": {"Port": 80}}], ()),
    ],
)
def test_addresses_are_those_of_services_else_of_nodes(found: object, expected: object) -> None:
    assert addresses_of(json.dumps(found).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"[" * 100_000, b"\xff"])
def test_what_is_no_list_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        addresses_of(body)


class Watched:
    """A watch of one service of a fake agent."""

    def __init__(self, consul: FakeConsul, watch: ConsulWatch, service: ConsulService) -> None:
        self.consul, self.watch, self.service = consul, watch, service
        self.answers: dict[ConsulService, Answer] = {}

    @property
    def addresses(self) -> tuple[tuple[str, int], ...] | None:
        answer = self.answers.get(self.service)
        return None if answer is None else answer.addresses

    async def finds(self, *ports: int) -> None:
        async with asyncio.timeout(20):
            await until(lambda: self.addresses == tuple(("127.0.0.1", port) for port in ports))


@asynccontextmanager
async def watched(settings: ConsulSettings = ConsulSettings()) -> AsyncIterator[Watched]:  # noqa: B008 - immutable
    consul = FakeConsul()
    async with serving_app(consul, lifespan="off") as port:
        service = ConsulService(ConsulAgent(Origin("", "127.0.0.1", port), "dc 1"), "shop")
        watch = ConsulWatch(settings, lambda answers: found.answers.update(answers))
        found = Watched(consul, watch, service)
        watch.follow(frozenset({service}))
        tasks = [each._task for each in watch._followed.values()]
        try:
            yield found
        finally:
            watch.follow(frozenset())
            consul.turn(consul.index)
            await asyncio.wait(tasks)


def test_a_change_is_told_and_nothing_is_polled() -> None:
    async def main() -> None:
        async with watched(ConsulSettings(token="secret")) as it:
            await it.finds()
            it.consul.put("shop", (None, 81), ("127.0.0.1", 80))
            await it.finds(80, 81)
            await until(lambda: len(it.consul.asked) == 3)
            first, *others = it.consul.asked
            assert first == {"service": "shop", "token": "secret", "dc": "dc 1", "passing": "1"}
            assert [each["index"] for each in others] == ["10", "11"]
            assert {each["wait"] for each in others} == {"60s"}
            (status,) = it.watch.status()
            assert (status.synced, status.objects, status.namespace, status.kind) == (True, 2, "dc 1", "shop")

    run(main())


def test_an_index_that_goes_backwards_and_one_that_is_missing_hide_no_change() -> None:
    async def main() -> None:
        async with watched() as it:
            it.consul.put("shop", (None, 80))
            await it.finds(80)
            it.consul.index = 3
            it.consul.put("shop", (None, 81))
            await it.finds(81)
            it.consul.turn(None)
            it.consul.put("shop", (None, 82))
            await it.finds(82)

    run(main())


@pytest.mark.parametrize(("status", "body"), [(500, b""), (403, b"[]"), (200, b"{}"), (200, b"nonsense")])
def test_an_error_keeps_what_is_known_and_says_so_once(
    status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "canary_mw.endpoints")

    async def main() -> None:
        async with watched() as it:
            it.consul.put("shop", (None, 80))
            await it.finds(80)
            it.consul.status, it.consul.body = status, body
            it.consul.turn(20)
            await until(lambda: sum(each.errors.get("UpstreamProtocolError", 0) for each in it.watch.status()) >= 2)
            assert it.addresses == (("127.0.0.1", 80),)
            assert not it.watch.status()[0].synced
            it.consul.status, it.consul.body = 200, None
            it.consul.put("shop", (None, 81))
            await it.finds(81)

    run(main())
    texts = [record.getMessage() for record in caplog.records]
    problem, end = [text for text in texts if "passing" not in text]
    assert problem.endswith("its last endpoints stay")
    assert end.endswith("answers again")


def test_the_token_of_a_file_is_read_for_each_query(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")

    async def main() -> None:
        async with watched(ConsulSettings(token_file=str(path))) as it:
            await until(lambda: it.consul.asked)
            path.write_text("two\n")
            it.consul.put("shop", (None, 80))
            await it.finds(80)
            await until(lambda: len(it.consul.asked) >= 3)
            assert it.consul.asked[0]["token"] == "one"
            assert it.consul.asked[-1]["token"] == "two"

    run(main())


def settled(watch: ConsulWatch) -> tuple[bool] | None:
    (status,) = watch.status()
    return (status.synced,) if status.synced or status.error else None


def test_https_is_that_of_the_environment_and_certificates_are_verified(tmp_path: Path) -> None:
    held = write(tmp_path, secret(leaf("127.0.0.1"), OURS))

    async def main() -> None:
        consul = FakeConsul()
        files = {"ssl_certfile": str(held / "tls.crt"), "ssl_keyfile": str(held / "tls.key")}
        async with serving_app(consul, lifespan="off", **files) as port:
            service = ConsulService(ConsulAgent(Origin("", "127.0.0.1", port), "dc1"), "shop")
            for settings, synced in (
                (ConsulSettings(secure=True, ca_file=str(held / "ca.crt")), True),
                (ConsulSettings(secure=True), False),
                (ConsulSettings(secure=True, ca_file=str(tmp_path / "none")), False),
            ):
                watch = ConsulWatch(settings, lambda answers: None)
                watch.follow(frozenset({service}))
                (task,) = [each._task for each in watch._followed.values()]
                assert await until(partial(settled, watch)) == (synced,)
                watch.follow(frozenset())
                consul.turn(consul.index)
                await asyncio.wait({task})

    run(main())


def test_settings_are_those_of_the_variables_of_consul() -> None:
    environ = {
        "CONSUL_HTTP_TOKEN": "t",
        "CONSUL_HTTP_TOKEN_FILE": "/t",
        "CONSUL_HTTP_SSL": "true",
        "CONSUL_CACERT": "/ca",
    }
    assert ConsulSettings.from_environ(environ) == ConsulSettings("t", "/t", True, "/ca")
    assert ConsulSettings.from_environ({}) == ConsulSettings()
