"""The lanes of a request in a WSGI app, also while the server takes its body."""

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context

from canary_mw.propagate.carried import Carried, carry_on
from canary_mw.types import Environ


def run_with_lanes(lanes: Carried, serve: Callable[[], Iterable[bytes]], environ: Environ) -> Iterable[bytes]:
    """Serve a request in a context of its own, which the thread's next request does not see.

    The body runs in it, too: an app may make its body, and call other services for it, while it is sent.
    """
    context = copy_context()
    context.run(carry_on, lanes)
    body = context.run(serve)
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
        # Nothing of the app runs while it is sent, and a server may send a file by itself.
        return body
    return (_SizedBody if hasattr(body, "__len__") else _Body)(body, context)


class _Body:
    """A body that runs in a context."""

    def __init__(self, body: Iterable[bytes], context: Context) -> None:
        self._body = body
        self._context = context
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(self._next)

    def _next(self) -> bytes:
        if self._iterator is None:
            self._iterator = iter(self._body)
        return next(self._iterator)

    def close(self) -> None:
        """See PEP 3333."""
        if hasattr(self._body, "close"):
            self._context.run(self._body.close)


class _SizedBody(_Body):
    """A `_Body` with a length: servers set Content-Length when it is 1."""

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]
