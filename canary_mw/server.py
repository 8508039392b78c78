"""A uvicorn server that ends as it was asked to, and what its process needs."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import uvicorn


class Server(uvicorn.Server):
    """Exits with 0 after a signal; uvicorn raises it again when all is done, which looks like a kill."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Forget the signals that were obeyed."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def raise_file_limit() -> None:
    """Let this process, and those that it starts, have as many connections as the system allows.

    The usual soft limit of 1024 open files is there for programs that still call select().
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the most is more than the system means it to be, things stay as they are.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
