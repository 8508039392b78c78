"""A WSGI middleware inside a framework: what the framework answers below it, and what comes of that."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from canary_mw.middleware.wsgi.fallback import Continued
from canary_mw.types import Environ, ExcInfo, Write, WSGIApp

# Where the environ of a request has its `Below`.
BELOW = "canary_mw.below"


class Answer(NamedTuple):
    """An answer of a middleware, as it would go to a server."""

    status: str
    headers: list[tuple[str, str]]
    body: Iterable[bytes]


class LocalBody:
    """The body of an answer of the framework.

    Attributes:
        closed: it was closed: nobody gets it.
    """

    def __init__(self, chunks: Iterable[bytes], close: Callable[[], object] | None) -> None:
        self.closed = False
        self._chunks = chunks
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        """See PEP 3333."""
        self.closed = True
        if self._close is not None:
            self._close()


class Below:
    """What the framework has answered below the middleware to one request.

    Attributes:
        response: as the framework has it, None where the answer of the middleware comes from elsewhere.
    """

    def __init__(self) -> None:
        self._response: Any = None
        self.body: LocalBody | None = None

    def answered(self, response: Any, body: LocalBody) -> LocalBody:
        """Note a response; returns its body."""
        self._response, self.body = response, body
        return body

    @property
    def response(self) -> Any:
        """See the attribute."""
        return None if self.body is None or self.body.closed else self._response


def ask(middleware: WSGIApp, environ: Environ) -> Answer:
    """The answer of a middleware, as soon as it has a status and headers."""
    started: list[Any] = []
    pieces: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write:
        started[:] = [status, headers]
        return pieces.append

    body = middleware(environ, start_response)
    if not started or pieces:
        # An app in place of a service may start with its first piece.
        chunks = iter(body)
        while not started and (chunk := next(chunks, None)) is not None:
            pieces.append(chunk)
        body = Continued(body, pieces, chunks)
    return Answer(started[0], started[1], body)


def use_up(body: Iterable[bytes]) -> None:
    """Let those who look at a body see it, where the framework sends the same from elsewhere."""
    for _ in body:
        pass
    if hasattr(body, "close"):
        body.close()
