"""The target of the standalone server's protocol: what a client sends to it; see `plans`."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

from canary_mw.http.framing import MAX_FIELDS, MAX_HEAD, check_head
from canary_mw.http.response_writer import ERROR_RESPONSES
from canary_mw.server.protocol import GuardedProtocol
from canary_mw.types import Message, Receive, Scope, Send

from . import strict
from .pipes import Pipe, cut, deliver, settled
from .plans import SEGMENT, endless, planned


@dataclass
class Notes:
    """An app, and what it has seen.

    Attributes:
        whole: the requests whose body it got to the end.
        begun: methods of all requests that it was asked.
        asked: bytes of the upgrade requests that were handed to a websocket protocol.
    """

    wild: bool = False
    asleep: bool = False
    whole: list[tuple[Scope, bytes]] = field(default_factory=list)
    begun: list[bytes] = field(default_factory=list)
    asked: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_clean(scope)
        self.begun.append(scope["method"].encode())
        if self.asleep:
            await asyncio.get_running_loop().create_future()
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
            if self.wild and len(body) % 3 == 1:
                break
        if not message["more_body"]:
            self.whole.append((scope, body))
        await (misbehave(len(self.begun), send) if self.wild else answer(send, b"%d" % len(body)))


async def answer(send: Send, body: bytes) -> None:
    sized = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": sized})
    await send({"type": "http.response.body", "body": body})


async def misbehave(number: int, send: Send) -> None:
    """What apps do wrong, one thing after the other."""
    faults: list[list[Message]] = [
        [],
        [{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": b"a"}],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "more_body": True}],
        [{"type": "http.response.start", "status": 204, "headers": [(b"x", b"a\r\nb")]}],
        [{"type": "http.response.body", "body": b"a"}],
    ]
    for message in faults[number % len(faults)]:
        await send(message)
        await asyncio.sleep(0)


def check_clean(scope: Scope) -> None:
    """Raise unless a request is one that a strict parser reads as the same, and no header can end its line early."""
    headers = scope["headers"]
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    check_head(scope["method"], target, headers, scope["http_version"])
    assert len(headers) <= MAX_FIELDS
    line = b"%b %b HTTP/%b" % (scope["method"].encode(), target, scope["http_version"].encode())
    head = b"\r\n".join([line, *(b"%b: %b" % pair for pair in headers), b"", b""])
    assert len(head) <= MAX_HEAD + 64
    sized = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
    try:
        read = strict.request(head)
    except strict.Incomplete:
        assert sized
    else:
        assert read.headers == tuple(headers), head


class Websocket(asyncio.Protocol):
    """Takes the place of the websocket protocol of uvicorn."""

    def __init__(self, config: object, server_state: object, app_state: dict[str, Any]) -> None:
        self._notes: Notes = app_state["notes"]
        self._handed = False

    def data_received(self, data: bytes) -> None:
        if not self._handed:
            self._notes.asked.append(data)
        self._handed = True


@cache
def guard_config(*, websockets: bool) -> uvicorn.Config:
    config = uvicorn.Config(answer, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False)
    config.load()
    config.ws_protocol_class = Websocket if websockets else None
    return config


class Outcome(NamedTuple):
    """What came of the bytes of a client."""

    app: Notes
    statuses: list[bytes]
    written: bytes


async def serve(app: Notes, segments: Iterator[bytes], *, websockets: bool) -> tuple[Pipe, GuardedProtocol]:
    """Feed a connection of the server, and leave it when all is answered that can be."""
    state = ServerState()
    protocol = GuardedProtocol(guard_config(websockets=websockets), state, {"notes": app})
    protocol.app = app
    pipe = Pipe(protocol)
    protocol.connection_made(pipe)
    await deliver(pipe, segments, read=not app.asleep)
    await quiet(pipe, app)
    check_kept(protocol)
    pipe.leave()
    if app.asleep:
        for task in state.tasks:
            task.cancel()
    await settled(lambda: not state.tasks)
    assert not state.tasks, "the client has disconnected, and its app was not notified"
    return pipe, protocol


async def quiet(pipe: Pipe, app: Notes) -> None:
    """Until for some turns nothing new is written or asked."""
    still, before = 0, (-1, -1)
    while still < 6:
        now = (len(pipe.written), len(app.begun))
        still, before = (still + 1 if now == before else 0), now
        await asyncio.sleep(0)


def check_kept(protocol: GuardedProtocol) -> None:
    """Raise if the protocol holds more of what it was sent than its limits let it."""
    cycles = [cycle for cycle, _ in protocol.pipeline]
    if protocol.cycle is not None:
        cycles.append(protocol.cycle)
    bodies = sum(len(cycle.body) for cycle in cycles)
    assert bodies <= HIGH_WATER_LIMIT + 2 * SEGMENT
    head = sum(len(name) + len(value) for name, value in protocol.headers or ())
    assert head + len(getattr(protocol, "url", b"")) <= MAX_HEAD + 2 * SEGMENT


def run_client(data: bytes, step: int, *, wild: bool = False, websockets: bool = False) -> Outcome:
    """Serve a client that sends the data in segments."""
    app = Notes(wild=wild)
    pipe, _ = asyncio.run(serve(app, cut(data, step), websockets=websockets))
    written = bytes(pipe.written)
    return Outcome(app, [] if wild else statuses(written, app.begun), written)


def statuses(written: bytes, methods: list[bytes]) -> list[bytes]:
    """Statuses of the answers: one for each request at most, and behind them one refusal at most."""
    found: list[bytes] = []
    at = 0
    # A client may disconnect after 100 Continue.
    written = written.removesuffix(b"HTTP/1.1 100 Continue\r\n\r\n")
    while at < len(written):
        # A refusal has its text even for HEAD: nothing comes behind it.
        known = len(found) < len(methods) and written[at:] not in ERROR_RESPONSES.values()
        message = strict.answer(written, methods[len(found)] if known else b"GET", at)
        found.append(message.line[1])
        at = message.end
    assert len(found) <= len(methods) + 1, "more answers than requests"
    assert all(status == b"200" for status in found[:-1])
    if len(found) > len(methods):
        assert found[-1] in (b"400", b"408", b"431")
    return found


def guard(data: bytes) -> None:
    """What a client sends, to the standalone server's protocol.

    No exception escapes; the app sees the requests that a strict parser sees, and no others; the segments make no
    difference; no request has two answers; what is kept of an endless message has a limit.
    """
    flags, step, sent = planned(data)
    websockets = bool(flags & 1)
    if flags & 2:
        for asleep in (False, True):
            asyncio.run(serve(Notes(asleep=asleep), endless(sent), websockets=websockets))
        return
    if flags & 4:
        run_client(sent, step, wild=True, websockets=websockets)
        return
    outcome = run_client(sent, 0, websockets=websockets)
    segmented = run_client(sent, step, websockets=websockets)
    # An upgrade is refused while a request before it runs, which is a matter of time.
    if outcome.app.asked == segmented.app.asked:
        assert outcome.statuses == segmented.statuses
        assert _requests(outcome) == _requests(segmented)
    judge = strict.requests(sent)
    for got, message in zip(_requests(outcome), judge, strict=False):
        assert got == _as_scope(message, got)
    assert len(outcome.app.whole) <= len(judge), "a request that is none"
    for asked in outcome.app.asked:
        assert strict.request(asked).end == len(asked)


def _as_scope(message: strict.Message, got: tuple[Any, ...]) -> tuple[Any, ...]:
    """A request as a scope can hold it: of a URL only path and query, and no empty query."""
    method, target, version = message.line
    path, _, query = target.partition(b"?")
    target = path + (b"?" + query if query else b"") if target[:1] == b"/" else got[1]
    return (method, target, version, message.headers, message.body)


def _requests(outcome: Outcome) -> list[tuple[Any, ...]]:
    return [
        (
            scope["method"].encode(),
            scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b""),
            scope["http_version"].encode(),
            tuple(scope["headers"]),
            body,
        )
        for scope, body in outcome.app.whole
    ]
