"""Clients that ask in many ways at once. Each request has a token, and its answer must be the one that bears it."""

import asyncio
import contextlib
import itertools
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import echo
from servers import Answer
from standalone import Wire, wire_to
from upstream import until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus, WebSocketException

# Seconds that one client may take for one of its ways.
_PATIENCE = 30
_GRAY = b"gray: true"


class Wrong(Exception):
    """An answer is not the one to its request."""


class Traffic:
    """What clients did, and what became of it.

    Attributes:
        done: how often each way was gone to its end, by its name.
        answered: requests that got their own answers, by who answered.
        lost: one line for each way that went wrong.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.done: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.lost: list[str] = []
        self.random = random.Random(7)
        self.over = False
        self._serial = itertools.count()

    async def client(self, ways: "Mapping[Way, float]") -> None:
        """Go one of the ways after the other, each as often as its share, until it is over."""
        while not self.over:
            (way,) = self.random.choices([*ways], [*ways.values()])
            try:
                async with asyncio.timeout(_PATIENCE):
                    await way(self)
            except (Wrong, AssertionError, OSError, EOFError, WebSocketException) as exc:
                self.lost.append(f"{way.__name__}: {type(exc).__name__}: {exc}")
            else:
                self.done[way.__name__] += 1
            await asyncio.sleep(0.02 * self.random.random())

    async def each(self, ways: "Mapping[Way, float]", times: int) -> None:
        """Until every way was gone so often, or something was lost."""
        await until(lambda: self.lost or all(self.done[way.__name__] >= times for way in ways))

    def chance(self, share: float) -> bool:
        """True for that share of calls."""
        return self.random.random() < share

    def token(self) -> bytes:
        """One that no other request has."""
        return b"token-%08d" % next(self._serial)

    def body(self) -> bytes:
        """Of a length that has something special about it."""
        return self.random.randbytes(self.random.choice([0, 1, 500, 70_000, 300_000]))

    def check(self, token: bytes, answer: Answer, body: bytes = b"", *, who: str = "", method: str = "GET") -> None:
        """Whether an answer is whole and that to this request.

        Args:
            who: the only one that may have answered.
        """
        if answer.status != 200:
            raise Wrong(f"{token!r}: {answer.status} {answer.body[:200]!r}")
        if not answer.whole:
            raise Wrong(f"{token!r}: the answer was cut off")
        if answer.header("x-token") != token.decode():
            raise Wrong(f"{token!r} got the answer to {answer.header('x-token')}")
        if method != "HEAD":
            self._check_body(token, answer, body, who)

    def _check_body(self, token: bytes, answer: Answer, body: bytes, who: str) -> None:
        said = json.loads(answer.body)
        if answer.body != echo.answer(said["who"], token.decode(), body):
            raise Wrong(f"{token!r}: the answer is {said}")
        if who and said["who"] != who:
            raise Wrong(f"{token!r}: {said['who']} answered, not {who}")
        self.answered[said["who"]] += 1


Way = Callable[[Traffic], Awaitable[None]]


@contextlib.asynccontextmanager
async def traffic(port: int, ways: Mapping[Way, float], clients: int) -> AsyncIterator[Traffic]:
    """Clients at work until the block ends."""
    made = Traffic(port)
    tasks = [asyncio.create_task(made.client(ways)) for _ in range(clients)]
    try:
        yield made
    finally:
        made.over = True
        await asyncio.gather(*tasks)


def request(method: bytes, target: bytes, token: bytes, *lines: bytes) -> bytes:
    """The head of a request."""
    head = [b"%b %b%b HTTP/1.1" % (method, target, token), b"host: shop.example", b"x-token: " + token, *lines]
    return b"\r\n".join([*head, b"", b""])


# The ways.


async def reads(traffic: Traffic) -> None:
    """Some requests over one connection, each after the answer to the one before."""
    async with wire_to(traffic.port) as wire:
        for _ in range(traffic.random.randint(3, 12)):
            method = "HEAD" if traffic.chance(0.1) else "GET"
            gray, token = traffic.chance(0.3), traffic.token()
            await wire.ask(request(method.encode(), b"/read/", token, *([_GRAY] if gray else [])))
            answer = await wire.answer(method)
            traffic.check(token, answer, who="gray" if gray else "", method=method)
            # Servers for WSGI may end the connection behind an answer without a body, and do not say so.
            if method == "HEAD" or answer.header("connection") == "close":
                return


async def last_reads(traffic: Traffic) -> None:
    """One request over a connection that ends with its answer."""
    async with wire_to(traffic.port) as wire:
        token = traffic.token()
        await wire.ask(request(b"GET", b"/read/", token, b"connection: close"))
        traffic.check(token, await wire.answer())


async def pipelines(traffic: Traffic) -> None:
    """Requests that do not wait for the answers to those before them."""
    tokens = [traffic.token() for _ in range(8)]
    targets = [b"/slow/" if traffic.chance(0.02) else b"/read/" for _ in tokens]
    async with wire_to(traffic.port) as wire:
        await wire.ask(b"".join(request(b"GET", *each) for each in zip(targets, tokens, strict=True)))
        for token in tokens:
            answer = await wire.answer()
            traffic.check(token, answer)
            if answer.header("connection") == "close":
                return


async def uploads(traffic: Traffic) -> None:
    """Bodies with their length."""
    token, body = traffic.token(), traffic.body()
    method = b"PUT" if traffic.chance(0.5) else b"POST"
    async with wire_to(traffic.port) as wire:
        await wire.ask(request(method, b"/upload/", token, b"content-length: %d" % len(body), *_some_gray(traffic)))
        await wire.ask(body)
        traffic.check(token, await wire.answer(), body)


async def chunked_uploads(traffic: Traffic) -> None:
    """Bodies in chunks."""
    token, body = traffic.token(), traffic.body()
    async with wire_to(traffic.port) as wire:
        await wire.ask(request(b"POST", b"/upload/", token, b"transfer-encoding: chunked", *_some_gray(traffic)))
        for start in range(0, len(body), 9000):
            chunk = body[start : start + 9000]
            await wire.ask(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        await wire.ask(b"0\r\n\r\n")
        traffic.check(token, await wire.answer(), body)


async def streams(traffic: Traffic) -> None:
    """Long answers from the gray version."""
    token = traffic.token()
    async with wire_to(traffic.port) as wire:
        await wire.ask(request(b"GET", b"/stream/", token, _GRAY))
        answer = await wire.answer()
    if answer.status != 200 or not answer.whole or answer.body != token * echo.REPEATS * echo.CHUNKS:
        raise Wrong(
            f"{token!r}: {answer.status}, {len(answer.body)} bytes, of which the first are {answer.body[:40]!r}"
        )


async def leaves(traffic: Traffic) -> None:
    """A client that does not wait for its answer."""
    async with wire_to(traffic.port) as wire:
        await wire.ask(request(b"GET", b"/slow/", traffic.token(), _GRAY))
        await asyncio.sleep(0.1 * traffic.random.random())


async def aborts(traffic: Traffic) -> None:
    """A client that resets its connection within its upload."""
    body = traffic.random.randbytes(traffic.random.randint(0, 90_000))
    async with wire_to(traffic.port) as wire:
        with contextlib.suppress(ConnectionError):
            await wire.ask(request(b"POST", b"/upload/", traffic.token(), b"content-length: 100000", _GRAY) + body)
        _reset(wire)


def _reset(wire: Wire) -> None:
    sock = wire.writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.writer.transport.abort()


async def websockets(traffic: Traffic) -> None:
    """Some messages to the gray version, each after the answer to the one before."""
    await _talk(traffic, "/ws/", {"gray": "true"})


async def local_websockets(traffic: Traffic) -> None:
    """The same to the app in the process of the middleware."""
    await _talk(traffic, "/local/ws/", {})


async def _talk(traffic: Traffic, path: str, headers: dict[str, str]) -> None:
    """The other side may end the connection, if it says so."""
    where = f"ws://127.0.0.1:{traffic.port}{path}"
    try:
        async with connect(where, additional_headers=headers, compression=None, proxy=None) as websocket:
            await _exchange(traffic, websocket)
    except InvalidStatus as exc:
        raise Wrong(f"{exc.response.status_code} {exc.response.body!r}") from exc


async def _exchange(traffic: Traffic, websocket: ClientConnection) -> None:
    for _ in range(4):
        message = traffic.token().decode()
        try:
            await websocket.send(message)
            answer = await websocket.recv()
        except ConnectionClosedOK:
            return
        except ConnectionClosedError as exc:
            raise Wrong(f"{message}: the WebSocket was ended: {exc}") from exc
        if answer != message:
            raise Wrong(f"{message}: the answer was {answer!r}")


def _some_gray(traffic: Traffic) -> list[bytes]:
    return [_GRAY] if traffic.chance(0.3) else []
