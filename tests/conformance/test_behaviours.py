"""What the attributes of a Mapping and the keys of the Module do to real requests, as Envoy was recorded doing it."""

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import httpx
import pytest
from middlewares import ASGI_ONLY, Middleware, clients_pools, current, middleware, network_transport, serving_middleware
from servers import Answer, client_of, fetch, mapping, run
from upstream import OK, Peer, Script, Seen, Upstream, serving, until

from canary_mw.client.limits import Limits
from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware

pytestmark = pytest.mark.usefixtures("interface")

CHUNKED = [("transfer-encoding", "chunked")]


class World(NamedTuple):
    """A proxy on `port`, what its upstream has seen, and both of them."""

    port: int
    seen: list[Seen]
    upstream: Upstream
    middleware: Middleware

    async def fetch(self, target: str, method: str = "GET", **more: Any) -> Answer:
        return await fetch(self.port, target, method, **more)

    async def come(self, number: int) -> None:
        """Until that many requests have reached the upstream."""
        await until(lambda: len(self.seen) >= number)

    async def fetch_in_time(self, target: str) -> Answer:
        """Until the limits of the request, which are short, did not pass before the answer: the machine may be busy."""
        while (answer := await self.fetch(target)).status == 504:
            pass
        return answer

    async def time_out(self, target: str, attempts: int) -> None:
        """Until that many attempts of a request reached the upstream in time: never more, and each time it is 504."""
        for number in itertools.count():
            assert (await self.fetch(f"{target}/{number}")).status == 504
            came = sum(request.line.endswith(b"/%d HTTP/1.1" % number) for request in self.seen)
            assert came <= attempts
            if came == attempts:
                return


@contextlib.asynccontextmanager
async def world(rules: str, script: Script | None = None, **options: Any) -> AsyncIterator[World]:
    """Every service of the rules is one upstream, which does what the path says unless a script says it."""
    seen: list[Seen] = []

    async def behave(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request)
            if not await act(peer, request.line.split()[1].strip(b"/").split(b"/"), len(seen)):
                return

    async with serving(script or behave) as upstream:
        options.setdefault("upstreams", {"*": f"http://127.0.0.1:{upstream.origin.port}"})
        served = middleware(rules=StaticSource(rules), **options)
        async with serving_middleware(served) as port:
            yield World(port, seen, upstream, served)
        # Whatever a test did, nothing is left in flight.
        assert served.upstreams.in_flight.counts == {}


async def act(peer: Peer, path: list[bytes], number: int) -> bool:
    """Do what the path says; False when the connection is over."""
    what, value = path[0], path[-1]
    if what == b"status":
        await peer.answer(b"ok", status=value + b" Said")
    elif what == b"flaky":
        await peer.answer(status=b"200 OK" if number > int(value) else b"503 Not yet")
    elif what == b"hang":
        await peer.gone()
        return False
    elif what == b"reset":
        peer.reset()
        return False
    elif what == b"stall":
        await peer.send(OK + b"content-length: 10\r\n\r\nabc")
        await peer.gone()
        return False
    else:
        await peer.answer()
    return True


def retrying(on: str, times: int = 1, **more: Any) -> str:
    policy = f"{{retry_on: {on}, num_retries: {times}, per_try_timeout: {more.pop('per_try_timeout', '0s')}}}"
    return mapping("a", "/a/", "up", retry_policy=policy, **more)


def module(**config: Any) -> str:
    lines = "".join(f"    {key}: {value}\n" for key, value in config.items())
    head = "---\napiVersion: getambassador.io/v2\nkind: Module\nmetadata: {name: ambassador}\nspec:\n  config:\n"
    return head + lines


# retry_policy


@pytest.mark.parametrize(
    ("rules", "path", "status", "attempts"),
    [
        (mapping("a", "/a/", "up"), "status/503", 503, 1),
        (retrying("5xx"), "status/503", 503, 2),
        (retrying("5xx"), "status/500", 500, 2),
        (retrying("5xx", 3), "status/500", 500, 4),
        (retrying("5xx", 0), "status/500", 500, 1),
        (retrying("5xx", 3), "flaky/2", 200, 3),
        (retrying("gateway-error"), "status/500", 500, 1),
        (retrying("gateway-error"), "status/502", 502, 2),
        (retrying("retriable-4xx"), "status/409", 409, 2),
        (retrying("retriable-4xx"), "status/404", 404, 1),
        (retrying("retriable-status-codes"), "status/500", 500, 1),
        (retrying("refused-stream"), "reset", 503, 1),
        (mapping("a", "/a/", "up"), "reset", 503, 1),
        (retrying("5xx"), "reset", 503, 2),
        (retrying("gateway-error", 2), "reset", 503, 3),
        (retrying("connect-failure"), "reset", 503, 1),
        (module(retry_policy="{retry_on: 5xx, num_retries: 2}") + mapping("a", "/a/", "up"), "status/500", 500, 3),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_failure_is_tried_again_as_often_as_envoy_does(
    rules: str, path: str, status: int, attempts: int, method: str
) -> None:
    body = b"abc" if method == "POST" else b""

    async def main() -> None:
        async with world(rules) as there:
            answer = await there.fetch(f"/a/{path}", method, body=body)
            assert answer.status == status
            assert answer.whole
            assert [request.body for request in there.seen] == [body] * attempts
            if path != "reset":
                assert answer.body == b"ok"

    run(main())


def test_an_upstream_that_cannot_be_reached_is_tried_again() -> None:
    attempts: list[str] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        attempts.append(request.url.path)
        raise httpx.ConnectError("refused")

    async def main() -> None:
        rules = retrying("connect-failure", 2)
        async with world(rules, transports={"up": httpx.MockTransport(refuse)}) as there:
            assert (await there.fetch("/a/x")).status == 503
        async with world(rules, upstreams={"up": "http://127.0.0.1:1"}) as there:
            assert (await there.fetch("/a/x")).status == 503

    run(main())
    assert attempts == ["/x"] * 3


def test_each_try_has_a_time_of_its_own() -> None:
    async def main() -> None:
        async with world(retrying("5xx", 2, per_try_timeout="0.25s", timeout_ms=30000)) as there:
            await there.time_out("/a/hang", attempts=3)

    run(main())


def test_a_try_that_was_too_slow_is_followed_by_one_that_is_not() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.gone()
        else:
            await peer.answer(b"second")

    async def main() -> None:
        # Many retries, should the machine be too slow for the second try.
        async with world(retrying("gateway-error", 1000, per_try_timeout="0.2s", timeout_ms=0), script) as there:
            assert (await there.fetch("/a/")).body == b"second"

    run(main())


def test_the_time_for_all_attempts_is_one() -> None:
    async def main() -> None:
        async with world(retrying("5xx", 1000, per_try_timeout="0.1s", timeout_ms=500)) as there:
            assert (await there.fetch("/a/hang")).status == 504
            # 0.1 s each and 25 ms or more between them.
            assert len(there.seen) <= 5

    run(main())


def test_the_time_for_all_attempts_ends_the_wait_between_two() -> None:
    async def main() -> None:
        async with world(retrying("5xx", 1_000_000, timeout_ms=300)) as there:
            assert (await there.fetch("/a/status/503")).status == 504

    run(main())


@pytest.mark.parametrize("timeout_ms", [0, 30000])
def test_the_time_of_a_try_ends_at_the_head_of_the_answer(timeout_ms: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-length: 6\r\n\r\nabc")
        await asyncio.sleep(0.5)
        await peer.send(b"def")

    async def main() -> None:
        # Many retries, should the machine be too slow for the head of the first try.
        rules = retrying("5xx", 1000, per_try_timeout="0.3s", timeout_ms=timeout_ms)
        async with world(rules, script) as there:
            answer = await there.fetch("/a/")
            assert (answer.body, answer.whole) == (b"abcdef", True)

    run(main())


def test_a_client_that_leaves_ends_the_attempts() -> None:
    async def main() -> None:
        async with world(retrying("5xx", 5, per_try_timeout="0.5s", timeout_ms=30000)) as there:
            async with client_of(there.port) as client:
                await client.ask("GET", "/a/hang")
                await there.come(1)
            await until(lambda: not there.upstream.scripts)
            assert len(there.seen) <= 2

    run(main())


def test_a_chunked_body_is_sent_again_and_one_over_the_limit_is_not() -> None:
    async def main() -> None:
        async with world(retrying("5xx"), replay_limit=10) as there:
            for size, attempts in ((10, 2), (11, 1)):
                there.seen.clear()
                async with client_of(there.port) as client:
                    await client.ask("POST", "/a/status/503", CHUNKED)
                    await client.put(b"1\r\na\r\n")
                    await client.put(b"%x\r\n%b\r\n0\r\n\r\n" % (size - 1, b"b" * (size - 1)))
                    assert (await client.answer()).status == 503
                assert [request.body for request in there.seen] == [b"a" + b"b" * (size - 1)] * attempts

    run(main())


# Waitress hands a body over when it is complete.
@ASGI_ONLY
@pytest.mark.parametrize("goodbye", ["answer", "reset"])
def test_a_try_that_failed_within_the_upload_goes_on_with_what_was_kept_and_the_rest(goodbye: str) -> None:
    half = asyncio.Event()
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.head()
            assert await peer.reader.readexactly(6) == b"1\r\na\r\n"
            if goodbye == "reset":
                peer.reset()
            else:
                await peer.answer(status=b"503 Not yet")
            await peer.gone()
        else:
            half.set()
            bodies.append((await peer.request()).body)
            await peer.answer(b"done")

    async def main() -> None:
        async with world(retrying("5xx"), script) as there, client_of(there.port) as client:
            await client.ask("POST", "/a/", CHUNKED)
            await client.put(b"1\r\na\r\n")
            await half.wait()
            await client.put(b"2\r\nbc\r\n")
            await client.put(b"0\r\n\r\n")
            assert (await client.answer()).body == b"done"

    run(main())
    assert bodies == [b"abc"]


@ASGI_ONLY
def test_a_client_that_leaves_within_its_upload_ends_the_try_without_completing_it() -> None:
    async def main() -> None:
        begun = asyncio.Event()
        rests: list[bytes] = []

        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.reader.readexactly(6)
            begun.set()
            rests.append(await peer.gone())

        async with world(retrying("5xx"), script) as there:
            async with client_of(there.port) as client:
                await client.ask("POST", "/a/", CHUNKED)
                await client.put(b"1\r\na\r\n")
                await begun.wait()
            await until(lambda: rests)
            assert rests == [b""]

    run(main())


def test_an_app_of_this_process_is_asked_once() -> None:
    calls: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(scope["path"])
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"busy"})

    def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
        calls.append(environ["PATH_INFO"])
        start_response("503 Busy", [])
        return [b"busy"]

    async def main() -> None:
        service = app if current() == "asgi" else wsgi_app
        async with world(retrying("5xx", 3), services={"up": service}) as there:
            assert (await there.fetch("/a/x")).body == b"busy"

    run(main())
    assert calls == ["/x"]


# timeouts


def test_a_mapping_without_answer_in_time_is_504_and_one_without_limit_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.4)
        await peer.answer(b"late")

    async def main() -> None:
        rules = mapping("short", "/short/", "up", timeout_ms=100) + mapping("none", "/none/", "up", timeout_ms=0)
        async with world(rules, script) as there:
            assert (await there.fetch("/short/")).status == 504
            assert (await there.fetch("/none/")).body == b"late"

    run(main())


def test_a_module_sets_the_time_for_mappings_that_set_none() -> None:
    async def main() -> None:
        rules = module(cluster_request_timeout_ms=100) + mapping("a", "/a/", "up")
        async with world(rules) as there:
            assert (await there.fetch("/a/hang")).status == 504

    run(main())


@pytest.mark.parametrize("timeout_ms", [0, 30000])
def test_idleness_before_the_head_is_504_and_after_it_cuts_the_answer(timeout_ms: int) -> None:
    async def main() -> None:
        rules = mapping("a", "/a/", "up", timeout_ms=timeout_ms, idle_timeout_ms=200)
        async with world(rules) as there:
            await there.time_out("/a/hang", attempts=1)
            answer = await there.fetch_in_time("/a/stall")
            assert (answer.status, answer.body, answer.whole) == (200, b"abc", False)
            await until(lambda: not there.upstream.scripts)

    run(main())


def test_idleness_is_no_failure_of_a_try() -> None:
    async def main() -> None:
        async with world(retrying("5xx", 3, idle_timeout_ms=250, per_try_timeout="20s", timeout_ms=30000)) as there:
            await there.time_out("/a/hang", attempts=1)

    run(main())


def test_what_moves_is_not_idle_in_either_direction() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-length: 6\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(0.2)
            await peer.send(b"x")

    async def main() -> None:
        rules = mapping("a", "/a/", "up", timeout_ms=0, idle_timeout_ms=1000)
        async with world(rules, script) as there, client_of(there.port) as client:
            await client.ask("POST", "/a/", CHUNKED)
            for _ in range(6):
                await asyncio.sleep(0.2)
                await client.put(b"1\r\ny\r\n")
            await client.put(b"0\r\n\r\n")
            answer = await client.answer()
            assert (answer.body, answer.whole) == (b"xxxxxx", True)

    run(main())


def test_an_event_stream_outlives_the_deadline_but_not_its_idleness() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(4):
            await asyncio.sleep(0.2)
            await peer.send(b"3\r\nabc\r\n")
        await peer.gone()

    async def main() -> None:
        rules = mapping("a", "/a/", "up", timeout_ms=500, idle_timeout_ms=1000)
        async with world(rules, script) as there:
            answer = await there.fetch_in_time("/a/")
            assert (answer.body, answer.whole) == (b"abcabcabcabc", False)

    run(main())


def test_a_request_that_waits_for_a_connection_is_idle() -> None:
    async def main() -> None:
        rules = mapping("a", "/a/", "up", timeout_ms=0) + mapping("b", "/b/", "up", timeout_ms=0, idle_timeout_ms=100)
        async with world(rules, limits=Limits(max_connections=1)) as there, client_of(there.port) as client:
            await client.ask("GET", "/a/hang")
            await there.come(1)
            assert (await there.fetch("/b/")).status == 504
            assert len(there.seen) == 1

    run(main())


def test_an_httpx_transport_gets_the_idle_timeout() -> None:
    async def main() -> None:
        rules = mapping("a", "/a/", "up", timeout_ms=0, idle_timeout_ms=200)
        transport = network_transport()
        async with world(rules, transports={"up": transport}) as there:
            await there.time_out("/a/hang", attempts=1)
            answer = await there.fetch_in_time("/a/stall")
            assert (answer.status, answer.whole) == (200, False)
        if current() == "asgi":
            await transport.aclose()
        else:
            transport.close()

    run(main())


def test_a_connection_that_does_not_come_about_in_time_is_503() -> None:
    async def main() -> None:
        # Nobody answers the handshake of TLS, which is part of connecting.
        async with serving(Peer.gone) as upstream:
            rules = mapping("a", "/a/", "up", timeout_ms=0, connect_timeout_ms=100)
            async with world(rules, upstreams={"up": f"https://127.0.0.1:{upstream.origin.port}"}) as there:
                # On a busy machine, the time may be over before anything was sent.
                while not upstream.accepted:
                    assert (await there.fetch("/a/")).status == 503
                await until(lambda: not upstream.scripts)

    run(main())


# cluster_idle_timeout_ms, cluster_max_connection_lifetime_ms


# Without a timer: a thread that needs a connection looks for those that are too old.
@ASGI_ONLY
def test_an_unused_connection_is_closed_after_the_idle_time_of_the_cluster() -> None:
    async def main() -> None:
        rules = mapping("a", "/a/", "up", cluster_idle_timeout_ms=50) + mapping("b", "/b/", "up")
        async with world(rules) as there:
            for target in ("/b/", "/a/"):
                assert (await there.fetch(target)).status == 200
            assert there.upstream.accepted == 1
            await until(lambda: not there.upstream.scripts)

    run(main())


def test_a_connection_that_is_too_old_is_not_used_again() -> None:
    async def main() -> None:
        rules = mapping("a", "/a/", "up", cluster_max_connection_lifetime_ms=1)
        rules += mapping("b", "/b/", "other", cluster_max_connection_lifetime_ms=600000)
        async with world(rules) as there:
            for accepted in (1, 2):
                assert (await there.fetch("/a/")).status == 200
                assert there.upstream.accepted == accepted
            # A thread gives its connection back after the client has its answer: not every request finds it.
            for _ in range(10):
                assert (await there.fetch("/b/")).status == 200
            assert there.upstream.accepted < 2 + 10

    run(main())


@ASGI_ONLY
def test_an_unused_connection_is_closed_when_it_is_too_old() -> None:
    async def main() -> None:
        rules = module(cluster_max_connection_lifetime_ms=300) + mapping("a", "/a/", "up")
        async with world(rules) as there:
            assert (await there.fetch("/a/")).status == 200
            await until(lambda: not there.upstream.scripts)

    run(main())


# circuit_breakers


def broken(**limits: int) -> str:
    inner = ", ".join(f"{name}: {value}" for name, value in limits.items())
    return mapping("a", "/a/", "up", timeout_ms=0, circuit_breakers=f"[{{{inner}}}]")


def assert_overloaded(answer: Answer) -> None:
    assert (answer.status, answer.header("x-envoy-overloaded")) == (503, "true")


def test_requests_over_max_requests_are_refused_until_one_is_done() -> None:
    release = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            path = (await peer.request()).line.split()[1]
            if path == b"/held":
                await peer.send(OK + b"content-length: 6\r\n\r\nabc")
                await release.wait()
                await peer.send(b"def")
            elif not await act(peer, path.strip(b"/").split(b"/"), 1):
                return

    async def main() -> None:
        async with world(broken(max_requests=1) + mapping("b", "/b/", "up"), script) as there:
            async with client_of(there.port) as client:
                await client.ask("GET", "/a/held")
                assert (await client.head()).status_code == 200
                assert_overloaded(await there.fetch("/a/"))
                assert (await there.fetch("/b/")).status == 200
                release.set()
                while await client.data():
                    pass
            await until(lambda: not there.middleware.upstreams.in_flight.counts)
            for target, status in (("/a/", 200), ("/a/reset", 503), ("/a/", 200)):
                answer = await there.fetch(target)
                assert (answer.status, answer.header("x-envoy-overloaded")) == (status, None)

    run(main())


# A WSGI server reports that the client has left only when there is something to send to it.
@ASGI_ONLY
def test_a_client_that_leaves_makes_room_for_another() -> None:
    async def main() -> None:
        async with world(broken(max_requests=1)) as there:
            async with client_of(there.port) as client:
                await client.ask("GET", "/a/stall")
                assert (await client.head()).status_code == 200
                assert_overloaded(await there.fetch("/a/"))
            await until(lambda: not there.middleware.upstreams.in_flight.counts)
            assert (await there.fetch("/a/")).status == 200

    run(main())


def test_requests_over_max_connections_wait_and_over_max_pending_are_refused() -> None:
    async def main() -> None:
        rules = broken(max_connections=1, max_pending_requests=1)
        release = asyncio.Event()
        seen: list[Seen] = []

        async def script(peer: Peer) -> None:
            while True:
                seen.append(await peer.request())
                await release.wait()
                await peer.answer()

        async with world(rules, script) as there:
            first = asyncio.ensure_future(there.fetch("/a/"))
            await until(lambda: seen)
            second = asyncio.ensure_future(there.fetch("/a/"))
            (pool,) = clients_pools(there.middleware)
            await until(lambda: pool._waiters)
            for _ in range(2):
                assert_overloaded(await there.fetch("/a/"))
            release.set()
            assert [(await each).status for each in (first, second)] == [200, 200]
            assert there.upstream.accepted == 1

    run(main())


def test_what_is_refused_for_overload_is_not_tried_again() -> None:
    async def main() -> None:
        rules = retrying("5xx", 3, circuit_breakers="[{max_requests: 0}]")
        async with world(rules) as there:
            assert_overloaded(await there.fetch("/a/"))
            assert there.seen == []

    run(main())


def test_retries_over_max_retries_do_not_happen() -> None:
    async def main() -> None:
        seen: list[bytes] = []
        release = asyncio.Event()

        async def script(peer: Peer) -> None:
            while True:
                line = (await peer.request()).line
                seen.append(line)
                if seen.count(line) > 1 and b"/hold" in line:
                    await release.wait()
                    await peer.answer()
                else:
                    await peer.answer(status=b"503 Busy")

        rules = retrying("5xx", 3, timeout_ms=0, circuit_breakers="[{max_retries: 1}]")
        async with world(rules, script) as there:
            async with client_of(there.port) as client:
                await client.ask("GET", "/a/hold")
                await until(lambda: len(seen) == 2)
                assert (await there.fetch("/a/other")).status == 503
                assert len(seen) == 3
                release.set()
                assert (await client.answer()).status == 200
            await until(lambda: not there.middleware.upstreams.in_flight.counts)
            assert (await there.fetch("/a/last")).status == 503
            assert len(seen) == 7

    run(main())


def test_an_answer_under_breakers_comes_as_any_other() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            await asyncio.sleep(0.2)
            await peer.send(b"3\r\nabc\r\n")
        await peer.send(b"0\r\n\r\n")

    async def main() -> None:
        breakers = "[{max_requests: 1}]"
        async with world(
            retrying("5xx", per_try_timeout="0.3s", timeout_ms=400, circuit_breakers=breakers), script
        ) as it:
            for _ in range(2):
                answer = await it.fetch_in_time("/a/")
                assert (answer.status, answer.body, answer.whole) == (200, b"abcabcabc", True)

    run(main())


@pytest.mark.parametrize(("priority", "status"), [("default", 503), ("high", 200)])
def test_breakers_of_another_priority_do_not_count(priority: str, status: int) -> None:
    async def main() -> None:
        async with world(mapping("a", "/a/", "up", circuit_breakers="[{max_requests: 0}]", priority=priority)) as there:
            assert (await there.fetch("/a/")).status == status

    run(main())


def test_places_are_freed_whatever_becomes_of_a_request() -> None:
    async def leave(there: World, target: str) -> None:
        async with client_of(there.port) as client:
            await client.ask("GET", target)
            await there.come(1)

    async def main() -> None:
        rules = retrying(
            "5xx",
            2,
            timeout_ms=300,
            idle_timeout_ms=200,
            circuit_breakers="[{max_requests: 8, max_retries: 2, max_connections: 3, max_pending_requests: 4}]",
        )
        async with world(rules) as there:
            targets = ["/a/", "/a/status/503", "/a/reset", "/a/hang", "/a/stall"]
            for _ in range(4):
                asked = [there.fetch(target) for target in targets]
                await asyncio.gather(*asked, *(leave(there, target) for target in targets))
            await until(lambda: not there.middleware.upstreams.in_flight.counts)
            assert (await there.fetch("/a/")).status == 200

    run(main())


# cors


CORS = "{origins: ['http://ok.example'], methods: [GET, POST], headers: [x-a], credentials: true, max_age: '60'}"
PREFLIGHT = [("origin", "http://ok.example"), ("access-control-request-method", "PUT")]


@pytest.mark.parametrize(
    "rules",
    [mapping("a", "/a/", "up", cors=CORS), module(cors=CORS) + mapping("a", "/a/", "up")],
    ids=["own", "module"],
)
def test_a_preflight_is_answered_here_and_a_foreign_one_by_the_upstream(rules: str) -> None:
    async def main() -> None:
        async with world(rules) as there:
            answer = await there.fetch("/a/", "OPTIONS", headers=PREFLIGHT)
            assert answer.status == 200
            named = {name.decode(): value.decode() for name, value in answer.headers if name.startswith(b"access")}
            assert named == {
                "access-control-allow-origin": "http://ok.example",
                "access-control-allow-credentials": "true",
                "access-control-allow-methods": "GET, POST",
                "access-control-allow-headers": "x-a",
                "access-control-max-age": "60",
            }
            assert there.seen == []
            foreign = [("origin", "http://evil.example"), PREFLIGHT[1]]
            answer = await there.fetch("/a/status/204", "OPTIONS", headers=foreign)
            assert (answer.status, answer.header("access-control-allow-origin")) == (204, None)
            assert len(there.seen) == 1

    run(main())


def test_an_answer_to_an_allowed_origin_says_so() -> None:
    async def main() -> None:
        async with world(mapping("a", "/a/", "up", cors=CORS)) as there:
            for origin, allowed in (("http://ok.example", "http://ok.example"), ("http://evil.example", None)):
                answer = await there.fetch("/a/", headers=[("origin", origin)])
                assert answer.header("access-control-allow-origin") == allowed
            assert len(there.seen) == 2

    run(main())


# add_* and remove_* headers


def test_the_operators_of_header_values_are_those_of_the_request_and_its_answer() -> None:
    async def main() -> None:
        asked = (
            "{x-a: '%REQ(x-none?x-given)%:%REQ(x-given):2%', x-none: '%REQ(x-none)%', x-p: '%PROTOCOL%', x-d: 100%%,"
        )
        asked += " x-who: '%DOWNSTREAM_REMOTE_ADDRESS%', x-ip: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}"
        response_headers = "{x-code: '%RESPONSE_CODE%', x-len: '%RESP(content-length)%', x-at: '%START_TIME(%s)%'}"
        rules = mapping("a", "/a/", "up", add_request_headers=asked, add_response_headers=response_headers)
        async with world(rules) as there, client_of(there.port) as client:
            answer = await client.get("GET", "/a/status/201", [("x-given", "value")])
            port = client.writer.get_extra_info("sockname")[1]
            lines = there.seen[0].headers
            assert b"x-a: value:va" in lines
            assert b"x-p: HTTP/1.1" in lines
            assert b"x-d: 100%" in lines
            assert b"x-who: 127.0.0.1:%d" % port in lines
            assert b"x-ip: 127.0.0.1" in lines
            assert not [line for line in lines if line.startswith(b"x-none")]
            assert (answer.header("x-code"), answer.header("x-len")) == ("201", "2")
            assert re.fullmatch(r"\d{10,}", answer.header("x-at") or "")

    run(main())


# The Module's demands


def module_with(**config: Any) -> str:
    return module(**config) + mapping("a", "/a/", "up", rewrite="''")


@pytest.mark.parametrize(
    ("config", "status"),
    [
        ({"ip_deny": "[{remote: 127.0.0.0/8}]"}, 403),
        ({"ip_deny": "[{peer: 10.0.0.0/8}]"}, 200),
        ({"ip_allow": "[{peer: 127.0.0.1}]"}, 200),
        ({"ip_allow": "[{peer: 10.0.0.0/8}]"}, 403),
    ],
)
def test_addresses_are_let_in_as_the_module_says(config: dict[str, str], status: int) -> None:
    async def main() -> None:
        async with world(module_with(**config)) as there:
            for target in ("/a/", "/of-the-app"):
                assert (await there.fetch(target)).status == status
            assert len(there.seen) == (status == 200)

    run(main())


def test_slashes_are_merged_before_matching_and_sent_as_they_were_matched() -> None:
    async def main() -> None:
        async with world(module_with(merge_slashes="true")) as there:
            assert (await there.fetch("//a///b//c?d=//")).body == b"ok"
            assert there.seen[0].line == b"GET /a/b/c?d=// HTTP/1.1"

    run(main())


def test_escaped_slashes_are_refused_on_demand() -> None:
    async def main() -> None:
        async with world(module_with(reject_requests_with_escaped_slashes="true")) as there:
            for target, status in (("/a/b%2Fc", 400), ("/a/b%5cc", 400), ("/a/b", 200)):
                assert (await there.fetch(target)).status == status

    run(main())


# WSGI servers drop or fold such names before anybody sees them.
@ASGI_ONLY
@pytest.mark.parametrize(("action", "status"), [("ALLOW", 200), ("REJECT_REQUEST", 400), ("DROP_HEADER", 200)])
def test_header_names_with_underscores_are_treated_as_the_module_says(action: str, status: int) -> None:
    async def main() -> None:
        async with world(module_with(headers_with_underscores_action=action)) as there:
            assert (await there.fetch("/a/", headers=[("x_a", "1")])).status == status
            kept = [line for request in there.seen for line in request.headers if b"x_a" in line]
            assert kept == ([b"x_a: 1"] if action == "ALLOW" else [])

    run(main())


def test_a_head_over_the_limit_of_the_module_is_431() -> None:
    async def main() -> None:
        async with world(module_with(max_request_headers_kb=1)) as there:
            for size, status in ((100, 200), (1100, 431)):
                answer = await there.fetch("/a/", headers=[("x-a", "a" * size)])
                assert answer.status == status
            assert answer.body == b"the head of the request is too large\n"

    run(main())


def test_answers_name_one_server_where_the_module_names_it_and_the_host_does() -> None:
    """That of the host: uvicorn and waitress name themselves. A host that does not leaves that of the Module."""

    async def main() -> None:
        async with world(module_with(server_name="edge")) as there:
            answer = await there.fetch("/a/")
            (named,) = [value for name, value in answer.headers if name == b"server"]
            assert named in (b"uvicorn", b"waitress")

    run(main())


@pytest.mark.parametrize("preserved", [True, False])
def test_a_request_id_is_replaced_where_the_module_says_so(preserved: bool) -> None:
    async def main() -> None:
        async with world(module_with(preserve_external_request_id=str(preserved).lower())) as there:
            await there.fetch("/a/", headers=[("x-request-id", "mine")])
            (line,) = (line for line in there.seen[0].headers if line.startswith(b"x-request-id: "))
            assert (line == b"x-request-id: mine") is preserved

    run(main())


@pytest.mark.parametrize("hops", [0, 1])
def test_trusted_hops_let_forwarded_headers_be_continued(hops: int) -> None:
    async def main() -> None:
        async with world(module_with(xff_num_trusted_hops=hops)) as there:
            await there.fetch("/a/", headers=[("x-forwarded-for", "192.0.2.1")])
            wanted = b"x-forwarded-for: 192.0.2.1, 127.0.0.1" if hops else b"x-forwarded-for: 127.0.0.1"
            assert wanted in there.seen[0].headers

    run(main())


@ASGI_ONLY
def test_a_method_that_nobody_knows_is_a_bad_request() -> None:
    async def main() -> None:
        async with world(mapping("a", "/a/", "up")) as there:
            sent: list[Any] = []

            async def send(message: Any) -> None:
                sent.append(message)

            async def receive() -> Any:
                raise AssertionError

            scope: dict[str, Any] = {
                "type": "http",
                "method": "BREW",
                "path": "/a/",
                "raw_path": b"/a/",
                "query_string": b"",
            }
            scope |= {"headers": [], "http_version": "1.1", "client": None}
            assert isinstance(there.middleware, CanaryMiddleware)
            await there.middleware(scope, receive, send)
            assert sent[0]["status"] == 400
            assert there.seen == []

    run(main())
