"""Responses of Django: those of the project with the headers of a middleware, and those of other services."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse

from canary_mw.middleware.frameworks.below import use_up

Pairs = list[tuple[str, str]]
_END = b""


class Relayed(StreamingHttpResponse):  # type: ignore[misc]
    """An answer of another service. Unlike others of Django it may have several cookies of one name.

    Args:
        status: code and reason.
    """

    def __init__(self, status: str, headers: Pairs, body: Any) -> None:
        super().__init__(body)
        # Django refuses statuses above 599 as an argument.
        self.status_code = int(status[:3])
        self.reason_phrase = status[4:]
        del self.headers["Content-Type"]
        self._set_cookies: list[str] = []
        for name, value in headers:
            if name.lower() == "set-cookie":
                self._set_cookies.append(value)
            else:
                self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value

    def items(self) -> Iterator[tuple[str, str]]:
        """Names and values of all headers but those of `cookies`."""
        yield from self.headers.items()
        yield from (("Set-Cookie", value) for value in self._set_cookies)


def pairs_of(response: Any) -> Pairs:
    """The headers of a response of the project."""
    return [*response.items(), *(("Set-Cookie", each.OutputString()) for each in response.cookies.values())]


def chunks_of(response: Any) -> Iterable[bytes]:
    """The body of a response of the project; nothing of one that only a loop can read."""
    if not response.streaming:
        return [response.content]
    return () if response.is_async else response.streaming_content


def with_headers(response: Any, headers: Pairs) -> Any:
    """A response of the project with the headers of a middleware."""
    known = {each.OutputString() for each in response.cookies.values()}
    for name, value in headers:
        if name.lower() != "set-cookie":
            response.headers[name] = value
        elif value not in known:
            response.cookies.load(value)
    return response


def with_body(response: Any, body: Any) -> Any:
    """A response of the project whose body others look at, too."""
    if not response.streaming:
        use_up(body)
    elif not response.is_async:
        response.streaming_content = body
    return response


async def asynchronous(body: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A body that a loop can read; each piece is waited for in a thread."""
    pieces = iter(body)
    step: Any = sync_to_async(next, thread_sensitive=False)
    try:
        while (piece := await step(pieces, None)) is not None:
            yield piece
    finally:
        if hasattr(body, "close"):
            await sync_to_async(body.close, thread_sensitive=False)()
