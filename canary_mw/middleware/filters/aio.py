"""Asks the services of filters for an ASGI middleware, and changes the request by their answers."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf

from canary_mw.client.interfaces import UpstreamResponse
from canary_mw.exceptions import ClientDisconnected, UpstreamError
from canary_mw.forwarding.filters.calls import (
    MAX_ANSWER,
    Admission,
    Admitted,
    AskGrpc,
    AskHttp,
    BodyStart,
    Call,
    Given,
    HttpAnswer,
    Settle,
    WantBody,
)
from canary_mw.forwarding.filters.grpc_calls import as_it_is, fields_of, request_of
from canary_mw.forwarding.messages import Reply
from canary_mw.http.framing import body_framing
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.asgi.receive import DisconnectTimer, RequestStream
from canary_mw.middleware.filters.shell import note_failure
from canary_mw.routing.decided import Decision
from canary_mw.types import Message, Receive, Scope
from canary_mw.upstreams.aio import Upstreams

Decide = Callable[[RequestHead], Awaitable[Decision | None]]


class Mailbox:
    """Keeps what is received while services are asked, so that it can be received again.

    Args:
        receive: of the request.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._pending: asyncio.Future[Message] | None = None

    async def take(self) -> Message:
        """Receive the next message, and keep it; one that comes after a cancellation is not lost."""
        message = await self._next()
        self._kept.append(message)
        return message

    async def _next(self) -> Message:
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
            # Where nobody asks for it any more, its error is not reported as one that was never retrieved.
            self._pending.add_done_callback(lambda done: done.cancelled() or done.exception())
        message = await asyncio.shield(self._pending)
        self._pending = None
        return message

    async def start_of_body(self, limit: int) -> BodyStart:
        """The beginning of the body.

        Raises:
            ClientDisconnected: the client has left before it was there.
        """
        chunks = [message.get("body", b"") for message in self._kept]
        size = sum(map(len, chunks))
        more = not self._kept or bool(self._kept[-1].get("more_body"))
        while more and size <= limit:
            message = await self.take()
            if message["type"] != "http.request":
                raise ClientDisconnected("the client left before its body was complete")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = bool(message.get("more_body"))
        return BodyStart(b"".join(chunks)[:limit], size > limit)

    def receive_again(self) -> Receive:
        """A `receive` that begins with what was kept."""
        kept = self._kept
        if not kept and self._pending is None:
            return self._receive
        kept.reverse()

        async def receive() -> Message:
            if kept:
                return kept.pop()
            return await (self._receive() if self._pending is None else self._next())

        return receive


class Asker:
    """Drives admissions in an event loop.

    Args:
        upstreams: sends the calls.
    """

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._timer: DisconnectTimer | None = None

    async def run(
        self, steps: Admission, head: RequestHead, scope: Scope, receive: Receive, decide: Decide
    ) -> tuple[Admitted | Reply, Receive]:
        """Drive an admission to its end.

        Args:
            decide: asks the app, and decides.

        Returns:
            The outcome, and the `receive` of whoever answers the request.

        Raises:
            ClientDisconnected: the client has left meanwhile.
            ClientError: see `admission`.
        """
        loop = asyncio.get_running_loop()
        mailbox = Mailbox(receive)
        stream = self._watch(loop, mailbox, head, scope)
        try:
            outcome = await self._drive(steps, mailbox, loop, decide)
        except asyncio.CancelledError:
            if stream is not None and stream.cancelled_by_disconnect():
                raise ClientDisconnected("the client left while a service was asked") from None
            raise
        finally:
            steps.close()
            if stream is not None:
                stream.close()
        return outcome, mailbox.receive_again()

    def _watch(
        self, loop: asyncio.AbstractEventLoop, mailbox: Mailbox, head: RequestHead, scope: Scope
    ) -> RequestStream | None:
        """Watch for the end of the client; None where its messages are a body, which is not read ahead."""
        notifier = scope.get("canary_mw.client")
        has_body = head.http_version not in ("1.0", "1.1") or body_framing(head.headers_by_name) is not None
        if scope["type"] != "http" or (has_body and notifier is None):
            return None
        if self._timer is None or self._timer.loop is not loop:
            self._timer = DisconnectTimer(loop)
        stream = RequestStream(mailbox.take, self._timer, notifier, by_notifier=has_body)
        stream.watch_soon()
        return stream

    async def _drive(
        self, steps: Admission, mailbox: Mailbox, loop: asyncio.AbstractEventLoop, decide: Decide
    ) -> Admitted | Reply:
        try:
            wanted = next(steps)
            while True:
                try:
                    given = await (
                        decide(wanted.head) if isinstance(wanted, Settle) else self._give(wanted, mailbox, loop)
                    )
                except UpstreamError as exc:
                    wanted = steps.throw(exc)
                else:
                    wanted = steps.send(given)
        except StopIteration as stop:
            outcome: Admitted | Reply = stop.value
            return outcome

    async def _give(self, wanted: Call, mailbox: Mailbox, loop: asyncio.AbstractEventLoop) -> Given:
        if isinstance(wanted, WantBody):
            return await mailbox.start_of_body(wanted.limit)
        if isinstance(wanted, AskGrpc):
            return await self._ask(request_of(wanted), loop, partial(fields_of, wanted))
        return await self._ask(wanted, loop, as_it_is)

    async def _ask(self, ask: AskHttp, loop: asyncio.AbstractEventLoop, read: Callable[[HttpAnswer], Given]) -> Given:
        """Ask; what is read in the answer may be that the service has failed."""
        request, errors = ask.request, self._upstreams.errors
        deadline = inf if request.timeout is None else loop.time() + request.timeout
        try:
            response = await self._upstreams.send(request, ask.body, loop, deadline)
            try:
                body = await _read(response)
            finally:
                response.close()
            given = read(HttpAnswer(response.head.status, response.head.headers, body))
        except UpstreamError as exc:
            note_failure(errors, request, exc)
            raise
        if errors.failing:
            errors.succeeded(request.service)
        return given


async def _read(response: UpstreamResponse) -> bytes:
    """The body of an answer, as far as it counts."""
    data = response.take()
    if data is not None:
        return data[:MAX_ANSWER]
    chunks, size = [], 0
    while size <= MAX_ANSWER and (chunk := await response.read()):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)[:MAX_ANSWER]
