"""Copies of requests for shadows: what they are, and that nobody waits for them."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from middlewares import ASGI_ONLY, Middleware, current, middleware, serving_middleware
from servers import Answer, client_of, fetch, fetch_admin, free_port, mapping, respond, run, serving_app
from upstream import OK, Peer, Script, Seen, answering, forever, serving, until
from wsgiservers import respond as wsgi_respond

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.server.app import create_app
from canary_mw.server.settings import Settings
from canary_mw.types import Receive, Scope, Send

pytestmark = pytest.mark.usefixtures("interface")

SHADOW = mapping("shadow", "/a/", "dark", shadow="true")
RULES = mapping("a", "/a/", "up") + SHADOW
CHUNKED = [("transfer-encoding", "chunked")]


class World(NamedTuple):
    """A proxy on `port`, the copies that its shadow has seen, and the middleware."""

    port: int
    copies: list[Seen]
    middleware: Middleware

    async def fetch(self, target: str, method: str = "GET", **more: Any) -> Answer:
        return await fetch(self.port, target, method, **more)

    async def counted(self, **counts: int) -> None:
        """Until no copy is in flight, and exactly these are counted."""
        await until(lambda: not self.middleware.shadows._tasks)
        wanted = {"sent": 0, "failed": 0, "skipped_body": 0, "skipped_busy": 0, **counts}
        await until(lambda: self.middleware.shadows.counts == wanted)


@contextlib.asynccontextmanager
async def world(
    rules: str = RULES, main: Script = forever, shadow: Script | None = None, app: Any = None, **options: Any
) -> AsyncIterator[World]:
    """The service "up" is `main`, "dark" is `shadow`, which notes its requests by default."""
    copies: list[Seen] = []

    async def note(peer: Peer) -> None:
        while True:
            copies.append(await peer.request())
            await peer.answer(b"nobody's")

    async with serving(main) as up, serving(shadow or note) as dark:
        urls = {name: f"http://127.0.0.1:{each.origin.port}" for name, each in (("up", up), ("dark", dark))}
        served = middleware(app, rules=StaticSource(rules), upstreams=urls, **options)
        async with serving_middleware(served) as port:
            yield World(port, copies, served)
        assert not served.shadows._tasks


def test_a_copy_is_the_request_with_a_mark_and_a_host_of_its_own() -> None:
    async def main() -> None:
        async with world() as there:
            answer = await there.fetch("/a/b%2Fc?d", headers=[("x-mine", "1"), ("x-shadow", "false")])
            assert answer.body == b"1"
            await there.counted(sent=1)
            (copy,) = there.copies
            assert copy.line == b"GET /b%2Fc?d HTTP/1.1"
            assert copy.headers[0] == b"host: shop.example-shadow"
            assert b"x-mine: 1" in copy.headers
            assert [line for line in copy.headers if line.startswith(b"x-shadow")] == [b"x-shadow: true"]

    run(main())


@pytest.mark.parametrize(("weight", "copies"), [(0, 0), (50, 5), (100, 10)])
def test_the_weight_of_a_shadow_is_the_percent_that_is_copied(weight: int, copies: int) -> None:
    draws = iter([0.0, *(draw for ten in range(10) for draw in (ten * 10.0, 0.0))])

    async def main() -> None:
        rules = mapping("a", "/a/", "up") + mapping("shadow", "/a/", "dark", shadow="true", weight=weight)
        async with world(rules, roll=lambda: next(draws)) as there:
            for _ in range(10):
                assert (await there.fetch("/a/")).status == 200
            await there.counted(sent=copies)

    run(main())


@pytest.mark.parametrize(
    ("method", "labels", "options", "copied"),
    [
        ("HEAD", "{}", {}, True),
        ("OPTIONS", "{}", {}, True),
        ("POST", "{}", {}, False),
        ("DELETE", "{}", {}, False),
        ("POST", "{}", {"shadow_writes": True}, True),
        ("POST", "{shadow_writes: allow}", {}, True),
    ],
)
def test_writes_are_copied_only_where_that_is_allowed(
    method: str, labels: str, options: dict[str, Any], copied: bool
) -> None:
    async def main() -> None:
        rules = RULES.replace("metadata: {name: shadow}", f"metadata: {{name: shadow, labels: {labels}}}")
        empty = OK + b"content-length: 0\r\n\r\n"
        async with world(rules, answering(empty), answering(empty), **options) as there:
            assert (await there.fetch("/a/", method)).status == 200
            await there.counted(sent=int(copied))

    run(main())


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_is_copied_up_to_the_limit(framing: str) -> None:
    async def main() -> None:
        async with world(shadow_writes=True, replay_limit=10) as there:
            for size in (10, 11):
                body = b"x" * size
                async with client_of(there.port) as client:
                    if framing == "length":
                        await client.ask("POST", "/a/", body=body)
                    else:
                        await client.ask("POST", "/a/", CHUNKED)
                        await client.put(b"1\r\nx\r\n")
                        await client.put(b"%x\r\n%b\r\n0\r\n\r\n" % (size - 1, body[1:]))
                    assert (await client.answer()).body == b"1"
            await there.counted(sent=1, skipped_body=1)
            assert [copy.body for copy in there.copies] == [b"x" * 10]

    run(main())


# Waitress hands a body over when it is complete.
@ASGI_ONLY
def test_a_copy_waits_for_the_end_of_an_upload_and_the_answer_does_not() -> None:
    async def early(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
        while not (await peer.read_some()).endswith(b"0\r\n\r\n"):
            pass
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async def main() -> None:
        async with world(main=early, shadow_writes=True) as there, client_of(there.port) as client:
            await client.ask("POST", "/a/", CHUNKED)
            await client.put(b"2\r\nab\r\n")
            await client.head()
            assert await client.data() == b"ok"
            assert there.copies == []
            await client.put(b"1\r\nc\r\n0\r\n\r\n")
            assert await client.data() == b""
            await there.counted(sent=1)
            assert there.copies[0].body == b"abc"

    run(main())


@ASGI_ONLY
def test_an_upload_that_does_not_end_is_not_copied() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"too much", b"connection: close", status=b"413 Too Much")

    async def main() -> None:
        async with world(main=refuse, shadow_writes=True) as there, client_of(there.port) as client:
            await client.ask("POST", "/a/", CHUNKED)
            await client.put(b"2\r\nab\r\n")
            assert (await client.head()).status_code == 413
            await there.counted(skipped_body=1)

    run(main())


def test_a_shadow_that_never_answers_holds_nobody() -> None:
    asked = asyncio.Event()

    async def mute(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()

    async def main() -> None:
        rules = mapping("a", "/a/", "up", timeout_ms=0) + SHADOW
        async with world(rules, shadow=mute) as there:
            for _ in range(3):
                assert (await there.fetch("/a/")).body == b"1"
            await asked.wait()
            await until(lambda: len(there.middleware.shadows._tasks) == 3)
            served = there.middleware
            await (asyncio.to_thread(served.close) if isinstance(served, CanaryWSGIMiddleware) else served.aclose())
            await there.counted()

    run(main())


def test_copies_over_the_limit_are_skipped() -> None:
    release = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        await release.wait()
        await peer.answer()

    async def main() -> None:
        async with world(shadow=slow, shadow_limit=2) as there:
            for _ in range(5):
                assert (await there.fetch("/a/")).status == 200
            await until(lambda: there.middleware.shadows.counts["skipped_busy"] == 3)
            release.set()
            await there.counted(sent=2, skipped_busy=3)

    run(main())


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0\r\n\r\n", OK + b"content-length: 9\r\n\r\nabc"])
def test_a_shadow_that_fails_is_counted_and_no_more(answer: bytes) -> None:
    async def broken(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        peer.reset()

    async def main() -> None:
        async with world(shadow=broken) as there:
            assert (await there.fetch("/a/")).body == b"1"
            await there.counted(failed=1)

    run(main())


def test_an_error_of_a_shadows_transport_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise LookupError("of the transport")

    async def main() -> None:
        async with world(transports={"dark": httpx.MockTransport(handler)}) as there:
            assert (await there.fetch("/a/")).body == b"1"
            await there.counted(failed=1)

    run(main())
    assert "of the transport" in caplog.text


def test_a_copy_is_sent_once_whatever_becomes_of_the_request() -> None:
    async def failing(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(status=b"503 Busy")

    async def main() -> None:
        rules = mapping("a", "/a/", "up", retry_policy="{retry_on: 5xx, num_retries: 2}") + SHADOW
        async with world(rules, failing) as there:
            assert (await there.fetch("/a/")).status == 503
            await there.counted(sent=1)
        async with world(mapping("a", "/a/", "127.0.0.1:1") + SHADOW) as there:
            assert (await there.fetch("/a/")).status == 503
            await there.counted(sent=1)

    run(main())


def test_a_request_that_the_wrapped_app_answers_is_copied_too() -> None:
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        more = scope["method"] == "POST" and scope["path"] != "/a/unread"
        while more:
            message = await receive()
            bodies.append(message["body"])
            more = message["more_body"]
        await respond(send, b"from the app")

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] != "/a/unread":
            while chunk := environ["wsgi.input"].read(4):
                bodies.append(chunk)
        return wsgi_respond(start_response, b"from the app")

    async def main() -> None:
        async with world(
            app=app if current() == "asgi" else wsgi_app, local="up", shadow_writes=True, replay_limit=5
        ) as there:
            for method, target, body in (
                ("GET", "/a/b", b""),
                ("POST", "/a/c", b"12345"),
                ("POST", "/a/c", b"123456"),
                ("POST", "/a/unread", b"1"),
            ):
                assert (await there.fetch(target, method, body=body)).body == b"from the app"
            await there.counted(sent=2, skipped_body=2)
            assert [(copy.line.split()[1], copy.body) for copy in there.copies] == [(b"/b", b""), (b"/c", b"12345")]
            assert b"".join(bodies) == b"12345123456"
            again = [("via", "1.1 " + there.middleware.hops[0].via.decode())]
            assert (await there.fetch("/a/b", headers=again)).body == b"from the app"
            await there.counted(sent=2, skipped_body=2)

    run(main())


@ASGI_ONLY
def test_what_became_of_copies_is_in_the_metrics(tmp_path: Path) -> None:
    async def main() -> None:
        rules = tmp_path / "rules.yaml"
        rules.write_text(RULES, encoding="utf-8")
        async with serving(forever) as upstream:
            url = f"*=http://127.0.0.1:{upstream.origin.port}"
            admin = free_port()
            app = create_app(Settings(rules=(str(rules),), upstream=(url,), admin_port=admin, shadow_writes=True))
            async with serving_app(app, lifespan="on") as port:
                assert (await fetch(port, "/a/", "POST", body=b"x")).status == 200
                await until(lambda: app._middleware.shadows.counts["sent"])
                metrics = (await fetch_admin(admin, "/metrics")).body.decode()
        found = dict(re.findall(r'canary_mw_shadow_total\{.*result="(\w+)".*\} (.+)', metrics))
        assert found == {"sent": "1.0", "failed": "0.0", "skipped_body": "0.0", "skipped_busy": "0.0"}

    run(main())
