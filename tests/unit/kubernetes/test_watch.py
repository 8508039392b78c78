"""Reflectors on real sockets, against a server that answers as recorded ones did."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from clusters import in_loop
from fake_apiserver import FakeApi, FakeKind, mappings_kind
from servers import serving_app
from upstream import until

from canary_mw.kubernetes import api as api_module
from canary_mw.kubernetes import watch as watch_module
from canary_mw.kubernetes.backoff import Backoff
from canary_mw.kubernetes.credentials import Connection
from canary_mw.kubernetes.kinds import MAPPINGS, SERVICES, Kind
from canary_mw.kubernetes.reflector import Reflector
from canary_mw.kubernetes.watch import Follower

RULE = "kind: Mapping"


def keep(item: dict[str, Any]) -> Any:
    annotations = item["metadata"].get("annotations") or {}
    return annotations.get("getambassador.io/config") or item.get("spec") or None


class Quick(Backoff):
    """Delays of no length, which are counted."""

    def after_failure(self, retry_after: float = 0.0) -> float:
        super().after_failure(retry_after)
        return 0.01

    def before_relist(self) -> float:
        return 0.0

    def before_discovery(self) -> float:
        return 0.01


@contextlib.asynccontextmanager
async def following(
    server: FakeApi, kind: Kind = SERVICES, *, namespace: str = "shop", optional: bool = False, **connection: Any
) -> AsyncIterator[Follower]:
    """Serve an API, and follow a kind of it; `selector` and the fields of a Connection may be given."""
    async with serving_app(server.app, lifespan="off") as port:
        reflector = Reflector(kind, namespace, optional=optional, keep=keep, backoff=Quick())
        selector = connection.pop("selector", "")
        where = Connection(server=f"http://127.0.0.1:{port}", namespace="shop", **connection)
        follower = Follower(reflector, where, selector, lambda: None)
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.drop_watches(hard=True)
            # A connection that was begun last may be on its way.
            for _ in range(5):
                await asyncio.sleep(0)


def kept(follower: Follower) -> dict[str, Any]:
    return {name: value for (_, name), value in follower.reflector.objects.items()}


async def shows(follower: Follower, **expected: Any) -> None:
    await until(lambda: follower.reflector.complete and kept(follower) == expected)


async def watched(server: FakeApi, follower: Follower) -> None:
    """Until a watch runs."""
    await until(lambda: follower.reflector.step == "watch" and server.watching and follower.reflector.error is None)


def verbs(server: FakeApi) -> list[str]:
    return [verb for verb, _, _ in server.requests]


@in_loop
async def test_objects_are_listed_and_then_watched() -> None:
    server = FakeApi()
    server.annotate("shop", "a", RULE)
    server.annotate("other", "b", RULE)
    async with following(server) as follower:
        await shows(follower, a=RULE)
        server.annotate("shop", "c", RULE)
        await shows(follower, a=RULE, c=RULE)
        server.annotate("shop", "a", None)
        await shows(follower, c=RULE)
        server.put("services", "shop", "c", None)
        await shows(follower)
    assert verbs(server) == ["list", "watch"]
    assert follower.last_contact is not None


@in_loop
async def test_all_namespaces_are_read_by_one_watch() -> None:
    server = FakeApi()
    server.annotate("shop", "a", RULE)
    async with following(server, namespace="") as follower:
        await shows(follower, a=RULE)
        server.annotate("other", "b", RULE)
        await shows(follower, a=RULE, b=RULE)
    assert {path for _, path, _ in server.requests} == {"/api/v1/services"}


@in_loop
async def test_a_selector_is_left_to_the_server() -> None:
    server = FakeApi()
    server.annotate("shop", "a", RULE, app="x")
    server.annotate("shop", "b", RULE)
    async with following(server, selector="app=x") as follower:
        await shows(follower, a=RULE)
        server.annotate("shop", "b", RULE, app="x")
        await shows(follower, a=RULE, b=RULE)
        server.annotate("shop", "a", RULE)
        await shows(follower, b=RULE)


@in_loop
async def test_a_long_list_comes_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_PAGE", 2)
    server = FakeApi()
    for name in "abcde":
        server.annotate("shop", name, RULE)
    async with following(server) as follower:
        await shows(follower, **dict.fromkeys("abcde", RULE))
    assert verbs(server)[:3] == ["list", "list", "list"]


@pytest.mark.parametrize("old", [False, True], ids=["1.36", "1.20"])
@in_loop
async def test_a_deletion_that_the_server_has_forgotten_is_found(old: bool) -> None:
    server = FakeApi(old=old)
    server.annotate("shop", "a", RULE)
    server.annotate("shop", "b", RULE)
    async with following(server) as follower:
        await shows(follower, a=RULE, b=RULE)
        await watched(server, follower)
        server.freeze()
        server.put("services", "shop", "a", None)
        server.annotate("shop", "c", RULE)
        server.restart()
        server.thaw()
        await shows(follower, b=RULE, c=RULE)
        assert follower.reflector.relists["expired"] == 1


@pytest.mark.parametrize("hard", [False, True])
@in_loop
async def test_a_watch_that_ends_goes_on_where_it_was(hard: bool) -> None:
    server = FakeApi()
    server.annotate("shop", "a", RULE)
    async with following(server) as follower:
        await watched(server, follower)
        server.annotate("shop", "b", RULE)
        await shows(follower, a=RULE, b=RULE)
        server.drop_watches(hard=hard)
        await until(lambda: verbs(server).count("watch") == 2)
        server.annotate("shop", "c", RULE)
        await shows(follower, a=RULE, b=RULE, c=RULE)
    assert verbs(server).count("list") == 1


@pytest.mark.parametrize("code", [429, 500, 503, 401, 403])
@in_loop
async def test_refusals_empty_nothing_and_pass(code: int) -> None:
    server = FakeApi()
    server.annotate("shop", "a", RULE)
    async with following(server) as follower:
        await watched(server, follower)
        server.fail_next(code, 3)
        server.drop_watches()
        await until(lambda: not server.failures)
        assert kept(follower) == {"a": RULE}
        await watched(server, follower)
        server.annotate("shop", "b", RULE)
        await shows(follower, a=RULE, b=RULE)
    assert follower.reflector.errors[str(code)] >= 1


@in_loop
async def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_WATCH_SECONDS", (0, 0))
    monkeypatch.setattr(watch_module, "_SILENCE", 0.2)
    server = FakeApi()
    server.freeze()
    monkeypatch.setattr(server, "_watch", silent_watch(server))
    async with following(server) as follower:
        await until(lambda: follower.reflector.errors["silence"] >= 2)
        # What a stream in silence may have kept is found by a list.
        server.annotate("shop", "a", RULE)
        await shows(follower, a=RULE)


def silent_watch(server: FakeApi) -> Callable[..., Any]:
    original = server._watch

    async def watch(call: Any, request: Any) -> Any:
        return await original(call._replace(query={**call.query, "timeoutSeconds": "30"}), request)

    return watch


@in_loop
async def test_bookmarks_make_silence_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_BOOKMARK_SILENCE", 0.2)
    server = FakeApi(bookmark_every=0.02)
    server.annotate("shop", "a", RULE)
    async with following(server) as follower:
        await until(lambda: follower.reflector.bookmarked)
        server.freeze()
        await until(lambda: follower.reflector.errors["silence"] == 1)
        server.drop_watches()
        server.thaw()
        server.annotate("shop", "b", RULE)
        await shows(follower, a=RULE, b=RULE)
    assert verbs(server).count("list") == 1


@in_loop
async def test_a_kind_that_is_not_installed_is_found_once_it_is() -> None:
    server = FakeApi()
    async with following(server, MAPPINGS) as follower:
        await until(lambda: follower.reflector.absent)
        assert follower.reflector.complete
        server.install(mappings_kind("v2", "v3alpha1"))
        server.map("shop", "a", {"prefix": "/"})
        await shows(follower, a={"prefix": "/"})
        assert follower.reflector.version == "v3alpha1"


@pytest.mark.parametrize("told", [True, False])
@in_loop
async def test_a_kind_that_is_removed_takes_with_it_what_was_told_to_be_deleted(told: bool) -> None:
    kind = mappings_kind()
    server = FakeApi(kind)
    server.map("shop", "a", {"prefix": "/"})
    async with following(server, MAPPINGS) as follower:
        await watched(server, follower)
        await server.uninstall(kind, told=told)
        await until(lambda: follower.reflector.error is not None or follower.reflector.absent)
        assert kept(follower) == ({} if told else {"a": {"prefix": "/"}})


@pytest.mark.parametrize("old", [False, True], ids=["1.36", "1.20"])
@in_loop
async def test_objects_are_read_in_the_version_that_needs_no_webhook(
    old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeApi(mappings_kind("v2", "v3alpha1", webhook=True), old=old)
    monkeypatch.setattr(api_module, "HEAD_TIMEOUT", 1.0)
    async with following(server, MAPPINGS) as follower:
        # An empty list needs no webhook, so that it dies under the watch.
        await until(lambda: follower.reflector.complete)
        server.map("shop", "a", {"prefix": "/"})
        server.drop_watches()
        await shows(follower, a={"prefix": "/"})
        await until(lambda: follower.reflector.version == "v2")
        server.map("shop", "b", {"prefix": "/"})
        await shows(follower, a={"prefix": "/"}, b={"prefix": "/"})


@in_loop
async def test_a_missing_right_is_explained_by_the_rule_that_is_missing() -> None:
    server = FakeApi(token="admin", users={"mine": "system:serviceaccount:shop:canary"})
    server.annotate("shop", "a", RULE)
    server.grant("shop", "system:serviceaccount:shop:canary", [])
    async with following(server, token=lambda: "mine") as follower:
        await until(lambda: follower.reflector.denied is not None)
        denied = follower.reflector.denied or ""
        assert "system:serviceaccount:shop:canary" in denied
        assert 'Role lacks the rule {apiGroups: [""], resources: [services], verbs: [list, watch]}' in denied
        rule = {"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}
        server.grant("shop", "system:serviceaccount:shop:canary", [rule])
        await shows(follower, a=RULE)
        await until(lambda: "verbs: [watch]" in (follower.reflector.error or ""))
        # Without the right to watch, changes are found by lists.
        server.annotate("shop", "b", RULE)
        await shows(follower, a=RULE, b=RULE)
        server.grant("shop", "system:serviceaccount:shop:canary", [{**rule, "verbs": ["list", "watch"]}])
        await watched(server, follower)


@in_loop
async def test_the_token_is_read_for_each_request_and_again_after_a_401() -> None:
    server = FakeApi(token="second")
    server.annotate("shop", "a", RULE)
    tokens = ["first"]
    renewed: list[str] = []

    def renew() -> None:
        renewed.append(tokens.pop())
        tokens.append("second")

    async with following(server, token=lambda: tokens[0], renew=renew) as follower:
        await shows(follower, a=RULE)
    assert renewed == ["first"]


@pytest.mark.parametrize("body", ["<html>a portal</html>", "[]", "{}", '{"items": 5, "metadata": {}}'])
@in_loop
async def test_an_answer_that_is_none_of_an_api_server_is_no_empty_list(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.responses import PlainTextResponse

    server = FakeApi()
    monkeypatch.setattr(server, "_list", lambda call: PlainTextResponse(body))
    async with following(server) as follower:
        await until(lambda: follower.reflector.errors["MalformedAnswer"] >= 2)
        assert not follower.reflector.complete


@in_loop
async def test_a_server_that_is_away_is_asked_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeApi()
    server.annotate("shop", "a", RULE)
    async with serving_app(server.app, lifespan="off") as port:
        reflector = Reflector(SERVICES, "shop", optional=False, keep=keep, backoff=Quick())
        follower = Follower(reflector, Connection(server="http://127.0.0.1:9", namespace="shop"), "", lambda: None)
        task = asyncio.create_task(follower.run())
        await until(lambda: reflector.errors["ConnectError"] >= 2)
        assert not reflector.complete
        object.__setattr__(follower._api._connection, "server", f"http://127.0.0.1:{port}")
        await shows(follower, a=RULE)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_kinds_have_the_addresses_of_the_api() -> None:
    assert SERVICES.path("v1", "shop") == "/api/v1/namespaces/shop/services"
    assert MAPPINGS.path("v2", "") == "/apis/getambassador.io/v2/mappings"
    assert isinstance(mappings_kind(), FakeKind)
