"""Response bodies of WSGI apps with a callback for their end."""

from collections.abc import Callable, Iterable, Iterator

from canary_mw.exceptions import ClientDisconnected

OnEnd = Callable[[BaseException | None, int], object]


class ObservedBody:
    """The body that an app returned, with a callback for its end.

    Args:
        on_end: called once, with None at the end of the body, or with the error that ended it early,
            and with the bytes that were passed on.

    Attributes:
        expected: bytes of the whole body, None where that is not known.
        count: called with these before the last of them are passed on.
    """

    def __init__(self, body: Iterable[bytes], on_end: OnEnd) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._on_end: OnEnd | None = on_end
        self._length = 0
        self.expected: int | None = None
        self.count: Callable[[int], object] = bool

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            chunk = next(self._iterator)
            self._length += len(chunk)
            if self._length == self.expected:
                self.count(self._length)
            return chunk
        except StopIteration:
            self._notify_end(None)
            raise
        except BaseException as exc:
            self._notify_end(exc)
            raise

    def close(self) -> None:
        """See PEP 3333."""
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._notify_end(ClientDisconnected("closed before its end"))

    def _notify_end(self, error: BaseException | None) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(error, self._length)


class SizedObservedBody(ObservedBody):
    """An `ObservedBody` with a length: servers set Content-Length when it is 1."""

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


def observe_body(body: Iterable[bytes], on_end: OnEnd) -> ObservedBody:
    """Wrap a body as an `ObservedBody`, with a length where it has one."""
    return (SizedObservedBody if hasattr(body, "__len__") else ObservedBody)(body, on_end)


def length_of(headers: list[tuple[str, str]]) -> int | None:
    """The length of a body by the headers of its response, None without one."""
    for name, value in headers:
        if name.lower() == "content-length":
            return int(value) if value.isdecimal() else None
    return None
