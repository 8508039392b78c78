"""Upstreams that cannot be reached, break off, or never answer: who pays for it, and who does not."""

import asyncio
import contextlib
import math
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from servers import fetch, free_port, hello, mapping, process, run, serving_app
from upstream import Peer, Script, Upstream, chunks_of, forever, req, serving, silent, until

from canary_mw.client.interfaces import RequestBody, UpstreamResponse
from canary_mw.client.limits import Limits
from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import UpstreamConnectError, UpstreamOverloaded
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import BodyFraming
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.observability.upstream_errors import UpstreamErrors
from canary_mw.rules.upstream import EndpointOptions, Origin
from canary_mw.upstreams.aio import _send_to_endpoint
from canary_mw.upstreams.endpoints import EndpointSet
from canary_mw.upstreams.environment import Environment
from canary_mw.upstreams.health_checks import HealthChecker

# Nobody listens there.
DEAD = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]


@contextlib.asynccontextmanager
async def proxied(urls: dict[str, Any], *mappings: str, **options: Any) -> AsyncIterator[int]:
    """A middleware before these upstreams; its port. At the end nothing of it is in flight."""
    middleware = CanaryMiddleware(hello, rules=StaticSource("".join(mappings)), upstreams=urls, **options)
    async with serving_app(middleware) as port:
        yield port
    await middleware.aclose()


def url(upstream: Upstream) -> str:
    return f"http://127.0.0.1:{upstream.origin.port}"


def dropping(seen: list[bytes]) -> Script:
    """Takes requests, and resets their connections without a word."""

    async def script(peer: Peer) -> None:
        seen.append((await peer.request()).line)
        peer.reset()

    return script


async def statuses(port: int, count: int, method: str = "GET", body: bytes = b"", **more: Any) -> list[int]:
    """Of so many requests one after the other."""
    return [(await fetch(port, "/shop/", method, body=body, **more)).status for _ in range(count)]


# Another endpoint of the same service.


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("POST", b""), ("POST", b"a" * 200_000)])
def test_a_refused_connection_costs_no_request_while_another_endpoint_lives(method: str, body: bytes) -> None:
    async def main() -> None:
        async with serving(forever) as alive:
            urls = {"shop": [DEAD[0], url(alive), DEAD[1]]}
            async with proxied(urls, mapping("a", "/shop/", "shop")) as port:
                assert await statuses(port, 6, method, body) == [200] * 6

    run(main())


def test_a_refused_connection_costs_no_request_of_a_key_either() -> None:
    async def main() -> None:
        async with serving(forever) as alive:
            urls = {"shop": [DEAD[0], url(alive), *DEAD[1:]]}
            balancer = "{policy: maglev, header: x-user}"
            async with proxied(urls, mapping("a", "/shop/", "shop", load_balancer=balancer)) as port:
                for user in "abcdefgh":
                    assert (await fetch(port, "/shop/", headers=[("x-user", user)])).status == 200

    run(main())


def test_with_every_endpoint_gone_it_is_503() -> None:
    async def main() -> None:
        async with proxied({"shop": DEAD}, mapping("a", "/shop/", "shop")) as port:
            assert await statuses(port, 4) == [503] * 4

    run(main())


def test_a_connection_that_breaks_costs_no_read_and_sends_no_write_twice() -> None:
    seen: list[bytes] = []

    async def main() -> None:
        async with serving(dropping(seen)) as broken, serving(forever) as alive:
            urls = {"shop": [url(broken), url(alive)]}
            async with proxied(urls, mapping("a", "/shop/", "shop")) as port:
                assert await statuses(port, 6) == [200] * 6
                assert len(seen) == 3
                assert Counter(await statuses(port, 6, "POST", b"once")) == {200: 3, 503: 3}
                assert len(seen) == 6

    run(main())


def test_a_read_that_breaks_connections_is_sent_to_two_endpoints_at_most() -> None:
    seen: list[bytes] = []

    async def main() -> None:
        async with (
            serving(dropping(seen)) as one,
            serving(dropping(seen)) as two,
            serving(dropping(seen)) as three,
        ):
            urls = {"shop": [url(one), url(two), url(three)]}
            async with proxied(urls, mapping("a", "/shop/", "shop")) as port:
                assert await statuses(port, 1) == [503]
                assert len(seen) == 2

    run(main())


class Refusing:
    """A sender that finds nobody, and notes where it looked."""

    def __init__(self, error: UpstreamConnectError, seconds: float = 0.0) -> None:
        self.asked: list[Origin] = []
        self._error = error
        self._seconds = seconds

    async def send(
        self, origin: Origin, request: UpstreamRequest, body: RequestBody, deadline: float
    ) -> UpstreamResponse:
        self.asked.append(origin)
        await asyncio.sleep(self._seconds)
        raise self._error


def attempts(sender: Refusing, request: UpstreamRequest, body: RequestBody = None) -> Sequence[Origin]:
    """The endpoints that one request was sent to, of three."""
    origins = [Origin("http", f"10.0.0.{number}", 80) for number in (1, 2, 3)]

    async def main() -> None:
        endpoints = EndpointSet(origins, EndpointOptions(), Environment(HealthChecker()))
        with pytest.raises(UpstreamConnectError):
            await _send_to_endpoint(endpoints, sender, request, body, math.inf, UpstreamErrors())
        assert [endpoint.in_flight for endpoint in endpoints.endpoints] == [0, 0, 0]

    asyncio.run(main())
    return sender.asked


def test_what_was_not_sent_is_tried_at_every_endpoint_once() -> None:
    asked = attempts(Refusing(UpstreamConnectError("refused")), req("POST", body=BodyFraming(None)), chunks_of(b"a"))
    assert len(asked) == len(set(asked)) == 3


def test_looking_for_an_endpoint_ends_with_the_time_for_a_connection() -> None:
    slow = Refusing(UpstreamConnectError("too slow"), 0.02)
    assert len(attempts(slow, req(connect_timeout=0.01))) == 1


def test_our_own_limits_are_no_reason_to_go_elsewhere() -> None:
    assert len(attempts(Refusing(UpstreamOverloaded("too many")), req(replayable=True))) == 1


# An upstream that accepts and never answers.


def test_an_upstream_that_never_answers_costs_its_own_callers_a_504_and_nobody_else_anything() -> None:
    async def main() -> None:
        async with serving(silent) as hanging, serving(forever) as alive:
            urls = {"hanging": url(hanging), "shop": url(alive)}
            rules = mapping("h", "/hang/", "hanging", timeout_ms=1500), mapping("a", "/shop/", "shop")
            # Its pool is full and others wait for a place in it.
            async with proxied(urls, *rules, limits=Limits(max_connections=4)) as port:
                hung = [asyncio.create_task(fetch(port, "/hang/")) for _ in range(12)]
                await until(lambda: hanging.accepted == 4)
                assert await statuses(port, 12) == [200] * 12
                assert {answer.status for answer in await asyncio.gather(*hung)} == {504}
                assert await statuses(port, 1) == [200]
                # Nothing of it is kept.
                await until(lambda: not hanging.scripts)

    run(main())


def test_an_endpoint_that_never_answers_costs_the_callers_of_the_others_nothing() -> None:
    async def main() -> None:
        async with serving(silent) as hanging, serving(forever) as one, serving(forever) as two:
            urls = {"shop": [url(one), url(hanging), url(two)]}
            async with proxied(urls, mapping("a", "/shop/", "shop", timeout_ms=500)) as port:
                answers = await asyncio.gather(*(fetch(port, "/shop/") for _ in range(12)))
                assert Counter(answer.status for answer in answers) == {200: 8, 504: 4}

    run(main())


def test_a_server_whose_backlog_is_full_is_no_obstacle_for_others() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
            place = full.getsockname()
            for _ in range(4):
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(place)
            async with serving(forever) as alive:
                urls = {"shop": url(alive), "full": f"http://127.0.0.1:{place[1]}"}
                rules = mapping("f", "/full/", "full", timeout_ms=1000), mapping("a", "/shop/", "shop")
                async with proxied(urls, *rules) as port:
                    stuck = asyncio.create_task(fetch(port, "/full/"))
                    assert await statuses(port, 5) == [200] * 5
                    assert (await stuck).status == 504

    run(main())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_an_upstream_that_never_answers_costs_no_memory_that_is_not_given_back(tmp_path: Path) -> None:
    rules, port = tmp_path / "rules.yaml", free_port()
    rules.write_text(mapping("hanging", "/hang/", "hanging", timeout_ms=300))

    async def main() -> None:
        async with serving(silent) as hanging:
            arguments = ["serve", "--rules", str(rules), "--port", str(port), "--upstream", f"*={url(hanging)}"]
            with process(*arguments, log=tmp_path / "log", wait_for=[port]) as proxy:

                def memory() -> int:
                    lines = Path(f"/proc/{proxy.child.pid}/status").read_text().splitlines()
                    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmRSS"))

                sizes = []
                for _ in range(14):
                    answers = await asyncio.gather(*(fetch(port, "/hang/") for _ in range(200)))
                    assert {answer.status for answer in answers} == {504}
                    sizes.append(memory())
                # In MiB: the first rounds make the room in which the later ones live.
                assert sizes[-1] - sizes[7] < 8, sizes

    run(main())
