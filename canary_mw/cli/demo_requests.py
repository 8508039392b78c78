"""The requests of the demo: batches of one kind each, sent over real connections."""

import asyncio
import logging
from collections.abc import Callable
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


class Batch(NamedTuple):
    """Requests of one kind, and the rule that they demonstrate."""

    rule: str
    headers: dict[str, str]
    requests: int


BATCHES = (Batch("weight: 20", {}, 2000), Batch("headers: gray: true", {"gray": "true"}, 200))


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
    headers = [("host", origin.authority), *batch.headers.items()]
    request = UpstreamRequest("demo", "GET", PATH.encode(), raw_headers(headers), timeout=10.0, replayable=True)
    numbers = iter(range(batch.requests))
    results: list[Result] = []

    async def worker() -> None:
        for _ in numbers:
            results.append(await send_request(client, origin, request))
            on_sent(1)

    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    return results


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
