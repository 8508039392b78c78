"""The target of our HTTP client: what an upstream answers to it; see `plans`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

from canary_mw.client.aio.client import HTTP11Client, HTTP11Response
from canary_mw.client.aio.connection import HIGH_WATER, Connection
from canary_mw.client.limits import Limits
from canary_mw.exceptions import UpstreamConnectError, UpstreamProtocolError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.framing import well_formed
from canary_mw.rules.upstream import Origin

from . import strict
from .pipes import Pipe, cut, deliver, settled
from .plans import endless, planned

# With its address: a name would be looked up before the connection to a pipe is made.
ORIGIN = Origin("http", "up.test", 80, "127.0.0.1")


class Outcome(NamedTuple):
    """What a caller learned of an answer.

    Attributes:
        failed: name of the error that ended it, or None.
    """

    failed: str | None
    status: int | None = None
    headers: strict.Headers = ()
    body: bytes = b""


@asynccontextmanager
async def upstream(max_head: int) -> AsyncIterator[tuple[HTTP11Client, list[Pipe]]]:
    """A client of ours whose connections lead to pipes."""
    pipes: list[Pipe] = []

    async def connect(factory: Callable[[], Connection], *_: object, **__: object) -> tuple[Pipe, Connection]:
        connection = factory()
        pipe = Pipe(connection)
        pipes.append(pipe)
        connection.connection_made(pipe)
        return pipe, connection

    setattr(asyncio.get_running_loop(), "create_connection", connect)  # noqa: B010 - a method is not assigned to
    client = HTTP11Client(limits=Limits(max_head=max_head))
    try:
        yield client, pipes
    finally:
        await client.aclose()


def asking(method: str) -> UpstreamRequest:
    return UpstreamRequest("up", method, b"/", [(b"host", b"up")], timeout=None, connect_timeout=float("inf"))


async def ask(method: str, segments: Iterator[bytes], rest: bytes) -> Outcome:
    """Ask, and read all of the answer.

    Args:
        rest: what of the data is behind the answer: then the connection must not be used again.
    """
    async with upstream(max_head=1 << 20) as (client, pipes):
        task = asyncio.create_task(read_all(client, method))
        await settled(lambda: bool(pipes))
        (pipe,) = pipes
        await asyncio.sleep(0)
        await deliver(pipe, segments)
        await settled(task.done, 10)
        assert not rest or pipe.is_closing(), "a connection with bytes that nobody asked for is kept"
        pipe.leave()
        await settled(task.done)
        assert task.done(), "the upstream has closed, and the waiting request was not notified"
        return task.result()


async def read_all(client: HTTP11Client, method: str) -> Outcome:
    try:
        response = await client.send(ORIGIN, asking(method))
    except (UpstreamProtocolError, UpstreamConnectError) as exc:
        return Outcome(type(exc).__name__)
    status, headers = response.head.status, tuple(response.head.headers)
    assert well_formed(*zip(*headers, strict=True)) if headers else True
    body = b""
    try:
        while chunk := await response.read():
            body += chunk
    except UpstreamProtocolError as exc:
        return Outcome(type(exc).__name__, status, headers)
    finally:
        response.close()
    return Outcome(None, status, headers, body)


async def ask_without_reading(method: str, segments: Iterator[bytes]) -> None:
    """Ask, and take nothing of the body: what is kept of it must have a limit."""
    limit = 4096
    async with upstream(limit) as (client, pipes):
        task = asyncio.create_task(client.send(ORIGIN, asking(method)))
        await settled(lambda: bool(pipes))
        (pipe,) = pipes
        await asyncio.sleep(0)
        connection = cast(Connection, pipe.protocol)
        for segment in segments:
            if pipe.paused or pipe.is_closing():
                break
            connection.data_received(segment)
            head = connection.head.headers if connection.head else connection._headers
            assert sum(len(name) + len(value) for name, value in head) <= limit + 2 * len(segment)
            assert sum(map(len, connection._chunks)) <= HIGH_WATER + 2 * len(segment)
            await asyncio.sleep(0)
        else:
            assert task.done(), "an answer without end, and nobody stops it"
        pipe.leave()
        await settled(task.done)
        _closed(task)


def _closed(task: "asyncio.Task[HTTP11Response]") -> None:
    if not isinstance(task.exception(), UpstreamProtocolError | UpstreamConnectError | None):
        task.result()
    if task.exception() is None:
        task.result().close()


def upstream_answers(data: bytes) -> None:
    """What an upstream answers, to our client.

    It ends in a clean answer, the one that a strict parser reads, or in an `UpstreamProtocolError` or
    `UpstreamConnectError`; the segments make no difference; a connection with bytes behind the answer is not kept.
    """
    flags, step, sent = planned(data)
    method = "HEAD" if flags & 1 else "GET"
    if flags & 2:
        asyncio.run(ask_without_reading(method, endless(sent)))
        return
    judge = judged(sent, method)
    rest = sent[judge.end :].strip(b"\r\n") if judge else b""
    whole = asyncio.run(ask(method, cut(sent, 0), rest))
    segmented = asyncio.run(ask(method, cut(sent, step), rest))
    assert whole == segmented
    if whole.failed is None:
        assert judge is not None, "an answer that is none"
        assert (b"%d" % (whole.status or 0), whole.headers, whole.body) == (judge.line[1], judge.headers, judge.body)


def judged(data: bytes, method: str) -> strict.Message | None:
    """The answer as the strict parser reads it, if it is one."""
    try:
        return strict.answer(data, method.encode())
    except (strict.Unclear, strict.Incomplete):
        return None
