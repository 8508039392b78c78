"""A uvicorn server that ends as it was asked to."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class Server(uvicorn.Server):
    """Exits with 0 after a signal; uvicorn raises it again when all is done, which looks like a kill."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Forget the signals that were obeyed."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()
