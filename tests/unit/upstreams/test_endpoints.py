import asyncio
import math
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import pytest
from upstream import CERTIFICATE, ON_BOTH_LOOPS, Peer, Run, Upstream, answering, req, serving, silent, until, whole

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.rules.upstream import EndpointOptions, HealthCheck, LoadBalancing, Origin, OutlierDetection
from canary_mw.upstreams.discovery.dns import is_looked_up, pause_after, resolve
from canary_mw.upstreams.endpoints import IDLE_AFTER, EndpointSet
from canary_mw.upstreams.environment import Environment
from canary_mw.upstreams.health_checks import HealthChecker

pytestmark = ON_BOTH_LOOPS

A, B, C = (Origin("http", f"10.0.0.{number}", 80) for number in (1, 2, 3))
NAMED = Origin("http", "shop.test", 80)
CHECK = HealthCheck(b"/health")


class FakeEnvironment:
    """Clock, names and health checks as the test sets them; pauses end when it says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.names: dict[str, Sequence[str] | Exception] = {}
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.health_checker = HealthChecker()
        self._pauses: list[asyncio.Future[None]] = []
        self.paused: list[float] = []

    def set(self, *origins: Origin, **settings: Any) -> EndpointSet:
        environment = Environment(
            settings.pop("check_health", self.health_checker),
            self.resolve,
            5.0,
            lambda: self.now,
            Random(5).random,
            self.pause,
        )
        return EndpointSet(origins, EndpointOptions(**settings), environment)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        await self.open.wait()
        found = self.names[host]
        if isinstance(found, Exception):
            raise found
        return found

    async def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        pause = asyncio.get_running_loop().create_future()
        self._pauses.append(pause)
        await pause

    async def round_over(self) -> None:
        """The first look-up or round of checks is done."""
        await until(lambda: self.paused)

    async def go_on(self) -> None:
        """End the pauses that are on, once there is one, and wait for the next."""
        await until(lambda: self._pauses)
        pauses, self._pauses = self._pauses, []
        for pause in pauses:
            if not pause.done():
                pause.set_result(None)
        await until(lambda: len(self._pauses) >= len(pauses))


@asynccontextmanager
async def closing(*sets: EndpointSet, fake: FakeEnvironment | None = None) -> AsyncIterator[EndpointSet]:
    try:
        yield sets[0]
    finally:
        for each in sets:
            await each.aclose()
        if fake is not None:
            await fake.health_checker.aclose()


async def next_one(endpoints: EndpointSet, key: int | None = None) -> str:
    """Whose turn it is."""
    with await endpoints.lease(key, math.inf, 30.0) as lease:
        return lease.origin.address or lease.origin.host


async def turns(endpoints: EndpointSet, count: int = 12) -> Counter[str]:
    """How the next requests are shared out."""
    return Counter([await next_one(endpoints) for _ in range(count)])


async def failing(endpoints: EndpointSet, host: str, times: int = 5, error: UpstreamError | None = None) -> None:
    """Until requests failed at an endpoint so many times."""
    error = error or UpstreamConnectError("refused")
    while times:
        try:
            with await endpoints.lease(None, math.inf, 30.0) as lease:
                if lease.origin.host == host:
                    times -= 1
                    raise error
        except UpstreamError:
            continue


class Shop:
    """An upstream whose answers can be changed while it runs; `seen` are the heads of requests for its health."""

    def __init__(self) -> None:
        self.status = b"200 OK"
        self.health = b"200 OK"
        self.seen: list[list[bytes]] = []
        self.answered = 0

    async def script(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.line.startswith(b"GET /health "):
                self.seen.append(request.headers)
                await peer.answer(status=self.health)
            else:
                self.answered += 1
                await peer.answer(status=self.status)


@asynccontextmanager
async def shops(count: int = 3) -> AsyncIterator[tuple[list[Shop], list[Upstream]]]:
    async with AsyncExitStack() as stack:
        made = [Shop() for _ in range(count)]
        yield made, [await stack.enter_async_context(serving(shop.script)) for shop in made]


@asynccontextmanager
async def clients() -> AsyncIterator[HTTP11Client]:
    client = HTTP11Client()
    try:
        yield client
    finally:
        await client.aclose()


async def send(endpoints: EndpointSet, client: HTTP11Client, key: int | None = None) -> int:
    """One request as an upstream gets it; the status, or that of the error."""
    try:
        with await endpoints.lease(key, math.inf, 30.0) as lease:
            response = lease.held_by(await client.send(lease.origin, req()))
            while await response.read():
                pass
            return response.head.status
    except UpstreamError as exc:
        return exc.status_hint


def test_endpoints_are_asked_in_turn(run: Run) -> None:
    async def main() -> None:
        async with shops() as (made, upstreams), clients() as client:
            endpoints = FakeEnvironment().set(*(each.origin for each in upstreams))
            assert [await send(endpoints, client) for _ in range(9)] == [200] * 9
            assert [shop.answered for shop in made] == [3, 3, 3]

    run(main)


def test_one_endpoint_leaves_nothing_to_choose(run: Run) -> None:
    async def main() -> None:
        assert FakeEnvironment().set(A).only_endpoint() == A
        assert FakeEnvironment().set(A, A).only_endpoint() == A
        several = FakeEnvironment().set(A, B)
        assert several.only_endpoint() is None
        assert await turns(several) == {"10.0.0.1": 6, "10.0.0.2": 6}

    run(main)


def test_an_endpoint_that_answers_500_is_ejected_for_a_while(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        async with shops() as (made, upstreams), clients() as client:
            endpoints = fake.set(*(each.origin for each in upstreams), outlier_detection=OutlierDetection())
            made[1].status = b"500 Internal Server Error"
            assert Counter([await send(endpoints, client) for _ in range(30)])[500] == 5
            made[1].status = b"200 OK"
            fake.now += 29.0
            await send(endpoints, client)
            assert made[1].answered == 5
            fake.now += 1.0
            assert [await send(endpoints, client) for _ in range(6)] == [200] * 6
            assert made[1].answered == 7

    run(main)


def test_an_endpoint_that_dies_is_ejected(run: Run) -> None:
    async def main() -> None:
        async with shops() as (made, upstreams), clients() as client:
            async with serving(answering(b"")) as dead:
                origins = [dead.origin, *(each.origin for each in upstreams)]
            endpoints = FakeEnvironment().set(*origins, outlier_detection=OutlierDetection())
            assert Counter([await send(endpoints, client) for _ in range(40)]) == {503: 5, 200: 35}
            assert sum(shop.answered for shop in made) == 35

    run(main)


def test_an_endpoint_that_fails_again_is_ejected_for_longer(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        endpoints = fake.set(A, B, C, outlier_detection=OutlierDetection())
        for seconds in (30.0, 60.0, 90.0):
            await failing(endpoints, "10.0.0.1")
            fake.now += seconds - 0.5
            assert "10.0.0.1" not in await turns(endpoints)
            fake.now += 0.5
            assert (await turns(endpoints))["10.0.0.1"] == 4

    run(main)


def test_a_timeout_and_a_broken_answer_count_as_failures(run: Run) -> None:
    async def main() -> None:
        async with serving(silent) as mute, serving(answering(b"nonsense\r\n\r\n")) as broken, clients() as client:
            endpoints = FakeEnvironment().set(broken.origin, mute.origin, A, outlier_detection=OutlierDetection(2))
            for upstream in (broken, mute):
                for number in range(2):
                    lease = await endpoints.lease(None, math.inf, 1.0)
                    while lease.origin != upstream.origin:
                        lease.release()
                        lease = await endpoints.lease(None, math.inf, 1.0)
                    with pytest.raises(UpstreamError), lease:
                        lease.held_by(await client.send(lease.origin, req(timeout=0.05)))
                    # It may not have come to accepting when the time was over.
                    await until(lambda it=upstream, count=number + 1: it.accepted == count)  # type: ignore[misc]
            broken_one, mute_one, _ = endpoints.endpoints
            assert broken_one.ejections == 1
            assert mute_one.ejections == 0, "one of three is as many as may be ejected"

    run(main)


def test_no_more_than_the_given_part_is_ejected_but_one_always(run: Run) -> None:
    async def main() -> None:
        endpoints = FakeEnvironment().set(A, B, C, outlier_detection=OutlierDetection(max_ejection_percent=10))
        await failing(endpoints, "10.0.0.1")
        await failing(endpoints, "10.0.0.2", 20)
        assert await turns(endpoints) == {"10.0.0.2": 6, "10.0.0.3": 6}
        more = FakeEnvironment().set(A, B, C, outlier_detection=OutlierDetection(max_ejection_percent=67))
        await failing(more, "10.0.0.1")
        await failing(more, "10.0.0.2")
        assert [endpoint.ejections for endpoint in more.endpoints] == [1, 1, 0]

    run(main)


def test_with_more_than_half_of_them_ejected_all_are_asked(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        endpoints = fake.set(A, B, C, outlier_detection=OutlierDetection(max_ejection_percent=100))
        await failing(endpoints, "10.0.0.1")
        assert len(await turns(endpoints)) == 2
        await failing(endpoints, "10.0.0.2")
        assert await turns(endpoints) == {"10.0.0.1": 4, "10.0.0.2": 4, "10.0.0.3": 4}
        # Who is ejected is not ejected for longer by what it answers then.
        await failing(endpoints, "10.0.0.1", 20)
        assert endpoints.endpoints[0].ejected_until == fake.now + 30.0

    run(main)


def test_what_is_not_the_fault_of_an_endpoint_does_not_count(run: Run) -> None:
    async def main() -> None:
        endpoints = FakeEnvironment().set(A, B, outlier_detection=OutlierDetection())
        await failing(endpoints, "10.0.0.1", 20, UpstreamOverloaded("too many"))
        await failing(endpoints, "10.0.0.1", 20, UpstreamError("a head that must not be sent"))
        assert len(await turns(endpoints)) == 2
        await failing(endpoints, "10.0.0.1", 5, UpstreamError("broken", sent=True))
        assert len(await turns(endpoints)) == 1

    run(main)


def test_without_outlier_detection_nobody_is_ejected(run: Run) -> None:
    async def main() -> None:
        endpoints = FakeEnvironment().set(A, B)
        await failing(endpoints, "10.0.0.1", 50)
        assert len(await turns(endpoints)) == 2

    run(main)


def test_a_key_keeps_its_endpoint_and_finds_another_while_that_is_ejected(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        endpoints = fake.set(
            A, B, C, load_balancer=LoadBalancing("ring_hash", header=b"x"), outlier_detection=OutlierDetection()
        )
        keys = [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(60)]
        before = [await next_one(endpoints, key) for key in keys]
        assert before == [await next_one(endpoints, key) for key in keys]
        assert len(set(before)) == 3
        await failing(endpoints, "10.0.0.1")
        during = [await next_one(endpoints, key) for key in keys]
        assert "10.0.0.1" not in during
        assert all(new == old for old, new in zip(before, during, strict=True) if old != "10.0.0.1")
        fake.now += 30.0
        assert before == [await next_one(endpoints, key) for key in keys]

    run(main)


def test_least_request_counts_an_answer_until_it_is_read(run: Run) -> None:
    async def main() -> None:
        async with shops(2) as (_, upstreams), clients() as client:
            endpoints = FakeEnvironment().set(
                *(each.origin for each in upstreams), load_balancer=LoadBalancing("least_request")
            )
            with await endpoints.lease(None, math.inf, 1.0) as lease:
                busy = lease.origin
                response = lease.held_by(await client.send(busy, req()))
            for _ in range(20):
                with await endpoints.lease(None, math.inf, 1.0) as other:
                    assert other.origin != busy
            while await response.read():
                pass
            response.close()
            assert [each.in_flight for each in endpoints.endpoints] == [0, 0]

    run(main)


def test_a_request_that_is_cancelled_is_no_longer_in_flight(run: Run) -> None:
    async def main() -> None:
        endpoints = FakeEnvironment().set(A, B, load_balancer=LoadBalancing("least_request"))
        lease = await endpoints.lease(None, math.inf, 1.0)
        with pytest.raises(asyncio.CancelledError), lease:
            raise asyncio.CancelledError
        assert [each.in_flight for each in endpoints.endpoints] == [0, 0]

    run(main)


def test_an_endpoint_that_fails_its_health_check_gets_no_requests_until_it_passes(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        check = CHECK._replace(host=b"shop.test", headers=((b"x-check", b"1"),), healthy_threshold=2)
        async with AsyncExitStack() as stack:
            made, upstreams = await stack.enter_async_context(shops())
            client = await stack.enter_async_context(clients())
            endpoints = fake.set(*(each.origin for each in upstreams), health_checks=(check,))
            await stack.enter_async_context(closing(endpoints, fake=fake))
            made[0].health = b"503 Service Unavailable"
            assert await send(endpoints, client) == 200
            await fake.round_over()
            assert {b"host: shop.test", b"x-check: 1"} <= set(made[0].seen[0])
            before = made[0].answered
            assert [await send(endpoints, client) for _ in range(12)] == [200] * 12
            assert made[0].answered == before
            made[0].health = b"200 OK"
            await fake.go_on()
            await send(endpoints, client)
            assert made[0].answered == before, "once is not enough"
            await fake.go_on()
            assert [await send(endpoints, client) for _ in range(12)] == [200] * 12
            assert made[0].answered == before + 4
            assert set(fake.paused) == {5.0}

    run(main)


def test_an_endpoint_that_does_not_answer_its_health_check_fails_it(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        check = CHECK._replace(timeout=30.0, unhealthy_threshold=1)
        async with shops() as (_, upstreams), serving(silent) as mute:
            async with serving(answering(b"")) as dead:
                pass
            origins = [mute.origin, dead.origin, *(each.origin for each in upstreams)]

            async def check_health(origin: Origin, check: HealthCheck) -> int:
                # The time passes for this one alone; on a busy machine others may be slow to answer.
                return await fake.health_checker(
                    origin, check._replace(timeout=0.05) if origin == mute.origin else check
                )

            async with closing(
                fake.set(*origins, health_checks=(check,), check_health=check_health), fake=fake
            ) as endpoints:
                await next_one(endpoints)
                await fake.round_over()
                assert [each.is_healthy(fake.now) for each in endpoints.endpoints] == [False, False, True, True, True]

    run(main)


def test_with_more_than_half_of_them_unhealthy_all_are_asked(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        async with shops() as (made, upstreams), clients() as client:
            origins = [each.origin for each in upstreams]
            async with closing(fake.set(*origins, health_checks=(CHECK,)), fake=fake) as endpoints:
                for shop in made:
                    shop.health = b"500 Internal Server Error"
                await send(endpoints, client)
                await fake.round_over()
                before = [shop.answered for shop in made]
                assert [await send(endpoints, client) for _ in range(6)] == [200] * 6
                assert [shop.answered for shop in made] == [count + 2 for count in before]

    run(main)


def test_other_statuses_than_200_pass_only_where_they_are_named(run: Run) -> None:
    async def main() -> None:
        for statuses, healthy in ((((200, 200),), False), (((200, 299), (404, 404)), True)):
            fake = FakeEnvironment()
            check = CHECK._replace(statuses=statuses)
            async with shops(2) as (made, upstreams):
                made[0].health, made[1].health = b"204 No Content", b"404 Not Found"
                origins = [each.origin for each in upstreams]
                async with closing(fake.set(*origins, health_checks=(check,)), fake=fake) as endpoints:
                    await next_one(endpoints)
                    await fake.round_over()
                    assert [each.is_healthy(0.0) for each in endpoints.endpoints] == [healthy, healthy]

    run(main)


def test_one_that_joins_has_to_pass_its_check_before_it_gets_requests(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        asked: list[str] = []

        async def check_health(origin: Origin, check: HealthCheck) -> int:
            asked.append(origin.address or "")
            return 200

        fake.names["shop.test"] = ["10.0.0.1", "10.0.0.2"]
        async with closing(fake.set(NAMED, health_checks=(CHECK,), check_health=check_health)) as endpoints:
            assert len(await turns(endpoints)) == 2
            await until(lambda: len(fake.paused) == 2)
            fake.names["shop.test"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
            asked.clear()
            await fake.go_on()
            if "10.0.0.3" not in asked:
                assert len(await turns(endpoints)) == 2
                await fake.go_on()
            assert len(await turns(endpoints)) == 3

    run(main)


def test_a_name_is_looked_up_once_and_stands_for_all_its_addresses(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names["shop.test"] = ["10.0.0.2", "10.0.0.1"]
        async with closing(fake.set(NAMED)) as endpoints:
            assert endpoints.only_endpoint() is None
            first = await asyncio.gather(*(next_one(endpoints) for _ in range(10)))
            assert Counter(first) == {"10.0.0.1": 5, "10.0.0.2": 5}
            assert fake.asked == ["shop.test"]
            assert [each.origin.address for each in endpoints.endpoints] == ["10.0.0.1", "10.0.0.2"]
            assert {each.origin.host for each in endpoints.endpoints} == {"shop.test"}

    run(main)


def test_a_name_and_its_address_lead_to_the_upstream(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names |= {"one.test": ["127.0.0.1"], "two.test": ["127.0.0.1"]}
        async with shops(2) as (made, upstreams), clients() as client:
            one, two = (each.origin.port for each in upstreams)
            named = [Origin("http", "one.test", one), Origin("http", "two.test", two)]
            async with closing(fake.set(*named)) as endpoints:
                # The first answer may come alone.
                await send(endpoints, client)
                await until(lambda: len(endpoints.endpoints) == 2)
                before = [shop.answered for shop in made]
                assert [await send(endpoints, client) for _ in range(4)] == [200] * 4
                assert [shop.answered for shop in made] == [count + 2 for count in before]

    run(main)


def test_an_address_does_not_change_the_name_that_tls_verifies(run: Run) -> None:
    async def main() -> None:
        context = ssl.create_default_context(cafile=CERTIFICATE)
        async with serving(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"), tls=True) as upstream:
            client = HTTP11Client(contexts=TLSContexts(default=context))
            port = upstream.origin.port
            response = await client.send(Origin("https", "localhost", port, "127.0.0.1"), req())
            assert await whole(response) == b"ok"
            with pytest.raises(UpstreamConnectError, match="certificate"):
                await client.send(Origin("https", "shop.test", port, "127.0.0.1"), req())
            await client.aclose()

    run(main)


def test_a_changed_answer_counts_from_the_next_request_on_and_nobody_waits_for_it(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names["shop.test"] = ["10.0.0.1", "10.0.0.2"]
        async with closing(fake.set(NAMED, outlier_detection=OutlierDetection())) as endpoints:
            await next_one(endpoints)
            kept = endpoints.endpoints[1]
            fake.names["shop.test"] = ["10.0.0.2", "10.0.0.3"]
            fake.open.clear()
            turned = asyncio.ensure_future(fake.go_on())
            await until(lambda: len(fake.asked) == 2)
            assert set(await turns(endpoints)) == {"10.0.0.1", "10.0.0.2"}
            fake.open.set()
            await turned
            assert set(await turns(endpoints)) == {"10.0.0.2", "10.0.0.3"}
            assert endpoints.endpoints[0] is kept

    run(main)


@pytest.mark.parametrize("failure", [OSError("no such host"), UnicodeError("label too long"), ()])
def test_a_failing_look_up_keeps_the_last_answer(run: Run, failure: Any) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names["shop.test"] = ["10.0.0.1", "10.0.0.2"]
        async with closing(fake.set(NAMED)) as endpoints:
            await next_one(endpoints)
            fake.names["shop.test"] = failure
            await fake.go_on()
            await fake.go_on()
            assert len(await turns(endpoints)) == 2
            fake.names["shop.test"] = ["10.0.0.3"]
            await fake.go_on()
            assert endpoints.only_endpoint() == NAMED._replace(address="10.0.0.3")

    run(main)


def test_an_unknown_name_is_refused_at_once_and_not_looked_up_by_every_request(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names["shop.test"] = OSError("no such host")
        async with closing(fake.set(NAMED)) as endpoints:
            for _ in range(5):
                with pytest.raises(UpstreamConnectError, match=r"shop\.test: no address: no such host"):
                    await next_one(endpoints)
            assert fake.asked == ["shop.test"]
            fake.names["shop.test"] = ["10.0.0.1"]
            await fake.go_on()
            assert await next_one(endpoints) == "10.0.0.1"
            assert fake.paused == [1.0, 5.0]

    run(main)


def test_the_pause_grows_while_a_name_fails(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names["shop.test"] = OSError("no such host")
        async with closing(fake.set(NAMED)) as endpoints:
            with pytest.raises(UpstreamConnectError):
                await next_one(endpoints)
            for _ in range(6):
                await fake.go_on()
            assert fake.paused == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
            fake.names["shop.test"] = ["10.0.0.1"]
            await fake.go_on()
            # With addresses to go to, there is no hurry from the first failure on.
            fake.names["shop.test"] = OSError("no such host")
            for _ in range(4):
                await fake.go_on()
            assert fake.paused[7:] == [5.0, 5.0, 10.0, 20.0, 30.0]

    run(main)


def test_a_name_that_fails_delays_no_other_name_of_its_service(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names |= {"shop.test": ["10.0.0.1"], "gone.test": OSError("no such host")}
        async with closing(fake.set(NAMED, Origin("http", "gone.test", 80))) as endpoints:
            await next_one(endpoints)
            await until(lambda: len(fake.paused) == 2)
            for _ in range(3):
                await fake.go_on()
            assert sorted(fake.paused) == [5.0, 5.0, 5.0, 5.0, 5.0, 10.0, 20.0, 30.0]

    run(main)


def test_pauses_follow_the_interval_that_is_set(run: Run) -> None:
    assert [pause_after(count, 0.5, known=False) for count in (0, 1, 2, 9, 9999)] == [0.5, 0.5, 1.0, 30.0, 30.0]
    assert [pause_after(count, 60.0, known=True) for count in (0, 1, 2, 9999)] == [60.0] * 4
    assert [pause_after(count, 60.0, known=False) for count in (0, 1, 2, 9999)] == [60.0, 1.0, 2.0, 60.0]


def test_what_is_known_does_not_wait_for_a_name_that_is_not(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names |= {"shop.test": ["10.0.0.1"], "gone.test": OSError("no such host")}
        async with closing(fake.set(NAMED, Origin("http", "gone.test", 80), B)) as endpoints:
            assert set(await turns(endpoints)) == {"10.0.0.1", "10.0.0.2"}

    run(main)


def test_waiting_for_a_name_ends_with_the_deadline_or_the_time_for_a_connection(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.open.clear()
        now = asyncio.get_running_loop().time
        async with closing(fake.set(NAMED)) as endpoints:
            with pytest.raises(UpstreamTimeout):
                await endpoints.lease(None, now() + 0.02, 30.0)
            with pytest.raises(UpstreamConnectError, match="not looked up in time"):
                await endpoints.lease(None, now() + 30.0, 0.02)
            assert fake.asked == ["shop.test"]

    run(main)


def test_a_set_that_nobody_uses_rests_and_looks_again_when_it_is_used(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        checked: list[str] = []

        async def check_health(origin: Origin, check: HealthCheck) -> int:
            checked.append(origin.host)
            return 200

        fake.names["shop.test"] = ["10.0.0.1"]
        check = CHECK._replace(interval=IDLE_AFTER)
        async with closing(fake.set(NAMED, health_checks=(check,), check_health=check_health)) as endpoints:
            await next_one(endpoints)
            assert endpoints.only_endpoint() is not None
            await rested(fake, endpoints)
            fake.names["shop.test"] = ["10.0.0.2"]
            checked.clear()
            assert await next_one(endpoints) == "10.0.0.2"
            await until(lambda: checked)

    run(main)


def test_a_set_that_has_rested_falls_back_on_what_it_knew(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names["shop.test"] = ["10.0.0.1"]
        async with closing(fake.set(NAMED)) as endpoints:
            await next_one(endpoints)
            await rested(fake, endpoints)
            fake.names["shop.test"] = OSError("no such host")
            assert await next_one(endpoints) == "10.0.0.1"

    run(main)


async def rested(fake: FakeEnvironment, endpoints: EndpointSet) -> None:
    """Let so much time go by without requests that the background tasks end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    while not all(task.done() for task in tasks):
        await until(lambda: fake._pauses or all(task.done() for task in tasks))
        for pause in fake._pauses:
            if not pause.done():
                pause.set_result(None)
        fake._pauses.clear()
    assert len(asyncio.all_tasks()) == 1


def test_requests_keep_a_set_from_resting(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.names["shop.test"] = ["10.0.0.1"]
        async with closing(fake.set(NAMED)) as endpoints:
            await next_one(endpoints)
            for _ in range(2 * int(IDLE_AFTER / 5)):
                assert endpoints.only_endpoint() is not None
                await fake.go_on()

    run(main)


def test_closing_ends_what_goes_on_and_a_later_request_starts_it_again(run: Run) -> None:
    async def main() -> None:
        fake = FakeEnvironment()
        fake.open.clear()
        endpoints = fake.set(NAMED)
        waiting = asyncio.ensure_future(next_one(endpoints))
        await until(lambda: fake.asked)
        await endpoints.aclose()
        with pytest.raises(UpstreamConnectError):
            await waiting
        assert len(asyncio.all_tasks()) == 1
        fake.open.set()
        fake.names["shop.test"] = ["10.0.0.1"]
        assert await next_one(endpoints) == "10.0.0.1"
        await endpoints.aclose()
        await endpoints.aclose()
        await fake.health_checker.aclose()

    run(main)


def test_names_are_distinguished_from_addresses(run: Run) -> None:
    assert [is_looked_up(host) for host in ("shop", "shop.default.svc", "10.1", "1.2.3.4.example")] == [True] * 4
    assert [is_looked_up(host) for host in ("10.0.0.1", "::1", "localhost", "a.localhost")] == [False] * 4


def test_the_system_knows_its_own_name(run: Run) -> None:
    async def main() -> None:
        assert "127.0.0.1" in await resolve("localhost", 80)
        with pytest.raises(UnicodeError):
            await resolve("no..name", 80)

    run(main)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["::1", "10.0.0.1", "10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]),
        (["fd00::1", "fd00::2"], ["fd00::1", "fd00::2"]),
    ],
)
def test_ipv6_counts_only_where_there_is_no_ipv4(
    run: Run, monkeypatch: pytest.MonkeyPatch, found: list[str], expected: list[str]
) -> None:
    infos = [(socket.AF_INET6 if ":" in each else socket.AF_INET, 1, 6, "", (each, 80)) for each in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)

    async def main() -> None:
        assert await resolve("shop.test", 80) == expected

    run(main)
