"""The requests of the demo: batches of one kind each, sent over real connections."""

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from random import Random
from time import perf_counter
from typing import NamedTuple

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import raw_headers
from canary_mw.rules.upstream import Origin

logger = logging.getLogger("canary_mw.demo")

PATH = "/svc/"
CONCURRENCY = 8


# Users of the demo, told by this header.
USERS = 1000
KEY = "x-user-id"
# Requests a second that go on after the batches, and how many of them may wait for an answer.
RATE = 100
MOST_WAITING = 64
SEED = 2026


class Batch(NamedTuple):
    """Requests of one kind, and the rule that they demonstrate.

    Attributes:
        by_users: whether they are those of the users, one after the other.
    """

    rule: str
    headers: dict[str, str]
    requests: int
    by_users: bool = False


BATCHES = (Batch("setWeight: 20", {}, 2000, by_users=True), Batch("headers: gray: true", {"gray": "true"}, 200))


class Result(NamedTuple):
    """The service that answered a request, None where it failed, and the seconds that it took."""

    service: str | None
    seconds: float


async def send_batch(
    client: HTTP11Client, origin: Origin, batch: Batch, on_sent: Callable[[int], None]
) -> list[Result]:
    """Send the requests of a batch, `CONCURRENCY` at a time.

    Args:
        on_sent: called with 1 after each request.
    """
    numbers = iter(range(batch.requests))
    results: list[Result] = []

    async def worker() -> None:
        for number in numbers:
            user = {KEY: user_name(number)} if batch.by_users else {}
            results.append(await send_request(client, origin, request_of(origin, {**batch.headers, **user})))
            on_sent(1)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return results


def user_name(number: int) -> str:
    """One of the users."""
    return f"user-{number % USERS}"


def request_of(origin: Origin, headers: dict[str, str]) -> UpstreamRequest:
    """A request of the demo."""
    lines = raw_headers([("host", origin.authority), *headers.items()])
    return UpstreamRequest("demo", "GET", PATH.encode(), lines, timeout=10.0, replayable=True)


async def keep_sending(client: HTTP11Client, origin: Origin) -> None:
    """Send requests of the users, drawn with a fixed seed, `RATE` a second until it is cancelled."""
    drawn, free = Random(SEED), asyncio.Semaphore(MOST_WAITING)
    started_at = perf_counter()

    async def one(user: int) -> None:
        try:
            await send_request(client, origin, request_of(origin, {KEY: user_name(user)}))
        finally:
            free.release()

    async with asyncio.TaskGroup() as group:
        for number in count():
            await asyncio.sleep(started_at + number / RATE - perf_counter())
            await free.acquire()
            group.create_task(one(drawn.randrange(USERS)))


async def send_request(client: HTTP11Client, origin: Origin, request: UpstreamRequest) -> Result:
    """Send a request and read its response; a failure is logged."""
    started_at = perf_counter()
    body = b""
    try:
        response = await client.send(origin, request)
        while chunk := await response.read():
            body += chunk
    except UpstreamError as exc:
        logger.warning("a request failed: %s", exc)
        return Result(None, perf_counter() - started_at)
    if response.head.status != 200:
        logger.warning("a request was answered %d: %s", response.head.status, body.decode(errors="replace").strip())
        return Result(None, perf_counter() - started_at)
    return Result(body.split()[0].decode(), perf_counter() - started_at)
