"""The fast path of the standalone server, on real sockets: which requests take it, and that responses are the same."""

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from servers import mapping, run
from standalone import GET, HANDLERS, LARGE, LAST, RULES, Noting, Records, Wire, listening, talk, wire_to
from upstream import OK, Peer, Seen, Upstream, forever, serving, until

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.aio.connection import Connection
from canary_mw.client.limits import Limits
from canary_mw.middleware.asgi import middleware
from canary_mw.observability.events import Finished
from canary_mw.rules.upstream import UpstreamOptions
from canary_mw.server.fast_path import exchange as fast_path
from canary_mw.server.protocol import GuardedProtocol

HALVES = RULES + mapping("gray", "/shop/", "shop-gray", weight=50, host_rewrite="gray.example")


class Rolls:
    """Replaces `random`: the draws are below and above 50 % in turn."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> float:
        self.count += 1
        return 0.25 if self.count % 2 else 0.75


@pytest.fixture
def rolls(monkeypatch: pytest.MonkeyPatch) -> Rolls:
    found = Rolls()
    monkeypatch.setattr(middleware, "random", found)
    return found


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


async def primed(client: Wire, app: Noting) -> None:
    """Open a connection to the upstream, which is idle afterwards."""
    assert (await client.get()).status == 200
    app.came.clear()


def after_one(then: Callable[[Peer, Seen], Awaitable[object]]) -> Callable[[Peer], Awaitable[object]]:
    """A script that answers "ok" to the first request of all connections, and runs `then` for the others."""
    numbers = itertools.count()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if next(numbers):
                await then(peer, request)
            else:
                await peer.answer()

    return script


def test_what_a_release_decides_takes_the_fast_path_unless_another_one_has_decided(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    fields = "gray: {gray: 50}\nsticky: [{header: k}]\nchoice: {query: q}\n"
    rules.write_text(
        RULES
        + mapping("gray", "/shop/", "shop-gray", weight=0)
        + mapping("plain", "/plain/", "shop-plain")
        + f"---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: r\n{fields}"
    )

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        for word, variant in (("always", "gray"), ("never", "stable"), ("always", "gray")):
            answer = await client.get(f"/shop/a?q={word}".encode())
            assert (answer.status, answer.header("x-canary-variant")) == (200, variant)
        # The first one has to connect.
        assert app.came == ["decided"]
        for _ in range(3):
            assert (await client.get(b"/plain/a")).header("x-canary-variant") is None
        assert app.came == ["decided"]
        app.came.clear()
        await client.get(b"/plain/a", b"x-canary-lane: r=gray")
        assert app.came == ["whole"]

    talk(rules, forever, exchange)


def test_the_first_request_connects_on_the_asgi_path_and_the_next_take_the_fast_path(rules: Path) -> None:
    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        for _ in range(3):
            answer = await client.get(b"/shop/a?b", b"cookie: c")
            assert (answer.status, answer.body) == (200, b"1")
        assert app.came == ["decided"]
        assert upstream.accepted == 1

    talk(rules, forever, exchange)


def test_the_fast_path_has_no_task_of_its_own(rules: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    def runs_an_app() -> bool:
        return any("run_asgi" in repr(task.get_coro()) for task in asyncio.all_tasks())

    async def then(peer: Peer, _: Seen) -> None:
        asked.set()
        await go_on.wait()
        await peer.answer(b"late")

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        await until(lambda: not runs_an_app())
        await client.ask(GET)
        await asked.wait()
        assert not runs_an_app()
        go_on.set()
        assert (await client.answer()).body == b"late"

    talk(rules, after_one(then), exchange)


# What continues on the ASGI path, with what is known so far.


@pytest.mark.parametrize(
    "segments",
    [
        [OK + b"content-length: %d\r\n\r\n" % len(LARGE), LARGE[:300_000], LARGE[300_000:]],
        [OK + b"content-length: %d\r\n\r\n" % len(LARGE) + LARGE],
        [OK + b"transfer-encoding: chunked\r\n\r\n", b"100000\r\n" + LARGE, b"\r\n0\r\n\r\n"],
        [OK + b"connection: close\r\n\r\n", LARGE],
    ],
    ids=["head first", "at once", "chunked", "until the end"],
)
def test_an_answer_of_several_segments_continues_in_asgi_and_arrives_whole(rules: Path, segments: list[bytes]) -> None:
    async def then(peer: Peer, _: Seen) -> None:
        await peer.send(*segments)
        if b"close" in segments[0]:
            peer.finish()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        for _ in range(2):
            answer = await client.get()
            assert (answer.status, answer.whole) == (200, True)
            assert answer.body == LARGE
        assert app.came[0] == "begun"

    talk(rules, after_one(then), exchange)


def test_events_of_a_stream_arrive_one_by_one_and_outlive_the_deadline(rules: Path) -> None:
    rules.write_text(mapping("quick", "/shop/", "shop", timeout_ms=300))
    received = asyncio.Event()

    async def then(peer: Peer, _: Seen) -> None:
        await peer.send(OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        began = asyncio.get_running_loop().time()
        for number in range(3):
            await peer.send(b"3\r\n%d\n\n\r\n" % number)
            await received.wait()
            received.clear()
        await until(lambda: asyncio.get_running_loop().time() > began + 0.4)
        await peer.send(b"3\r\n3\n\n\r\n0\r\n\r\n")

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        await client.ask(GET)
        assert b"text/event-stream" in await client.reader.readuntil(b"\r\n\r\n")
        for number in range(4):
            # Each is there before the next is sent.
            assert await client.reader.readuntil(b"\n\n\r\n") == b"3\r\n%d\n\n\r\n" % number
            received.set()
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"0\r\n\r\n"
        assert app.came == ["begun"]

    talk(rules, after_one(then), exchange)


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_answer_that_breaks_off_after_it_continued_in_asgi_is_cut_and_one_line_says_so(
    rules: Path, handler: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def then(peer: Peer, _: Seen) -> None:
        await peer.send(OK + b"content-length: 10\r\n\r\n", b"half")
        peer.finish()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        answer = await client.get()
        assert (answer.status, answer.body, answer.whole) == (200, b"half", False)
        assert app.came == ["begun" if handler == "fast_path" else "whole"]

    talk(rules, after_one(then), exchange, handler=handler)
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (line.name, line.levelname) == ("canary_mw.relay", "WARNING")


@pytest.mark.parametrize("primings", [1, 2])
def test_a_stale_connection_is_replaced_once_and_the_decision_stays(rules: Path, rolls: Rolls, primings: int) -> None:
    rules.write_text(HALVES)
    seen: list[tuple[int, list[bytes]]] = []
    records = Records()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append((peer.number, request.headers))
            if len(seen) == primings + 1:
                peer.reset()
                return
            await peer.answer()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        for _ in range(primings):
            await client.get()
        app.came.clear()
        answer = await client.get()
        assert (answer.status, answer.body) == (200, b"ok")
        assert app.came == ["begun"]
        assert rolls.count == primings + 1

    talk(rules, script, exchange, records=records)
    assert [number for number, _ in seen] == [1] * (primings + 1) + [2]
    # Byte for byte the same, with the same request id.
    assert seen[-1][1] == seen[-2][1]
    assert (b"host: gray.example" in seen[-1][1]) == (primings == 2)
    assert [each.variant for each in records.kept[-2:]] == (["gray", "gray"] if primings == 2 else ["stable", "stable"])


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_request_is_sent_twice_at_most(rules: Path, connections: int, handler: str) -> None:
    """However many idle connections there are, and on either path."""
    sent = 0
    all_here = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent
        if peer.number <= connections:
            await peer.request()
            if peer.number == connections:
                all_here.set()
            await all_here.wait()
            await peer.answer()
        await peer.request()
        sent += 1
        peer.reset()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        async with contextlib.AsyncExitStack() as stack:
            port = client.writer.get_extra_info("peername")[1]
            clients = [await stack.enter_async_context(wire_to(port)) for _ in range(connections)]
            await asyncio.gather(*(each.get() for each in clients))
        answer = await client.get()
        assert (answer.status, answer.header("content-type")) == (503, "text/plain; charset=utf-8")

    talk(rules, script, exchange, handler=handler)
    assert sent == 2


def test_the_deadline_of_a_request_that_is_sent_again_is_the_first_one(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float] = []
    send = Connection._send

    def recording(self: Connection, data: bytes, deadline: float, options: UpstreamOptions) -> None:
        deadlines.append(deadline)
        send(self, data, deadline, options)

    monkeypatch.setattr(Connection, "_send", recording)

    async def then(peer: Peer, _: Seen) -> None:
        if peer.number == 1:
            peer.reset()
        await peer.answer()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        assert (await client.get()).status == 200
        assert upstream.accepted == 2

    talk(rules, after_one(then), exchange)
    assert deadlines[0] < deadlines[1] == deadlines[2]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_stale_connection_and_nobody_to_replace_it_is_503(rules: Path, method: bytes) -> None:
    """A POST is not retried: the upstream may have executed it."""
    sent: list[bytes] = []
    records = Records()

    async def then(peer: Peer, request: Seen) -> None:
        sent.append(request.line)
        peer.reset()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        answer = await client.get(method=method)
        assert (answer.status, answer.body) == (
            503,
            b"upstream 127.0.0.1 is not reachable\n".replace(b"127.0.0.1", b"shop"),
        )
        assert app.came == (["whole"] if method == b"POST" else ["begun"])
        # The connection of the client can still be used.
        assert (await client.get(b"/none")).status == 404

    talk(rules, after_one(then), exchange, records=records)
    assert len(sent) == (1 if method == b"POST" else 2)
    assert [each["reason"] for each in records.dicts() if "reason" in each] == [None, "service unavailable", None]


GRAY: dict[str, Any] = {"name": "gray", "prefix": "/shop/", "service": "shop-gray", "weight": 50}
MODULE = """\
---
apiVersion: getambassador.io/v2
kind: Module
metadata: {name: ambassador}
spec: {config: {merge_slashes: true}}
"""


@pytest.mark.parametrize(
    ("request_bytes", "came", "status"),
    [
        (GET, [], 200),
        (GET.replace(b"\r\n\r\n", b"\r\ncontent-length: 0\r\n\r\n"), ["whole"], 200),
        (GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\ncontent-length: 2\r\n\r\nhi"), ["whole"], 200),
        (GET.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), ["whole"], 200),
        (GET.replace(b"\r\n\r\n", b"\r\nupgrade: foo/2\r\nconnection: upgrade\r\n\r\n"), ["whole"], 403),
        (GET.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"), ["whole"], 200),
        (GET.replace(b"/1.1", b"/1.0"), ["whole"], 200),
        (GET.replace(b"/shop/", b"http://else.example/shop/"), ["whole"], 200),
        (GET.replace(b"/shop/", b"/none/"), ["decided"], 404),
        (GET.replace(b"GET /shop/", b"OPTIONS *"), ["whole"], 404),
    ],
    ids="plain empty body chunks upgrade expect 1.0 absolute unmatched asterisk".split(),
)
def test_a_request_that_is_not_simple_takes_the_asgi_path(
    rules: Path, rolls: Rolls, request_bytes: bytes, came: list[str], status: int
) -> None:
    rules.write_text(RULES + mapping(**GRAY))

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        await client.ask(request_bytes)
        assert (await client.answer()).status == status
        assert app.came == came
        assert rolls.count == 2

    talk(rules, forever, exchange)


def test_a_target_that_is_refused_is_refused_on_the_asgi_path(rules: Path, rolls: Rolls) -> None:
    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        assert (await client.get(b"/shop/%00")).status == 400
        assert app.came == ["whole"]
        assert rolls.count == 1

    talk(rules, forever, exchange)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"retry_policy": "{retry_on: 5xx}"}, 200),
        ({"circuit_breakers": "[{max_requests: 10}]"}, 200),
        ({"load_balancer": "{policy: least_request}"}, 200),
        ({"host_redirect": "true"}, 301),
        ({"cors": "{origins: ['http://a.example'], methods: [GET]}"}, 200),
    ],
    ids="retry circuit_breakers load_balancer redirect preflight".split(),
)
def test_what_needs_more_than_one_attempt_is_decided_once(
    rules: Path, rolls: Rolls, more: dict[str, str], status: int
) -> None:
    both = RULES.replace("service: shop\n", "".join(["service: shop\n", *(f"  {k}: {v}\n" for k, v in more.items())]))
    rules.write_text(both + mapping(**GRAY, **more))
    records = Records()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await client.get()
        preflight = (b"origin: http://a.example", b"access-control-request-method: GET")
        answer = await client.get(b"/shop/", *preflight, method=b"OPTIONS")
        assert answer.status == status
        assert app.came == ["decided", "decided"]
        assert rolls.count == 2

    talk(rules, forever, exchange, records=records)
    # Each is reported once, by the one draw; a redirect takes its whole group.
    variants = ["stable"] * 4 if status == 301 else ["gray", "gray", "stable", "stable"]
    assert [each.variant for each in records.kept] == variants


def test_a_request_with_a_shadow_takes_the_asgi_path(rules: Path, rolls: Rolls) -> None:
    rules.write_text(RULES + mapping("copies", "/shop/", "shop-shadow", shadow="true"))
    copies = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            if b"x-shadow: true" in (await peer.request()).headers:
                copies.set()
            await peer.answer()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        for number in (1, 2):
            assert (await client.get()).status == 200
            await copies.wait()
            copies.clear()
            assert app.came == ["decided"] * number
        assert rolls.count == 2

    talk(rules, script, exchange)


def test_what_comes_back_to_us_is_a_loop_on_either_path(rules: Path, rolls: Rolls) -> None:
    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        answer = await client.get(b"/shop/", b"via: 1.1 canary-mw-here shop")
        assert (answer.status, app.came, rolls.count) == (508, ["whole"], 2)

    talk(rules, forever, exchange, hop_id="here")


@pytest.mark.parametrize("guard", ["request policy", "trusted headers"])
def test_a_guard_before_the_rules_sends_everything_to_the_asgi_path(rules: Path, rolls: Rolls, guard: str) -> None:
    options = {}
    if guard == "request policy":
        rules.write_text(RULES + MODULE)
    else:
        options["trusted_headers"] = ("gray",)

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        for _ in range(2):
            assert (await client.get()).status == 200
        assert (app.came, rolls.count) == (["whole", "whole"], 2)

    talk(rules, forever, exchange, **options)


@pytest.mark.parametrize(
    "options",
    [{"access_log": True}, {"headers": [("server", "mine")]}, {"root_path": "/x"}, {"limit_concurrency": 9}],
    ids=str,
)
def test_what_uvicorn_adds_is_not_left_out(rules: Path, options: dict[str, Any]) -> None:
    """Its own log, headers and limits know the ASGI path only."""
    rules.write_text(mapping("all", "/", "shop"))

    async def main() -> None:
        async with serving(forever) as upstream:
            app = Noting(rules, upstream.origin.port)
            async with listening(app, **options) as (port, _), wire_to(port) as client:
                for _ in range(2):
                    assert (await client.get()).status == 200
                assert app.came == ["whole", "whole"]

    run(main())


def test_rules_that_are_not_loaded_yet_are_loaded_on_the_asgi_path(rules: Path) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            app = Noting(rules, upstream.origin.port)
            async with listening(app, begin=False) as (port, _), wire_to(port) as client:
                for _ in range(3):
                    assert (await client.get()).status == 200
                assert app.came == ["whole"]

    run(main())


def test_a_client_that_takes_nothing_is_waited_for_on_the_asgi_path(rules: Path) -> None:
    large = b"x" * 60_000
    records = Records()

    def finished() -> int:
        return sum(isinstance(each, Finished) for each in records.kept)

    async def then(peer: Peer, request: Seen) -> None:
        await peer.answer(large)

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        asked = 1
        while "whole" not in app.came:
            await client.ask(GET)
            asked += 1
            await until(lambda: finished() == asked or "whole" in app.came)  # noqa: B023
        assert finished() == asked - 1
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(asked - 1):
            assert (await client.answer()).body == large

    talk(rules, after_one(then), exchange, records=records)


# Errors on the fast path itself.


def test_an_upstream_that_does_not_answer_in_time_is_504(rules: Path) -> None:
    rules.write_text(mapping("quick", "/shop/", "shop", timeout_ms=100))

    async def then(peer: Peer, _: Seen) -> None:
        assert await peer.gone() == b""

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        answer = await client.get()
        assert (answer.status, answer.body) == (504, b"upstream shop did not answer in time\n")
        assert app.came == []

    talk(rules, after_one(then), exchange)


def test_an_upstream_that_says_nothing_for_too_long_is_504_without_a_deadline(rules: Path) -> None:
    rules.write_text(mapping("quick", "/shop/", "shop", timeout_ms=0, idle_timeout_ms=100))

    async def then(peer: Peer, _: Seen) -> None:
        assert await peer.gone() == b""

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        assert (await client.get()).status == 504
        assert app.came == []

    talk(rules, after_one(then), exchange)


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi!",
        OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nhi",
        OK + b"content-length: 2, 2\r\n\r\nhi",
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        OK + b"x-a: 1\0\r\ncontent-length: 2\r\n\r\nhi",
        OK + b"x-a: 1\x01\r\ncontent-length: 2\r\n\r\nhi",
        OK + b"x a: 1\r\ncontent-length: 2\r\n\r\nhi",
    ],
)
def test_what_is_not_clean_http_is_502_and_its_connection_is_closed(rules: Path, garbage: bytes) -> None:
    async def then(peer: Peer, _: Seen) -> None:
        await peer.send(garbage)
        assert await peer.gone() == b""

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        answer = await client.get()
        assert (answer.status, answer.body) == (502, b"upstream shop did not answer as HTTP\n")
        assert app.came == []

    talk(rules, after_one(then), exchange)


def test_what_follows_an_answer_unasked_is_nobodys(rules: Path) -> None:
    async def then(peer: Peer, request: Seen) -> None:
        await peer.send(OK + b"content-length: 2\r\n\r\nhi" + OK + b"content-length: 7\r\n\r\nplanted")

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        for _ in range(3):
            assert (await client.get()).body == b"hi"
        # A planted answer spoils its connection: the next request opens one.
        assert (app.came, upstream.accepted) == (["decided", "decided"], 3)

    talk(rules, after_one(then), exchange)


@pytest.mark.parametrize(
    ("method", "answer", "lines"),
    [
        (b"HEAD", OK + b"content-length: 0\r\n\r\n", {b"content-length: 0"}),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", set()),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\netag: a\r\n\r\n", {b"etag: a"}),
        (b"GET", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 204 No\r\nx: y\r\n\r\n", {b"x: y"}),
        (b"GET", OK + b"content-length: 0\r\n\r\n", {b"content-length: 0"}),
        (b"GET", OK + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", {b"transfer-encoding: chunked"}),
    ],
)
def test_an_answer_without_body_stays_in_step(rules: Path, method: bytes, answer: bytes, lines: set[bytes]) -> None:
    async def then(peer: Peer, _: Seen) -> None:
        await peer.send(answer)

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        for _ in range(2):
            await client.ask(GET.replace(b"GET", method))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert set(head.split(b"\r\n")[1:-2]) == lines
            if b"transfer-encoding: chunked" in lines:
                assert await client.reader.readexactly(5) == b"0\r\n\r\n"
        assert (app.came, upstream.accepted) == (["whole"] * 2 if method == b"HEAD" else [], 1)

    talk(rules, after_one(then), exchange)


@pytest.mark.parametrize(
    ("method", "answer", "lines"),
    [
        (b"HEAD", OK + b"content-length: 5\r\n\r\n", {b"content-length: 5"}),
        (b"HEAD", OK + b"transfer-encoding: chunked\r\n\r\n", set()),
        (b"HEAD", OK + b"\r\n", set()),
        (b"GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", set()),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: a\r\n\r\n", {b"etag: a"}),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n", set()),
    ],
)
def test_a_head_that_announces_a_body_which_does_not_belong_there_ends_its_connection(
    rules: Path, method: bytes, answer: bytes, lines: set[bytes]
) -> None:
    async def then(peer: Peer, request: Seen) -> None:
        if b"/none" not in request.line:
            return await peer.answer(b"next")
        await peer.send(answer)
        # The body would come late, as the answer to whatever is sent on this connection.
        assert await peer.read_some() == b""
        return None

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        for count in (1, 2):
            await client.ask(GET.replace(b"GET /shop/", method + b" /shop/none"))
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert set(head.split(b"\r\n")[1:-2]) == lines
            assert upstream.accepted == count
            assert (await client.get()).body == b"next"
            assert upstream.accepted == count + 1
        # The request without a body finds a connection, and the next one has to connect.
        assert app.came == (["whole", "decided"] if method == b"HEAD" else ["decided"]) * 2

    talk(rules, after_one(then), exchange)


@pytest.mark.parametrize("trailer", [b"content-length: 5", b"transfer-encoding: gzip", b"host: else"])
def test_a_trailer_that_must_not_be_costs_the_connection_but_not_the_answer(rules: Path, trailer: bytes) -> None:
    async def then(peer: Peer, _: Seen) -> None:
        await peer.send(OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n")

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        for accepted in (1, 2):
            answer = await client.get()
            assert (answer.status, answer.body, answer.whole) == (200, b"hello", True)
            assert upstream.accepted == accepted
        assert app.came == ["decided"]

    talk(rules, after_one(then), exchange)


def test_a_client_that_asks_for_the_end_of_its_connection_gets_connection_close(rules: Path) -> None:
    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        await client.ask(LAST + GET)
        answer = await client.answer()
        assert (answer.body, answer.header("connection")) == (b"1", "close")
        assert await client.reader.read() == b""
        assert app.came == ["whole"]

    talk(rules, forever, exchange)


@pytest.mark.parametrize("more", [b"", GET])
def test_a_server_that_shuts_down_answers_first_with_connection_close(rules: Path, more: bytes) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def then(peer: Peer, _: Seen) -> None:
        asked.set()
        await go_on.wait()
        await peer.answer(b"late")

    async def main() -> None:
        async with serving(after_one(then)) as upstream:
            app = Noting(rules, upstream.origin.port)
            async with listening(app) as (port, state), wire_to(port) as client:
                await primed(client, app)
                await client.ask(GET)
                await asked.wait()
                (connection,) = state.connections
                assert isinstance(connection, GuardedProtocol)
                await client.ask(more)
                await until(lambda: len(connection.pipeline) == bool(more))
                connection.shutdown()
                go_on.set()
                answers = [await client.answer() for _ in range(2 if more else 1)]
                assert [answer.body for answer in answers] == [b"late"] * len(answers)
                # No request is accepted after the last one, whose response has `connection: close`.
                assert [answer.header("connection") for answer in answers] == [*[None] * len(answers[1:]), "close"]
                assert await client.reader.read() == b""
                assert app.came == (["whole"] if more else [])

    run(main())


def test_an_idle_client_of_a_server_that_shuts_down_may_send_one_more_request(rules: Path) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            app = Noting(rules, upstream.origin.port)
            async with listening(app) as (port, state), wire_to(port) as client:
                await primed(client, app)
                (connection,) = state.connections
                connection.shutdown()
                answer = await client.get()
                assert (answer.body, answer.header("connection")) == (b"1", "close")
                assert app.came == ["whole"]

    run(main())


def test_pipelined_requests_are_answered_in_their_order(rules: Path) -> None:
    async def then(peer: Peer, request: Seen) -> None:
        await peer.answer(request.line.split()[1])

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        post = b"POST /shop/2 HTTP/1.1\r\nhost: shop\r\ncontent-length: 2\r\n\r\nhi"
        await client.ask(GET.replace(b"/shop/", b"/shop/1") + post + GET.replace(b"/shop/", b"/shop/3"))
        assert [(await client.answer()).body for _ in range(3)] == [b"/1", b"/2", b"/3"]
        # They came in one read.
        assert app.came == ["whole"] * 3
        assert (await client.get(b"/shop/4")).body == b"/4"
        assert app.came == ["whole"] * 3

    talk(rules, after_one(then), exchange)


@pytest.mark.parametrize(
    "bad", [b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz"]
)
def test_a_refusal_waits_for_the_answer_before_it(rules: Path, bad: bytes) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def then(peer: Peer, _: Seen) -> None:
        asked.set()
        await go_on.wait()
        await peer.answer(b"late")

    async def main() -> None:
        async with serving(after_one(then)) as upstream:
            app = Noting(rules, upstream.origin.port)
            async with listening(app) as (port, state), wire_to(port) as client:
                await primed(client, app)
                await client.ask(GET)
                await asked.wait()
                await client.ask(bad)
                (connection,) = state.connections
                assert isinstance(connection, GuardedProtocol)
                await until(lambda: connection._pending_error is not None)
                go_on.set()
                assert (await client.answer()).body == b"late"
                assert (await client.answer()).status == 400
                assert await client.reader.read() == b""
                assert app.came == []

    run(main())


# Errors of our own: the slot of the connection to the upstream must not be lost.


def broken(*_: object, **__: object) -> Any:
    raise LookupError("lost")


def own_client(app: Noting) -> HTTP11Client:
    """The client of the running loop."""
    return app._middleware.upstreams._states.of(asyncio.get_running_loop()).client


def test_an_error_while_a_response_is_written_gives_the_connection_to_the_next_request(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def then(peer: Peer, _: Seen) -> None:
        asked.set()
        await go_on.wait()
        await peer.answer(b"%d" % peer.number)

    async def main() -> None:
        async with serving(after_one(then)) as upstream:
            app = Noting(rules, upstream.origin.port, records=records)
            async with listening(app) as (port, _), wire_to(port) as client, wire_to(port) as other:
                own_client(app)._limits = Limits(max_connections=1)
                await primed(client, app)
                await client.ask(GET)
                await asked.wait()
                await other.ask(GET)
                pool = own_client(app)._pool(upstream.origin)
                await until(lambda: pool._waiters)
                monkeypatch.setattr(fast_path.FastPathRequest, "_send", broken)
                go_on.set()
                # When the first client is seen to have gone, its connection belongs to the other one.
                assert (await other.answer()).body == b"1"
                with contextlib.suppress(ConnectionError):
                    assert await client.reader.read() == b""
                assert (upstream.accepted, pool._size) == (1, 1)

    run(main())
    ends = [(each["status"], each["reason"]) for each in records.dicts() if "status" in each]
    assert ends == [(200, None), (None, "LookupError"), (200, None)]


@pytest.mark.parametrize("resent", [False, True])
def test_an_error_while_a_response_is_still_on_its_way_closes_its_connection(
    rules: Path, resent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No deadline would close it either.
    rules.write_text(mapping("endless", "/shop/", "shop", timeout_ms=0))
    closed = asyncio.Event()

    async def then(peer: Peer, _: Seen) -> None:
        if resent and peer.number == 1:
            peer.reset()
        else:
            await peer.send(OK + b"content-length: 9\r\n\r\nhalf")
        assert await peer.gone() == b""
        if peer.number == (2 if resent else 1):
            closed.set()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        monkeypatch.setattr(fast_path, "finish_with_response", broken)
        await client.ask(GET)
        await closed.wait()
        await until(lambda: not own_client(app)._pools)

    talk(rules, after_one(then), exchange)


@pytest.mark.parametrize("leave", ["fin", "rst"])
@pytest.mark.parametrize("observed", [True, False])
def test_a_client_that_leaves_ends_its_request_at_the_upstream(rules: Path, leave: str, observed: bool) -> None:
    records = Records()
    asked, ended = asyncio.Event(), asyncio.Event()

    async def then(peer: Peer, _: Seen) -> None:
        asked.set()
        assert await peer.gone() == b""
        ended.set()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        await client.ask(GET)
        await asked.wait()
        if leave == "rst":
            client.writer.transport.abort()
        else:
            client.writer.close()
        await ended.wait()
        assert app.came == []

    talk(rules, after_one(then), exchange, records=records if observed else None)
    if observed:
        services = ("auth", "auth_seconds", "rate_limit", "rate_limit_seconds")
        unknown = ("answered_by", "fallback", "release", "key", *services)
        ended_as = {"status": None, "reason": "client left", **dict.fromkeys(unknown), "drawn": False, "bytes_out": 0}
        last = records.dicts()[-1]
        assert (last["client"], last["tries"], last["bytes_in"]) == ("127.0.0.1", 1, 0)
        sent_as = {name: last[name] for name in ("client", "upstream", "tries", "bytes_in")}
        assert last == {**records.dicts()[-2], **ended_as, **sent_as}


@pytest.mark.parametrize("when", ["stream", "retry"])
def test_a_client_that_leaves_after_its_request_continued_in_asgi_ends_it_too(rules: Path, when: str) -> None:
    records = Records()
    asked, ended = asyncio.Event(), asyncio.Event()

    async def then(peer: Peer, _: Seen) -> None:
        if when == "stream":
            await peer.send(OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        elif peer.number == 1:
            peer.reset()
        asked.set()
        assert await peer.gone() == b""
        if peer.number == 2 or when == "stream":
            ended.set()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        await client.ask(GET)
        await asked.wait()
        if when == "stream":
            await client.reader.readuntil(b"\r\n\r\n")
        else:
            await until(lambda: upstream.accepted == 2)
        client.writer.close()
        await ended.wait()
        assert app.came == ["begun"]

    talk(rules, after_one(then), exchange, records=records)
    assert records.dicts()[-1]["reason"] == "client left"


def test_the_access_log_has_a_line_for_the_fast_path(rules: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It observes the ends of requests only, not the decisions."""
    caplog.set_level("INFO", "canary_mw.access")

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        assert (await client.get(b"/shop/again?a=b")).status == 200
        assert app.came == []

    talk(rules, forever, exchange, access_log=True)
    first, last = (json.loads(record.message) for record in caplog.records if record.name == "canary_mw.access")
    differing = {name: last[name] for name in ("time", "seconds", "first_byte", "request_id")}
    assert last == {**first, **differing, "path": "/shop/again"}
    assert first["request_id"] != last["request_id"]
    assert (first["tries"], first["client"], first["bytes_in"], first["bytes_out"]) == (1, "127.0.0.1", 0, 1)
    assert first["upstream"].startswith("127.0.0.1:")


def test_a_client_that_has_its_answer_and_leaves_ends_nothing(rules: Path) -> None:
    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        port = client.writer.get_extra_info("peername")[1]
        for _ in range(3):
            async with wire_to(port) as other:
                assert (await other.get()).body == b"1"
        assert (app.came, upstream.accepted) == ([], 1)

    talk(rules, forever, exchange)


def test_a_request_keeps_the_rules_that_it_began_with(rules: Path) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    def write(version: str) -> None:
        rules.write_text(mapping("stable", "/shop/", "shop", add_response_headers=f"{{x-rules: {version}}}"))

    async def then(peer: Peer, _: Seen) -> None:
        asked.set()
        await go_on.wait()
        await peer.answer()

    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        await primed(client, app)
        await client.ask(GET)
        await asked.wait()
        write("new")
        assert await asyncio.to_thread(app.store.wait, 2, 10)
        go_on.set()
        assert (await client.answer()).header("x-rules") == "old"
        assert (await client.get()).header("x-rules") == "new"
        assert app.came == []

    write("old")
    talk(rules, after_one(then), exchange)


def test_a_fault_of_our_own_ends_the_connection_of_its_client_and_no_other(
    rules: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def exchange(client: Wire, app: Noting, upstream: Upstream) -> None:
        port = client.writer.get_extra_info("peername")[1]
        await primed(client, app)
        with monkeypatch.context() as patch:
            patch.setattr(fast_path.FastPathRequest, "_send", broken)
            await client.ask(GET)
            with contextlib.suppress(ConnectionError):
                assert await client.reader.read() == b""
        async with wire_to(port) as other:
            # The response was complete, so nothing of it is left on its connection.
            assert (await other.get()).body == b"1"

    talk(rules, forever, exchange)
    assert "LookupError: lost" in caplog.text
