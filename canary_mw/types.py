"""The types of ASGI and WSGI."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Environ = dict[str, Any]
ExcInfo = Any
Write = Callable[[bytes], object]


class StartResponse(Protocol):
    """See PEP 3333."""

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo = None, /) -> Write: ...


WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]
