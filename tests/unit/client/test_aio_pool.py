"""The connection pool: who gets which connection, who waits, and that no slot is lost."""

import asyncio
import math
import random
import ssl
from collections.abc import Sequence
from contextlib import aclosing

import pytest
from upstream import (
    CERTIFICATE,
    OK,
    ON_BOTH_LOOPS,
    WITH_EVERY_CLIENT,
    Peer,
    Run,
    forever,
    get,
    req,
    serving,
    silent,
    until,
)

from canary_mw.client import idle
from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.held import Held
from canary_mw.client.limits import Limits
from canary_mw.client.tls import TLSContexts
from canary_mw.exceptions import UpstreamConnectError, UpstreamOverloaded, UpstreamProtocolError, UpstreamTimeout
from canary_mw.http.messages import BodyFraming
from canary_mw.rules.upstream import CircuitBreakers, Origin, UpstreamOptions

# Connecting


@WITH_EVERY_CLIENT
@pytest.mark.parametrize("host", ["127.0.0.1", "x" * 64 + ".invalid"])
def test_no_connection_is_a_connect_error_and_nothing_was_sent(run: Run, host: str) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            closed_port = upstream.origin.port
        async with aclosing(run.client()) as client:
            for _ in range(2):
                with pytest.raises(UpstreamConnectError, match=f"{host}:{closed_port}: cannot connect") as caught:
                    await client.send(Origin("http", host, closed_port), req(replayable=True))
                assert not caught.value.sent

    run(main)


@WITH_EVERY_CLIENT
def test_an_upstream_over_tls_is_verified(run: Run) -> None:
    async def main() -> None:
        trusting = ssl.create_default_context(cafile=CERTIFICATE)
        async with serving(forever, tls=True) as upstream:
            async with aclosing(run.client(contexts=TLSContexts(default=trusting))) as client:
                for _ in range(3):
                    assert await get(client, upstream) == b"1"
            async with aclosing(run.client()) as client:
                with pytest.raises(UpstreamConnectError, match="cannot connect"):
                    await client.send(upstream.origin, req())

    run(main)


@WITH_EVERY_CLIENT
def test_an_upstream_that_does_not_speak_tls_is_a_connect_error(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"SSH-2.0-OpenSSH_9.2\r\n")
        await peer.gone()

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            with pytest.raises(UpstreamConnectError):
                await client.send(upstream.origin._replace(scheme="https"), req())

    run(main)


@WITH_EVERY_CLIENT
def test_a_connection_that_takes_too_long_is_a_connect_error_or_at_the_deadline_a_timeout(run: Run) -> None:
    async def main() -> None:
        async with serving(Peer.gone) as upstream, aclosing(run.client()) as client:
            origin = upstream.origin._replace(scheme="https")
            with pytest.raises(UpstreamConnectError, match=r"no connection within 0\.02 s"):
                await client.send(origin, req(connect_timeout=0.02))
            with pytest.raises(UpstreamTimeout, match="while connecting"):
                await client.send(origin, req(timeout=0.02, connect_timeout=30.0))
            await until(lambda: not upstream.scripts)

    run(main)


@ON_BOTH_LOOPS
def test_cancelling_while_connecting_frees_the_slot(run: Run) -> None:
    async def main() -> None:
        limits = Limits(max_connections=1, max_pending=0)
        async with serving(Peer.gone) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            for attempt in (1, 2, 3):
                task = asyncio.ensure_future(client.send(upstream.origin._replace(scheme="https"), req()))
                await until(lambda attempt=attempt: upstream.accepted == attempt)  # type: ignore[misc]
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await until(lambda: not upstream.scripts)

    run(main)


# Stale connections


@WITH_EVERY_CLIENT
def test_a_stale_connection_is_retried_once_on_a_fresh_one(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"%d" % peer.number)
        await peer.request()
        peer.reset()

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            for number in (b"1", b"2", b"3"):
                assert await get(client, upstream, req(replayable=True)) == number

    run(main)


@WITH_EVERY_CLIENT
def test_the_second_attempt_is_the_last(run: Run) -> None:
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.request()
            await peer.answer()
        await peer.request()

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            await get(client, upstream)
            with pytest.raises(UpstreamConnectError, match="lost before a response"):
                await client.send(upstream.origin, req(replayable=True))
            assert upstream.accepted == 2

    run(main)


@WITH_EVERY_CLIENT
def test_a_request_that_may_have_been_executed_is_never_sent_twice(run: Run) -> None:
    executed = []

    async def script(peer: Peer) -> None:
        executed.append(await peer.request())
        await peer.answer()
        executed.append(await peer.request())

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            await get(client, upstream)
            with pytest.raises(UpstreamConnectError) as caught:
                await client.send(upstream.origin, req("POST", body=BodyFraming(2)), b"hi")
            assert caught.value.sent

    run(main)
    assert [seen.line for seen in executed] == [b"GET / HTTP/1.1", b"POST / HTTP/1.1"]


@WITH_EVERY_CLIENT
def test_a_reused_connection_that_began_to_answer_is_not_retried(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.request()
        await peer.send(OK)

    async def main() -> None:
        async with serving(script) as upstream, aclosing(run.client()) as client:
            await get(client, upstream)
            with pytest.raises(UpstreamProtocolError):
                await client.send(upstream.origin, req(replayable=True))
            assert upstream.accepted == 1

    run(main)


@ON_BOTH_LOOPS
def test_a_connection_that_the_upstream_closed_while_idle_is_forgotten(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"%d" % peer.number)

    async def main() -> None:
        async with serving(script) as upstream, aclosing(HTTP11Client()) as client:
            for number in (b"1", b"2", b"3"):
                assert await get(client, upstream) == number
                await until(lambda: not client._pools)

    run(main)


# Idle connections


@ON_BOTH_LOOPS
@pytest.mark.parametrize("keepalive_expiry", [0.0, 0.05])
def test_idle_connections_are_closed_after_their_time(run: Run, keepalive_expiry: float) -> None:
    async def main() -> None:
        limits = Limits(keepalive_expiry=keepalive_expiry)
        async with serving(forever) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            await asyncio.gather(*(get(client, upstream) for _ in range(3)))
            await asyncio.sleep(keepalive_expiry / 2)
            await get(client, upstream)
            await until(lambda: not upstream.scripts)
            assert not client._pools

    run(main)


@ON_BOTH_LOOPS
def test_a_fresh_connection_takes_the_slot_of_an_idle_one(run: Run) -> None:
    async def main() -> None:
        limits = Limits(max_connections=1)
        async with serving(forever) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            assert await get(client, upstream) == b"1"
            connection = await client._pool(upstream.origin).acquire(math.inf, 30.0, fresh=True)
            assert not connection.reused
            connection.release()
            assert await get(client, upstream) == b"3"

    run(main)


@WITH_EVERY_CLIENT
@pytest.mark.parametrize(("rest", "taken"), [(math.inf, 3), (0.0, 1)])
def test_the_idle_connection_that_rested_longest_is_taken_unless_others_have_rested_enough(
    run: Run, rest: float, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        met = asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            if upstream.accepted == 3:
                met.set()
            await met.wait()
            await peer.answer()
            await forever(peer)

        async with serving(script) as upstream, aclosing(run.client()) as client:
            await asyncio.gather(*(get(client, upstream) for _ in range(3)))
            first = [await get(client, upstream) for _ in range(3)]
            assert len(set(first)) == taken
            # What was released first is taken first.
            assert [await get(client, upstream) for _ in range(3)] == first
            assert upstream.accepted == 3

    monkeypatch.setattr(idle, "REST", rest)
    run(main)


# Waiting


@ON_BOTH_LOOPS
def test_requests_beyond_the_limit_wait_in_order(run: Run) -> None:
    async def main() -> None:
        order: list[int] = []

        async def one(number: int) -> None:
            assert await get(client, upstream) in (b"1", b"2")
            order.append(number)

        limits = Limits(max_connections=2)
        async with serving(forever) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            await asyncio.gather(*(one(number) for number in range(20)))
            assert upstream.accepted == 2
        assert sorted(order[:4]) == [0, 1, 2, 3]
        assert sorted(order) == list(range(20))

    run(main)


@ON_BOTH_LOOPS
def test_too_many_waiting_requests_are_refused_and_the_others_reach_their_deadline(run: Run) -> None:
    async def main() -> None:
        limits = Limits(max_connections=1, max_pending=2)
        async with serving(silent) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            first = asyncio.ensure_future(client.send(upstream.origin, req()))
            await until(lambda: upstream.accepted == 1)
            waiting = [asyncio.ensure_future(client.send(upstream.origin, req(timeout=0.05))) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(UpstreamConnectError, match="too many requests waiting"):
                await client.send(upstream.origin, req())
            for task in waiting:
                with pytest.raises(UpstreamTimeout, match="waiting for a free connection") as caught:
                    await task
                assert not caught.value.sent
            assert not client._pool(upstream.origin)._waiters
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first

    run(main)


@ON_BOTH_LOOPS
def test_under_circuit_breakers_a_request_that_opens_its_connection_is_pending_too(run: Run) -> None:
    async def main() -> None:
        options = UpstreamOptions(circuit_breakers=CircuitBreakers(max_connections=0, max_pending_requests=1))
        async with serving(forever) as upstream, aclosing(HTTP11Client()) as client:
            both = [get(client, upstream, req(options=options)) for _ in range(2)]
            one, other = await asyncio.gather(*both, return_exceptions=True)
            assert one == b"1"
            assert isinstance(other, UpstreamOverloaded)
            assert await get(client, upstream, req(options=options)) == b"1"
            # Requests without circuit breakers have connections of their own.
            assert await get(client, upstream) == b"2"

    run(main)


@WITH_EVERY_CLIENT
def test_circuit_breakers_do_not_raise_the_limits_of_the_client(run: Run) -> None:
    async def main() -> None:
        options = UpstreamOptions(circuit_breakers=CircuitBreakers(max_connections=9))
        limits = Limits(max_connections=1, max_pending=9)
        async with serving(forever) as upstream, aclosing(run.client(limits=limits)) as client:
            await asyncio.gather(*(get(client, upstream, req(options=options)) for _ in range(5)))
            assert upstream.accepted == 1

    run(main)


@WITH_EVERY_CLIENT
def test_a_slot_that_becomes_free_goes_to_the_one_who_waits(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"%d" % peer.number, b"connection: close")

    async def main() -> None:
        limits = Limits(max_connections=1)
        async with serving(script) as upstream, aclosing(run.client(limits=limits)) as client:
            answers = await asyncio.gather(*(get(client, upstream) for _ in range(5)))
            assert sorted(answers) == [b"1", b"2", b"3", b"4", b"5"]

    run(main)


@ON_BOTH_LOOPS
def test_what_is_held_of_an_origin_is_told_also_under_several_limits(run: Run) -> None:
    go = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await go.wait()
        await peer.answer()
        await forever(peer)

    async def main() -> None:
        go.clear()
        limited = UpstreamOptions(circuit_breakers=CircuitBreakers(max_connections=5))
        limits = Limits(max_connections=1)
        async with serving(script) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            assert client.held() == {}
            requests = [*(get(client, upstream) for _ in range(3)), get(client, upstream, req(options=limited))]
            asked = asyncio.gather(*requests)
            await until(lambda: client.held() == {upstream.origin: Held(2, 2)})
            go.set()
            await asked
            assert client.held() == {upstream.origin: Held(2, 0)}

    run(main)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("grant", ["connection", "slot", "dead connection"])
def test_what_a_cancelled_waiter_was_just_given_goes_to_the_next(run: Run, grant: str) -> None:
    async def main() -> None:
        limits = Limits(max_connections=1)
        async with serving(forever) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            pool = client._pool(upstream.origin)
            connection = await pool.acquire(math.inf, 30.0)
            unlucky, last = (asyncio.ensure_future(get(client, upstream)) for _ in range(2))
            await until(lambda: len(pool._waiters) == 2)
            if grant != "slot":
                pool.release(connection)
            unlucky.cancel()
            if grant != "connection":
                connection.fail(UpstreamConnectError("cut"))
            assert await last == (b"1" if grant == "connection" else b"2")
            with pytest.raises(asyncio.CancelledError):
                await unlucky
            assert pool._size == 1

    run(main)


@ON_BOTH_LOOPS
def test_a_connection_that_dies_on_its_way_to_a_waiter_is_replaced(run: Run) -> None:
    async def main() -> None:
        limits = Limits(max_connections=1)
        async with serving(forever) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            pool = client._pool(upstream.origin)
            connection = await pool.acquire(math.inf, 30.0)
            waiting = asyncio.ensure_future(get(client, upstream))
            await until(lambda: pool._waiters)
            pool.release(connection)
            connection.fail(UpstreamConnectError("cut"))
            assert await waiting == b"2"

    run(main)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("seed", range(3))
def test_random_cancellation_loses_no_slot(run: Run, seed: int) -> None:
    async def main() -> None:
        rng = random.Random(seed)
        together = 3
        barrier: list[asyncio.Event] = []

        async def script(peer: Peer) -> None:
            while True:
                line = (await peer.request()).line
                if b"/meet" in line:
                    barrier.append(met := asyncio.Event())
                    if len(barrier) == together:
                        for event in barrier:
                            event.set()
                    await met.wait()
                elif b"/close" in line:
                    return await peer.answer(b"bye", b"connection: close")
                await peer.answer()

        limits = Limits(max_connections=together)
        async with serving(script) as upstream, aclosing(HTTP11Client(limits=limits)) as client:
            for _ in range(60):
                targets = rng.choices([b"/", b"/close"], k=12)
                tasks = [asyncio.ensure_future(get(client, upstream, req(target=target))) for target in targets]
                for _ in range(rng.randrange(12)):
                    await asyncio.sleep(0)
                    rng.choice(tasks).cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(result) for result in results} <= {bytes, asyncio.CancelledError}
            # All slots are there still: fewer than `together` at once would wait for each other for ever.
            await asyncio.gather(*(get(client, upstream, req(target=b"/meet")) for _ in range(together)))
            assert client._pool(upstream.origin)._size == together

    run(main)


# The end


@ON_BOTH_LOOPS
def test_closing_the_client_ends_every_exchange_and_every_wait(run: Run) -> None:
    async def main() -> None:
        async with serving(silent) as upstream:
            client = HTTP11Client(limits=Limits(max_connections=2))
            tls = upstream.origin._replace(scheme="https")
            tasks = [asyncio.ensure_future(client.send(upstream.origin, req())) for _ in range(4)]
            tasks.append(asyncio.ensure_future(client.send(tls, req())))
            await until(lambda: upstream.accepted == 3)
            await client.aclose()
            await client.aclose()
            assert await client_closed(tasks[:4])
            tasks[4].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[4]
            with pytest.raises(UpstreamConnectError, match="was closed"):
                await client.send(upstream.origin, req())

    run(main)


@ON_BOTH_LOOPS
def test_closing_the_client_refuses_a_connection_that_is_just_being_opened(run: Run) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            client = HTTP11Client()
            task = asyncio.ensure_future(client.send(upstream.origin, req()))
            await asyncio.sleep(0)
            await client.aclose()
            assert await client_closed([task])
            await until(lambda: not upstream.scripts)
            await client.aclose()

    run(main)


async def client_closed(tasks: "Sequence[asyncio.Task[object]]") -> bool:
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return all(isinstance(result, UpstreamConnectError) and "was closed" in str(result) for result in results)
