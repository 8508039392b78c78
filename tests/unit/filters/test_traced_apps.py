"""Requests that are really traced, by both middlewares: contexts, spans, and that no request waits for a collector."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from auth_rules import AuthService, auth_service, headers_of
from collector import OTLP, PARENT, TRACE, ZIPKIN, Shop, Zipkin, attributes, collecting, url
from middlewares import ASGI_ONLY, Middleware, current, middleware, serving_middleware
from servers import fetch, mapping, run
from upstream import Peer, Seen, serving, silent, until

from canary_mw.control.sources.static import StaticSource
from canary_mw.forking import running_threads
from canary_mw.observability.exports import destination as exports
from canary_mw.observability.spans import destination

RULES = mapping("own", "/own/", "me") + mapping("shop", "/shop/", "shop")
NOBODY = "http://127.0.0.1:1"
THREAD = "canary-mw-tracing-service"
B3 = [("x-b3-traceid", TRACE), ("x-b3-spanid", PARENT)]
Act = Callable[[int, "Shop"], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("interface", "at_once")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No span waits for others."""
    monkeypatch.setattr(destination, "INTERVAL", 0.0)
    monkeypatch.setattr(exports, "FIRST_DELAY", 0.001)


def threads() -> list[str]:
    return [each.name for each in running_threads()]


def traced(text: str, act: Act, *, shop: Shop | None = None, rules: str = RULES, spans: int = 2) -> Zipkin:
    """Serve an app with a TracingService of Zipkin, and a shop, until some spans have come."""
    zipkin, asked = Zipkin(), shop or Shop()

    async def main() -> None:
        async with serving(zipkin) as collector, serving(asked) as behind:
            upstreams = {"collector": url(collector), "shop": url(behind)}
            served = middleware(rules=StaticSource(rules + text), local="me", upstreams=upstreams)
            async with serving_middleware(served) as port:
                await act(port, asked)
                # Before the end, which holds up the loop that this collector is in.
                await until(lambda: len(zipkin.spans) >= spans)

    run(main())
    return zipkin


def test_a_request_has_a_server_span_and_one_for_each_attempt() -> None:
    async def act(port: int, shop: Shop) -> None:
        headers = [("user-agent", "ua"), ("x-request-id", "id1"), *B3, ("x-b3-sampled", "1")]
        await fetch(port, "/shop/x?y=1", headers=headers)

    shop = Shop()
    zipkin = traced(ZIPKIN + "config: {service_name: front}\n", act, shop=shop)
    (server,), (client,) = zipkin.of("SERVER"), zipkin.of("CLIENT")
    assert (server["traceId"], server["parentId"], client["traceId"]) == (TRACE, PARENT, TRACE)
    assert client["parentId"] == server["id"]
    assert (server["name"], client["name"]) == ("GET /shop/", "router shop egress")
    assert server["localEndpoint"] == {"serviceName": "front"}
    tags = server["tags"]
    assert {name: tags[name] for name in ("http.method", "http.status_code", "http.protocol", "component")} == {
        "http.method": "GET",
        "http.status_code": "200",
        "http.protocol": "HTTP/1.1",
        "component": "proxy",
    }
    assert tags["http.url"].endswith("/shop/x?y=1")
    assert (tags["user_agent"], tags["guid:x-request-id"], tags["response_flags"]) == ("ua", "id1", "-")
    assert (tags["upstream_cluster"], tags["mapping"], tags["variant"]) == ("cluster_shop_default", "shop", "stable")
    assert (tags["request_size"], tags["response_size"], "error" in tags) == ("0", "2", False)
    assert client["tags"]["http.status_code"] == "200"
    assert client["tags"]["peer.address"].startswith("127.0.0.1:")
    (seen,) = shop.seen
    assert (seen["x-b3-traceid"], seen["x-b3-spanid"], seen["x-b3-parentspanid"], seen["x-b3-sampled"]) == (
        TRACE,
        client["id"],
        server["id"],
        "1",
    )
    assert zipkin.posts[0][0] == b"POST /api/v2/spans HTTP/1.1"
    assert b"content-type: application/json" in zipkin.posts[0][1]


def test_the_app_itself_gets_the_context_of_its_server_span() -> None:
    async def act(port: int, shop: Shop) -> None:
        await fetch(port, "/own/x", headers=B3)
        await fetch(port, "/other")

    seen: list[dict[str, str]] = []
    zipkin = traced_echo(act, seen)
    own, other = zipkin.of("SERVER")
    assert zipkin.of("CLIENT") == []
    assert [each["x-b3-spanid"] for each in seen] == [own["id"], other["id"]]
    assert (seen[0]["x-b3-traceid"], own["parentId"], "parentId" in other) == (TRACE, PARENT, False)
    assert (own["name"], other["name"]) == ("GET /own/", "GET")


def traced_echo(act: Act, seen: list[dict[str, str]]) -> Zipkin:
    """As `traced`, with an app that keeps its headers."""
    zipkin = Zipkin()

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        names = {name: name[5:].lower().replace("_", "-") for name in environ if name.startswith("HTTP_")}
        seen.append({new: environ[old] for old, new in names.items()})
        start_response("200 OK", [("content-length", "0")])
        return []

    async def main() -> None:
        async with serving(zipkin) as collector:
            app = asgi if current() == "asgi" else wsgi
            rules = StaticSource(RULES + ZIPKIN)
            served = middleware(app, rules=rules, local="me", upstreams={"collector": url(collector)})
            async with serving_middleware(served) as port:
                await act(port, Shop())
                await until(lambda: len(zipkin.spans) == 2)

    run(main())
    return zipkin


@pytest.mark.parametrize("brought", [[*B3, ("x-b3-sampled", "0")], [("b3", "0")]])
def test_what_is_not_sampled_is_passed_on_so_and_has_no_span(brought: list[tuple[str, str]]) -> None:
    async def act(port: int, shop: Shop) -> None:
        await fetch(port, "/shop/x", headers=brought)
        await fetch(port, "/shop/sampled")

    shop = Shop()
    zipkin = traced(ZIPKIN, act, shop=shop)
    assert len(zipkin.spans) == 2
    assert zipkin.of("SERVER")[0]["tags"]["http.url"].endswith("/sampled")
    seen = shop.seen[0]
    assert (seen.get("x-b3-sampled") or seen["b3"].split("-")[2]) == "0"


def test_of_no_percent_only_what_another_service_has_decided_is_traced() -> None:
    async def act(port: int, shop: Shop) -> None:
        await fetch(port, "/shop/a")
        await fetch(port, "/shop/b", headers=[*B3, ("x-b3-sampled", "1")])

    zipkin = traced(ZIPKIN + "sampling: {overall: 0}\n", act)
    assert [each["tags"]["http.url"][-7:] for each in zipkin.of("SERVER")] == ["/shop/b"]


def test_every_attempt_has_a_span_and_what_failed_says_so() -> None:
    async def act(port: int, shop: Shop) -> None:
        await fetch(port, "/shop/x")

    retries = RULES.replace("service: shop\n", "service: shop\n  retry_policy: {retry_on: 5xx, num_retries: 2}\n")
    shop = Shop(b"", b"503 No")
    zipkin = traced(ZIPKIN, act, shop=shop, rules=retries, spans=4)
    assert [each["tags"]["http.status_code"] for each in zipkin.of("CLIENT")] == ["0", "503", "200"]
    assert [each["tags"].get("error") for each in zipkin.of("CLIENT")] == ["true", "true", None]
    assert [each["tags"]["response_flags"] for each in zipkin.of("CLIENT")] == ["UC", "-", "-"]
    assert [each["x-b3-spanid"] for each in shop.seen] == [each["id"] for each in zipkin.of("CLIENT")]
    assert len({each["x-b3-spanid"] for each in shop.seen}) == 3


def test_an_upstream_that_is_not_there_is_an_error_of_the_request() -> None:
    async def act(port: int, shop: Shop) -> None:
        assert (await fetch(port, "/gone/x")).status == 503

    zipkin = traced(ZIPKIN, act, rules=RULES + mapping("gone", "/gone/", "127.0.0.1:1"))
    (server,) = zipkin.of("SERVER")
    assert (server["tags"]["http.status_code"], server["tags"]["error"]) == ("503", "true")
    assert server["tags"]["response_flags"] == "UF"


def test_tags_of_the_document_are_on_all_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Z_TEST_ENV", "here")
    tags = """custom_tags:
- {tag: lit, literal: {value: v}}
- {tag: env, environment: {name: Z_TEST_ENV, default_value: none}}
- {tag: no-env, environment: {name: Z_TEST_NO_ENV}}
- {tag: user, request_header: {name: x-user, default_value: nobody}}
- {tag: host, request_header: {name: ":path"}}
- {tag: missing, request_header: {name: x-none}}
- {tag: empty, request_header: {name: x-none, default_value: ""}}
- {tag: no-value, environment: {name: Z_TEST_EMPTY, default_value: none}}
"""
    monkeypatch.setenv("Z_TEST_EMPTY", "")

    async def act(port: int, shop: Shop) -> None:
        await fetch(port, "/shop/x", headers=[("x-user", "bob")])
        await fetch(port, "/shop/x")

    zipkin = traced(ZIPKIN + tags, act, spans=4)
    assert len(zipkin.spans) == 4
    for each in zipkin.spans:
        assert each["tags"].items() >= {"lit": "v", "env": "here", "host": "/shop/x"}.items()
        assert not {"no-env", "missing", "empty", "no-value"} & each["tags"].keys()
    assert [each["tags"]["user"] for each in zipkin.of("SERVER")] == ["bob", "nobody"]


def test_other_modes_read_and_write_other_headers() -> None:
    async def act(port: int, shop: Shop) -> None:
        states = [("tracestate", "v=1"), ("tracestate", "w=2")]
        await fetch(port, "/shop/x", headers=[("traceparent", f"00-{TRACE}-{PARENT}-01"), *states])

    shop = Shop()
    zipkin = traced(ZIPKIN + "config: {propagation_modes: [TRACE_CONTEXT, B3]}\n", act, shop=shop)
    (client,) = zipkin.of("CLIENT")
    (seen,) = shop.seen
    assert seen["traceparent"] == f"00-{TRACE}-{client['id']}-01"
    assert seen["tracestate"].replace(" ", "") == "v=1,w=2"
    assert seen["x-b3-spanid"] == client["id"]


def test_a_call_of_an_auth_service_is_a_span_with_its_own_context() -> None:
    auth = AuthService((b"401 No", [], b""))
    zipkin, shop = Zipkin(), Shop()

    async def main() -> None:
        async with serving(zipkin) as collector, serving(auth) as asked, serving(shop) as behind:
            upstreams = {"collector": url(collector), "auth": url(asked), "shop": url(behind)}
            rules = StaticSource(RULES + ZIPKIN + auth_service(proto="http"))
            served = middleware(rules=rules, local="me", upstreams=upstreams)
            async with serving_middleware(served) as port:
                assert [(await fetch(port, "/shop/x")).status for _ in range(2)] == [401, 200]
                await until(lambda: len(zipkin.spans) == 5)

    run(main())
    calls = [each for each in zipkin.of("CLIENT") if each["name"] == "async auth egress"]
    assert [each["tags"]["ext_authz_status"] for each in calls] == ["ext_authz_unauthorized", "ext_authz_ok"]
    assert [headers_of(each)["x-b3-spanid"] for each in auth.seen] == [each["id"] for each in calls]
    servers = zipkin.of("SERVER")
    assert [each["tags"]["http.status_code"] for each in servers] == ["401", "200"]
    assert servers[0]["tags"]["response_flags"] == "UAEX"
    assert [each["parentId"] for each in calls] == [each["id"] for each in servers]
    assert shop.seen[0]["x-b3-parentspanid"] == servers[1]["id"]


def test_spans_go_to_a_collector_of_otlp_by_grpc() -> None:
    async def main(collector: str) -> None:
        async with serving(shop) as behind:
            upstreams = {"collector": collector, "shop": url(behind)}
            served = middleware(rules=StaticSource(RULES + OTLP), local="me", upstreams=upstreams)
            async with serving_middleware(served) as port:
                await fetch(port, "/shop/x?y=1", headers=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
                await fetch(port, "/shop/x", headers=[("traceparent", f"00-{TRACE}-{PARENT}-00")])
                await until(lambda: len(otlp.spans) == 2)

    shop = Shop(b"500 No")
    with collecting() as (otlp, peer):
        run(main(f"http://127.0.0.1:{peer.origin.port}"))
    (server,), (client,) = otlp.of(2), otlp.of(3)
    assert (server.trace_id.hex(), server.parent_span_id.hex(), client.trace_id.hex()) == (TRACE, PARENT, TRACE)
    assert client.parent_span_id == server.span_id
    assert server.start_time_unix_nano <= client.start_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    assert (server.name, client.name, server.status.code) == ("GET /shop/", "GET shop", 2)
    found = attributes(server)
    assert found["http.response.status_code"] == "500"
    assert found["url.path"] == "/shop/x"
    assert (found["url.query"], found["http.route"]) == ("y=REDACTED", "/shop/")
    assert (found["canary_mw.mapping"], found["canary_mw.variant"]) == ("shop", "stable")
    assert shop.seen[0]["traceparent"] == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert shop.seen[1]["traceparent"].endswith("-00")
    (resource,) = (each.resource for each in otlp.messages[0].resource_spans)
    assert resource.attributes[0].value.string_value == "canary-mw"


def counting(served: Middleware) -> dict[tuple[str, ...], int]:
    """What a middleware counts of spans."""
    counted: dict[tuple[str, ...], int] = {}

    def tally(*key: str, count: int = 1) -> None:
        if key[0] == "spans":
            counted[key[1:]] = counted.get(key[1:], 0) + count

    served.tally.add(tally, lambda *event: None)
    return counted


def test_a_collector_that_is_not_there_costs_no_request_and_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(destination, "MAX_SPANS", 5)

    async def main() -> dict[tuple[str, ...], int]:
        served = middleware(rules=StaticSource(RULES + ZIPKIN), local="me", upstreams={"collector": NOBODY})
        counted = counting(served)
        async with serving_middleware(served) as port:
            assert [(await fetch(port, "/own/x")).status for _ in range(20)] == [200] * 20
            await until(lambda: counted.get(("dropped",)) == 15)
        return counted

    assert run(main()) == {("dropped",): 20}
    said = [each.message for each in caplog.records if each.name == "canary_mw.tracing_service"]
    assert len(said) == 1
    assert said[0].startswith("TracingService tracing cannot be told, requests go on without it: 127.0.0.1:1")


def test_a_batch_that_is_refused_is_counted_and_the_next_one_is_sent() -> None:
    zipkin = Zipkin(b"500 No")

    async def main() -> dict[tuple[str, ...], int]:
        async with serving(zipkin) as collector:
            served = middleware(rules=StaticSource(RULES + ZIPKIN), local="me", upstreams={"collector": url(collector)})
            counted = counting(served)
            async with serving_middleware(served) as port:
                await fetch(port, "/own/a")
                await until(lambda: counted.get(("failed",)) == 1)
                await fetch(port, "/own/b")
                await until(lambda: counted.get(("sent",)) == 1)
        return counted

    run(main())
    assert [each["tags"]["http.url"][-6:] for each in zipkin.spans] == ["/own/b"]


def test_a_collector_that_never_answers_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "LIMIT", 0.01)

    async def main() -> None:
        async with serving(silent) as collector:
            served = middleware(rules=StaticSource(RULES + ZIPKIN), local="me", upstreams={"collector": url(collector)})
            counted = counting(served)
            async with serving_middleware(served) as port:
                assert [(await fetch(port, "/own/x")).status for _ in range(20)] == [200] * 20
                await until(lambda: counted.get(("failed",)) == 20)

    run(main())


def test_a_change_of_the_document_counts_at_once_and_its_removal_ends_all(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    first, second = Zipkin(), Zipkin()

    async def put(served: Middleware, text: str) -> None:
        # In place, it might be half written.
        new = tmp_path / "new"
        new.write_text(RULES + text)
        new.replace(path)
        await asyncio.to_thread(served.store.reload)

    async def main() -> None:
        async with serving(first) as one, serving(second) as other:
            upstreams = {"collector": url(one), "other": url(other)}
            served = middleware(rules=path, local="me", upstreams=upstreams)
            async with serving_middleware(served) as port:
                await fetch(port, "/own/1")
                assert (served.request_traces, served.observed, served.store.table.has_extras) == (None, False, False)
                await put(served, ZIPKIN)
                await fetch(port, "/own/2")
                await until(lambda: first.spans)
                await put(served, ZIPKIN.replace("service: collector", "service: other"))
                await fetch(port, "/own/3")
                await until(lambda: second.spans)
                await put(served, "")
                await fetch(port, "/own/4")
                assert (served.request_traces, served.observed, served.store.table.has_extras) == (None, False, False)
                await until(lambda: THREAD not in threads())

    run(main())
    assert [each["tags"]["http.url"][-6:] for each in first.spans + second.spans] == ["/own/2", "/own/3"]


def test_what_waits_is_sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "INTERVAL", 1000.0)

    async def main(collector: str) -> None:
        served = middleware(rules=StaticSource(RULES + OTLP), local="me", upstreams={"collector": collector})
        async with serving_middleware(served) as port:
            for _ in range(3):
                await fetch(port, "/own/x")
            traces = served.request_traces
            assert traces is not None
            await until(lambda: len(traces.queues.waiting()) == 3 and THREAD in threads())
        assert THREAD not in threads()

    with collecting() as (otlp, peer):
        run(main(f"http://127.0.0.1:{peer.origin.port}"))
    assert len(otlp.spans) == 3


@ASGI_ONLY  # waitress has no websockets
def test_the_handshake_of_a_websocket_is_traced(interface: str) -> None:
    upgrade = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
    asking = [*upgrade, ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]

    async def act(port: int, shop: Shop) -> None:
        assert (await fetch(port, "/ws/x", headers=asking)).status == 403

    shop = Shop(b"403 No")
    rules = RULES + mapping("ws", "/ws/", "shop", allow_upgrade="[websocket]")
    zipkin = traced(ZIPKIN, act, shop=shop, rules=rules)
    (server,), (client,) = zipkin.of("SERVER"), zipkin.of("CLIENT")
    assert (server["tags"]["http.status_code"], client["tags"]["http.status_code"]) == ("403", "403")
    assert (shop.seen[0]["x-b3-spanid"], shop.seen[0]["x-b3-parentspanid"]) == (client["id"], server["id"])


def test_a_client_that_leaves_ends_all_spans() -> None:
    async def act(port: int, shop: Shop) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /shop/x HTTP/1.1\r\nhost: a\r\n\r\n")
        await until(lambda: stuck)
        writer.transport.abort()

    stuck: list[Seen] = []

    class Stuck(Shop):
        async def __call__(self, peer: Peer) -> None:
            stuck.append(await peer.request())
            # A middleware for WSGI hears of it when it writes.
            await (peer.gone() if current() == "asgi" else peer.answer())

    zipkin = traced(ZIPKIN, act, shop=Stuck())
    (server,), (client,) = zipkin.of("SERVER"), zipkin.of("CLIENT")
    assert client["parentId"] == server["id"]
    if current() == "asgi":
        assert (client["tags"]["error"], server["tags"]["response_flags"]) == ("true", "DC")
