"""Releases over real sockets: the same decisions, headers and cookies in both middlewares and the proxy."""

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from middlewares import current, middleware, serving_middleware, use
from servers import Answer, Pairs, client_of, mapping, respond, run, serving_app
from upstream import Peer, Script, serving
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from wsgiservers import respond as wsgi_respond
from wsgiservers import serving_wsgi

from canary_mw.control.sources.static import StaticSource
from canary_mw.forwarding.release_headers import DAY, ReleaseHeaders, base36
from canary_mw.forwarding.trusted_headers import SIGNATURE, TrustedHeaders, sign_cookie, verify_cookie
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.observability.counters import RequestCounters
from canary_mw.observability.prometheus import Metrics
from canary_mw.routing.assignment import Assigned
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import GrayRelease
from canary_mw.server.app import Proxy
from canary_mw.server.settings import Settings

KINDS = ("asgi", "wsgi", "proxy", "proxy with h11")
MAPPINGS = (
    mapping("svc", "/svc/", "svc") + mapping("gray", "/svc/", "gray", weight=0) + mapping("plain", "/plain/", "gray")
)
MODULE = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: {xff_num_trusted_hops: 2}\n"
KEY = b"7" * 64


def release(**fields: Any) -> str:
    given = {"gray": {"gray": 50}, "sticky": [{"header": "k"}], **fields}
    return f"---\n{json.dumps({'apiVersion': 'canary-mw/v1', 'kind': 'GrayRelease', 'name': 'r', **given})}\n"


def answers(*headers: bytes) -> Script:
    """An upstream that answers each request with its name."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b"gray", *headers)

    return script


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The stable service, in the process."""
    await respond(send, b"svc", headers=[(b"cache-control", b"no-store"), (b"x-canary-variant", b"app")])


def wsgi_app(environ: Any, start_response: Any) -> Any:
    """The same for WSGI."""
    return wsgi_respond(start_response, b"svc", headers=[("Cache-Control", "no-store"), ("X-Canary-Variant", "app")])


@contextlib.asynccontextmanager
async def served(kind: str, tmp_path: Path, rules: str, script: Script, **options: Any) -> AsyncIterator[int]:
    """A port that serves the rules by one kind; stable answers "svc", gray "gray"."""
    if not kind.startswith("proxy"):
        use(kind)
        options = {"local": "svc", "rules": StaticSource(rules), **options}
        async with serving(script) as upstream:
            options["upstreams"] = {"gray": f"http://127.0.0.1:{upstream.origin.port}"}
            inner = middleware(app if current() == "asgi" else wsgi_app, **options)
            async with serving_middleware(inner) as port:
                yield port
        return

    async def stable(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b"svc", b"x-canary-variant: app")

    (tmp_path / "rules.yaml").write_text(rules)
    async with serving(script) as gray, serving(stable) as other:
        ports = (f"gray=http://127.0.0.1:{gray.origin.port}", f"svc=http://127.0.0.1:{other.origin.port}")
        proxy = Proxy(Settings(rules=(str(tmp_path / "rules.yaml"),), upstream=ports))
        async with serving_app(proxy, http="h11" if kind.endswith("h11") else "httptools", lifespan="on") as port:
            yield port


async def asked(port: int, target: str, *requests: Pairs) -> list[Answer]:
    """The answers over one connection."""
    async with client_of(port) as client:
        return [await client.get("GET", target, headers) for headers in requests]


def cookies(answer: Answer) -> dict[str, str]:
    found = [value.decode() for name, value in answer.headers if name == b"set-cookie"]
    return {text.partition("=")[0]: text.partition("=")[2] for text in found}


@pytest.mark.parametrize("kind", KINDS)
def test_every_user_gets_the_variant_that_the_release_says_and_hears_of_it(kind: str, tmp_path: Path) -> None:
    rules = MAPPINGS + release()
    table = RouteTable.from_yaml(rules)
    keys = [f"user-{number}" for number in range(30)]

    async def main() -> None:
        async with served(kind, tmp_path, rules, answers()) as port:
            found = await asked(port, "/svc/", *([("k", key)] for key in keys))
        for key, answer in zip(keys, found, strict=True):
            variant = table.releases["r"].variant_of(key)
            assert answer.body == (b"gray" if variant == "gray" else b"svc")
            names = [value for name, value in answer.headers if name == b"x-canary-variant"]
            assert names == [variant.encode()]
            assert cookies(answer) == {}

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_without_a_release_is_left_alone(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(kind, tmp_path, MAPPINGS + release(sticky=[]), answers()) as port:
            (answer,) = await asked(port, "/plain/", [])
        assert answer.body == b"gray"
        assert answer.header("x-canary-variant") is None
        assert cookies(answer) == {}

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_user_gets_a_cookie_and_stays_where_it_says(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(kind, tmp_path, MAPPINGS + release(sticky=[]), answers()) as port:
            firsts = await asked(port, "/svc/", *([] for _ in range(12)))
            ids = [cookies(answer)["cmw_id"].partition(";")[0] for answer in firsts]
            assert len(set(ids)) == 12
            for first, each in zip(firsts, ids, strict=True):
                assert re.fullmatch(r"[A-Za-z0-9_-]{22}\.[0-9a-z]{3,4}", each)
                rest = cookies(first)["cmw_id"].partition(";")[2]
                assert rest == " Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax"
                (later,) = await asked(port, "/svc/", [("cookie", f"a=b; cmw_id={each}")])
                assert later.header("x-canary-variant") == first.header("x-canary-variant")
                assert cookies(later) == {}

    run(main())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("header", [b"cache-control: public, max-age=5", b"cache-control: s-maxage=5"])
def test_an_answer_for_everybody_gets_no_cookie(kind: str, header: bytes, tmp_path: Path) -> None:
    rules = MAPPINGS + release(sticky=[], gray={"gray": 100})

    async def main() -> None:
        async with served(kind, tmp_path, rules, answers(header)) as port:
            (answer,) = await asked(port, "/svc/", [])
        assert (answer.body, cookies(answer)) == (b"gray", {})
        assert answer.header("x-canary-variant") == "gray"

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_gray_upstream_names_the_variant_too(kind: str, tmp_path: Path) -> None:
    rules = MAPPINGS + release(gray={"gray": 100})

    async def gone(peer: Peer) -> None:
        peer.reset()

    async def main() -> None:
        async with served(kind, tmp_path, rules, gone) as port:
            (answer,) = await asked(port, "/svc/", [("k", "a")])
        assert answer.status in (502, 503)
        assert answer.header("x-canary-variant") == "gray"

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_the_header_may_have_another_name_or_none(kind: str, tmp_path: Path) -> None:
    async def main(written: Any, expected: str | None) -> None:
        rules = MAPPINGS + release(response_header=written, gray={"gray": 100})
        async with served(kind, tmp_path, rules, answers()) as port:
            (answer,) = await asked(port, "/svc/", [("k", "a")])
        assert answer.header("x-which") == expected
        assert answer.header("x-canary-variant") is None

    run(main("X-Which", "gray"))
    run(main(False, None))


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_session_is_drained_with_a_signed_cookie(kind: str, tmp_path: Path) -> None:
    key_file = tmp_path / "keys"
    key_file.write_bytes(KEY)
    signing = {"header_key_file": key_file, "trusted_headers": ["x-any"]}

    async def main() -> None:
        full = MAPPINGS + release(gray={"gray": 100}, on_zero="drain")
        async with served(kind, tmp_path, full, answers(), **signing) as port:
            (answer,) = await asked(port, "/svc/", [("k", "a")])
            value = cookies(answer)["cmw_in_r"].partition(";")[0]
            assert cookies(answer)["cmw_in_r"].partition(";")[2] == " Path=/; HttpOnly; SameSite=Lax"
            (again,) = await asked(port, "/svc/", [("k", "a"), ("cookie", f"cmw_in_r={value}")])
            assert cookies(again) == {}
        empty = MAPPINGS + release(gray={"gray": 0}, on_zero="drain")
        async with served(kind, tmp_path, empty, answers(), **signing) as port:
            kept, forged = await asked(
                port,
                "/svc/",
                [("k", "a"), ("cookie", f"cmw_in_r={value}")],
                [("k", "a"), ("cookie", "cmw_in_r=gray")],
            )
        assert (kept.body, kept.header("x-canary-variant")) == (b"gray", "gray")
        assert forged.body == b"svc"
        # Who is stable is not sent to gray by an old cookie later.
        assert cookies(forged)["cmw_in_r"] == "; Path=/; Max-Age=0"

    run(main())


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_trust_decides_whose_lane_and_choice_count(kind: str, tmp_path: Path) -> None:
    rules = MAPPINGS + release(gray={"gray": 0}, choice={"header": "x-gray", "trusted": True})
    requests: list[Pairs] = [[("x-canary-lane", "r=gray")], [("x-gray", "always")], []]

    async def bodies(**options: Any) -> list[bytes]:
        async with served(kind, tmp_path, rules, answers(), **options) as port:
            return [answer.body for answer in await asked(port, "/svc/", *requests)]

    async def main() -> None:
        assert await bodies() == [b"svc", b"svc", b"svc"]
        assert await bodies(trusted=["127.0.0.1"]) == [b"gray", b"gray", b"svc"]
        key_file = tmp_path / "keys"
        key_file.write_bytes(KEY)
        signer = TrustedHeaders.from_settings(["x-canary-lane", "x-gray"], [KEY])
        assert signer is not None
        for number, (name, value) in enumerate((("x-canary-lane", "r=gray"), ("x-gray", "always"))):
            requests[number] = [(name, value), (SIGNATURE.decode(), signer.sign(name, value, 1 << 38)[1])]
        # The names need not be among the trusted headers.
        options = {"header_key_file": key_file, "trusted_headers": ["x-other"]}
        assert await bodies(**options) == [b"gray", b"gray", b"svc"]
        requests[1] = [("x-gray", "never"), *list(requests[1])[1:]]
        assert await bodies(**options) == [b"gray", b"svc", b"svc"]

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_behind_hears_of_a_lane_that_an_outsider_has_written(kind: str, tmp_path: Path) -> None:
    rules = MAPPINGS + release(gray={"gray": 100}, propagate={"header": "X-Lane"})
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            seen.append(b"\n".join((await peer.request()).headers).lower())
            await peer.answer(b"gray")

    lane: Pairs = [("k", "a"), ("x-lane", "r=stable"), ("x-canary-lane", "r=stable")]
    lane = [*lane, ("baggage", "canary-lane=r%3Dstable;p=1")]
    if kind != "wsgi":  # waitress drops such names itself.
        lane = [*lane, ("x_lane", "r=stable")]

    async def main() -> None:
        async with served(kind, tmp_path, rules, script) as port:
            assert [answer.body for target in ("/svc/", "/plain/") for answer in await asked(port, target, lane)] == [
                b"gray",
                b"gray",
            ]

    run(main())
    decided, plain = seen
    assert b"x-lane: r=gray" in decided
    for head in (decided, plain):
        assert b"r=stable" not in head
        # Services behind go by this one, whatever name it has here.
        assert b"x-canary-lane" not in head
    assert b"lane" not in plain


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_the_client_behind_trusted_proxies_is_the_key(kind: str, tmp_path: Path) -> None:
    rules = MAPPINGS + release(sticky=["client_ip"], gray={"gray": {"weight": 0, "always": {"ids": ["10.1.1.1"]}}})
    requests: list[Pairs] = [
        [("x-forwarded-for", "10.1.1.1")],
        [("x-forwarded-for", "10.1.1.1, 127.0.0.1")],
        [("x-forwarded-for", "10.1.1.1, 10.2.2.2")],
    ]

    async def bodies(rules: str, **options: Any) -> list[bytes]:
        async with served(kind, tmp_path, rules, answers(), **options) as port:
            return [answer.body for answer in await asked(port, "/svc/", *requests)]

    async def main() -> None:
        assert await bodies(rules) == [b"svc"] * 3
        assert await bodies(rules, trusted=["127.0.0.1"]) == [b"gray", b"gray", b"svc"]
        assert await bodies(rules + MODULE) == [b"svc", b"gray", b"gray"]

    run(main())


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_assignments_are_counted(kind: str, tmp_path: Path) -> None:
    rules = MAPPINGS + release(choice={"query": "q"})
    metrics = Metrics()

    async def main() -> None:
        async with served(kind, tmp_path, rules, answers(), observers=[metrics]) as port:
            await asked(port, "/svc/?q=always", [], [], [])
            await asked(port, "/svc/?q=never", [])
            await asked(port, "/svc/", [])
            await asked(port, "/plain/", [])

    run(main())
    assert metrics.read().reasons == {
        ("r", "gray", "choice:query"): 3,
        ("r", "stable", "choice:query"): 1,
        ("r", "stable", "missing"): 1,
    }
    line = 'canary_mw_assignments_total{reason="choice:query",release="r",variant="gray"} 3.0'
    assert line in metrics.render().decode()


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_lanes_are_counted(kind: str, tmp_path: Path) -> None:
    rules = MAPPINGS + release(propagate={"baggage": True})
    metrics = Metrics()

    async def main() -> None:
        for trusted in (["127.0.0.1"], []):
            options = {"observers": [metrics], "trusted": trusted}
            async with served(kind, tmp_path, rules, answers(), **options) as port:
                for value in ("r=gray", "r=stable", "r=gone", "r=stable, r=gone", "other=gray", "wrong"):
                    await asked(port, "/svc/", [("x-canary-lane", value)])
                await asked(port, "/svc/", [("baggage", "canary-lane=r%3Dgray")], [("baggage", "a=b")], [])
                await asked(port, "/plain/", [("x-canary-lane", "r=gray")])

    run(main())
    found = re.findall(r'canary_mw_lanes_total\{result="(\w+)"\} (\S+)', metrics.render().decode())
    assert dict(found) == {"obeyed": "4.0", "unknown": "1.0", "untrusted": "8.0"}


def test_counters_keep_few_decisions_however_many_users_there_are() -> None:
    table = RouteTable.from_yaml(MAPPINGS + release())
    counters = RequestCounters()
    for number in range(500):
        counters.count(decide(table, RequestHead("GET", "/svc/", {"k": str(number)}), 1.0), None, 200, 0.0)
    assert len(counters.figures.targets) == 2
    assert sum(counters.read(1.0).reasons.values()) == 500
    assert {key.drawn for key in counters.read(1.0).rows} == {True}


def test_what_was_sent_here_is_counted_by_its_sender() -> None:
    table = RouteTable.from_yaml(MAPPINGS + release(), local=["svc"], middleware=True)
    counters = RequestCounters()
    counters.count(decide(table, RequestHead("GET", "/svc/", {"via": "1.1 a (svc)"}), 1.0), None, 200, 0.0)
    assert counters.read(1.0).reasons == {}


def test_the_app_learns_the_variant_of_a_code_path(tmp_path: Path) -> None:
    rules = mapping("old", "/svc/", "svc") + mapping("gray", "/svc/", "svc", weight=0) + release()
    seen: Counter[tuple[str, str]] = Counter()

    async def split(scope: Any, receive: Any, send: Any) -> None:
        decision = scope["canary_mw"]
        seen[decision.release.variant, decision.mapping.name] += 1
        await respond(send, decision.release.variant.encode())

    async def main() -> None:
        use("asgi")
        async with serving_middleware(middleware(split, rules=StaticSource(rules), local="svc")) as port:
            found = await asked(port, "/svc/", *([("k", f"user-{number}")] for number in range(20)))
        assert all(answer.header("x-canary-variant") == answer.body.decode() for answer in found)

    run(main())
    assert set(seen) == {("gray", "gray"), ("stable", "old")}


def test_a_websocket_names_its_variant_and_gets_no_cookie(tmp_path: Path) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> None:
        use("asgi")
        async with serve(echo, "127.0.0.1", 0) as upstream:
            there = upstream.sockets[0].getsockname()[1]
            inner = middleware(
                app,
                rules=StaticSource(MAPPINGS + release(sticky=[], gray={"gray": 100})),
                upstreams={"*": f"http://127.0.0.1:{there}"},
            )
            async with (
                serving_middleware(inner) as port,
                connect(f"ws://127.0.0.1:{port}/svc/", proxy=None) as connection,
            ):
                await connection.send("hello")
                assert await connection.recv() == "hello"
                assert connection.response is not None
                assert connection.response.headers["x-canary-variant"] == "gray"
                assert "set-cookie" not in connection.response.headers

    run(main())


def headers_for(
    assigned: Assigned, release: dict[str, Any], request: dict[str, str] | None = None, **more: Any
) -> Callable[..., list[str]]:
    table = RouteTable.from_yaml(MAPPINGS + globals()["release"](**release))
    document: GrayRelease = table.releases["r"].document
    options: dict[str, Any] = {"secure": False, "now": 1000 * DAY, "sign": lambda name, value, now: value, **more}
    found = ReleaseHeaders(document, assigned, RequestHead("GET", "/", request or {}), **options)

    def cookies_of(status: int = 200, *headers: tuple[bytes, bytes]) -> list[str]:
        return [value.decode() for name, value in found.add(status, headers) if name == b"set-cookie"]

    return cookies_of


ANONYMOUS = Assigned("r", "gray", "new", anonymous_id=b"A" * 22)


def test_a_cookie_has_the_attributes_of_the_release() -> None:
    fields = {
        "sticky": [],
        "cookie": {"name": "anon", "domain": "e.com", "path": "/a", "same_site": "None", "max_age": 9},
    }
    (text,) = headers_for(ANONYMOUS, fields, secure=True)()
    assert text == f"anon={'A' * 22}.rs; Path=/a; Max-Age=9; HttpOnly; SameSite=None; Secure; Domain=e.com"
    assert base36(1000) == b"rs"
    assert headers_for(ANONYMOUS, fields)(101) == []
    assert headers_for(ANONYMOUS, fields)(304) != []


@pytest.mark.parametrize(("issued", "again"), [(1000, False), (820, False), (819, True), (None, True)])
def test_a_cookie_is_issued_again_when_it_is_old(issued: int | None, again: bool) -> None:
    found = headers_for(ANONYMOUS._replace(issued=issued), {"sticky": []})()
    assert bool(found) == again
    assert all(text.startswith(f"cmw_id={'A' * 22}.rs;") for text in found)


def test_a_signed_cookie_holds_for_its_name_value_and_time() -> None:
    signed = sign_cookie(KEY, b"cmw_in_r", b"gray", 100)
    assert verify_cookie([b"other" * 9, KEY], b"cmw_in_r", signed, 99.0) == b"gray"
    assert verify_cookie([KEY], b"cmw_in_r", signed, 100.0) is None
    assert verify_cookie([KEY], b"cmw_in_x", signed, 99.0) is None
    assert verify_cookie([b"other" * 9], b"cmw_in_r", signed, 99.0) is None
    assert verify_cookie([KEY], b"cmw_in_r", signed.replace(b"gray", b"svc"), 99.0) is None
    assert verify_cookie([KEY], b"cmw_in_r", b"gray", 99.0) is None


def test_many_requests_at_once_keep_their_variants(tmp_path: Path) -> None:
    rules = MAPPINGS + release()
    table = RouteTable.from_yaml(rules)

    async def main() -> None:
        async with served("asgi", tmp_path, rules, answers()) as port:
            lots = [[[("k", f"{number}-{each}")] for each in range(20)] for number in range(10)]
            found = await asyncio.gather(*(asked(port, "/svc/", *lot) for lot in lots))
        for lot, got in zip(lots, found, strict=True):
            for (pair,), answer in zip(lot, got, strict=True):
                assert answer.header("x-canary-variant") == table.releases["r"].variant_of(pair[1])

    run(main())


class Known:
    """A user as Starlette and Django have it."""

    def __init__(self, plan: str, known: Any = True) -> None:
        self.plan = plan
        self._known = known

    @property
    def is_authenticated(self) -> bool:
        if self._known is None:
            raise RuntimeError("the database is gone")
        return bool(self._known)


SCOPES: list[tuple[dict[str, Any], bool]] = [
    ({"user": Known("pro")}, True),
    ({"user": Known("free")}, False),
    ({"user": Known("pro", False)}, False),
    ({"user": Known("pro", None)}, False),
    ({"state": {"user": {"plan": "pro"}}}, True),
    ({"user": Known("pro", False), "state": {"user": {"plan": "pro"}}}, True),
    ({"state": None}, False),
    ({"session": {"plan": "pro"}}, False),
    ({}, False),
]


@pytest.mark.parametrize(("known", "expected"), SCOPES)
def test_an_asgi_app_is_asked_for_its_user(known: dict[str, Any], expected: bool) -> None:
    rules = MAPPINGS + release(audience={"user": {"plan": "pro"}}, gray={"gray": 100})
    scope = {"type": "http", "method": "GET", "headers": [(b"k", b"a")], "path": "/svc/", "raw_path": b"/svc/", **known}
    assert variant_in(rules, scope) == ("gray" if expected else "stable")


def test_an_asgi_app_is_asked_for_its_session() -> None:
    rules = MAPPINGS + release(sticky=[{"session": "id"}], never={"ids": ["s-1"]}, gray={"gray": 100})
    scope = {"type": "http", "method": "GET", "headers": [], "path": "/svc/", "raw_path": b"/svc/"}
    assert variant_in(rules, {**scope, "session": {"id": "s-1"}}) == "stable"
    assert variant_in(rules, {**scope, "session": {"id": "s-2"}}) == "gray"


def variant_in(rules: str, scope: dict[str, Any]) -> str | None:
    """The variant that the middleware decides for a scope; the gray service is an app of this process."""
    served = CanaryMiddleware(app, rules=StaticSource(rules), local="svc", services={"gray": app})
    whole = {"query_string": b"", "http_version": "1.1", "scheme": "http", "client": None, "server": None, **scope}
    starts: list[Any] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            starts.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def main() -> None:
        try:
            await served(whole, receive, send)
        finally:
            await served.aclose()

    run(main())
    return next((value.decode() for name, value in starts[0]["headers"] if name == b"x-canary-variant"), None)


def test_a_wsgi_app_is_asked_for_its_user(tmp_path: Path) -> None:
    rules = MAPPINGS + release(sticky=[{"user": "id"}], gray={"gray": {"weight": 0, "always": {"ids": ["7"]}}})

    async def main() -> None:
        gray = {"gray": wsgi_app}
        inner = CanaryWSGIMiddleware(wsgi_app, rules=StaticSource(rules), local="svc", services=gray)

        def authenticated(environ: Any, start_response: Any) -> Any:
            if "HTTP_X_LOGIN" in environ:
                environ["canary_mw.user"] = {"id": int(environ["HTTP_X_LOGIN"])}
            return inner(environ, start_response)

        async with serving_wsgi(authenticated) as port:
            found = await asked(port, "/svc/", [("x-login", "7")], [("x-login", "8")], [])
        await asyncio.to_thread(inner.close)
        assert [answer.header("x-canary-variant") for answer in found] == ["gray", "stable", "stable"]

    run(main())
