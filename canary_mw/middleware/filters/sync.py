"""Asks the services of filters for a WSGI middleware: the twin of `filters.aio`, which awaits where this blocks."""

from collections.abc import Callable
from functools import partial
from io import BufferedReader, BytesIO, RawIOBase
from math import inf
from time import monotonic

from canary_mw.client.interfaces import SyncResponse
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
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.filters.shell import note_failure
from canary_mw.middleware.wsgi.request_body import RequestBody
from canary_mw.routing.decided import Decision
from canary_mw.types import Environ
from canary_mw.upstreams.sync import SyncUpstreams

Decide = Callable[[RequestHead], Decision | None]


class SyncAsker:
    """Drives admissions in a thread; the counterpart of `Asker`."""

    def __init__(self, upstreams: SyncUpstreams) -> None:
        self._upstreams = upstreams

    def run(self, steps: Admission, head: RequestHead, environ: Environ, decide: Decide) -> Admitted | Reply:
        """Drive an admission to its end; raises as `Asker.run` does."""
        try:
            wanted = next(steps)
            while True:
                try:
                    given = decide(wanted.head) if isinstance(wanted, Settle) else self._give(wanted, head, environ)
                except UpstreamError as exc:
                    wanted = steps.throw(exc)
                else:
                    wanted = steps.send(given)
        except StopIteration as stop:
            outcome: Admitted | Reply = stop.value
            return outcome
        finally:
            steps.close()

    def _give(self, wanted: Call, head: RequestHead, environ: Environ) -> Given:
        if isinstance(wanted, WantBody):
            return start_of_body(head, environ, wanted.limit)
        if isinstance(wanted, AskGrpc):
            return self._ask(request_of(wanted), partial(fields_of, wanted))
        return self._ask(wanted, as_it_is)

    def _ask(self, ask: AskHttp, read: Callable[[HttpAnswer], Given]) -> Given:
        """Ask; what is read in the answer may be that the service has failed."""
        request, errors = ask.request, self._upstreams.errors
        deadline = inf if request.timeout is None else monotonic() + request.timeout
        try:
            response = self._upstreams.send(request, ask.body, deadline)
            try:
                body = _read(response)
            finally:
                response.close()
            given = read(HttpAnswer(response.head.status, response.head.headers, body))
        except UpstreamError as exc:
            note_failure(errors, request, exc)
            raise
        if errors.failing:
            errors.succeeded(request.service)
        return given


def _read(response: SyncResponse) -> bytes:
    """The body of an answer, as far as it counts."""
    data = response.take()
    if data is not None:
        return data[:MAX_ANSWER]
    chunks, size = [], 0
    while size <= MAX_ANSWER and (chunk := response.read()):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)[:MAX_ANSWER]


def start_of_body(head: RequestHead, environ: Environ, limit: int) -> BodyStart:
    """The beginning of a body; `wsgi.input` gives the whole body to who reads it later.

    Raises:
        ClientDisconnected: the client has left before it was there.
        LengthRequired: the server does not say where the body ends.
    """
    chunked = head.has(b"transfer-encoding")
    body = RequestBody(environ, None if chunked else int(head.header(b"content-length") or 0))
    chunks, size, ended = [], 0, False
    while size <= limit and not ended:
        chunk = next(body, None)
        ended = chunk is None
        chunks.append(chunk or b"")
        size += len(chunks[-1])
    data = b"".join(chunks)
    environ["wsgi.input"] = BytesIO(data) if ended else BufferedReader(_Rest(data, body))
    return BodyStart(data[:limit], size > limit)


class _Rest(RawIOBase):
    """A body from its beginning: what was read, then what comes."""

    def __init__(self, data: bytes, body: RequestBody) -> None:
        self._data = data
        self._body = body

    def readable(self) -> bool:
        """See `io.RawIOBase`, also for the other method."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._data:
            try:
                self._data = next(self._body, b"")
            except ClientDisconnected as exc:
                raise OSError(str(exc)) from exc
        piece, self._data = self._data[: len(buffer)], self._data[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)
