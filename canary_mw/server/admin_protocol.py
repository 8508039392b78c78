"""uvicorn's HTTP protocol for the admin port: the limits of the proxy's own port, and bounded connections.

What a flood of connections could take from the process is bounded here: open files, and buffers for clients that read
slowly.
"""

import asyncio
from itertools import count
from typing import Any

from canary_mw.admin.server import MAX_CONNECTIONS
from canary_mw.server.protocol import GuardedProtocol

_numbers = count()


class AdminProtocol(GuardedProtocol):
    """Ends the oldest connection for one over the limit, those first that wait for no answer.

    To refuse the newest would let whoever holds the others keep probes and scrapes out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The access log is that of an app, which may be served by uvicorn too.
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._number = next(_numbers)
        found = [each for each in self.connections if isinstance(each, AdminProtocol) and each.can_yield_to(self)]
        ended = [each for each in found if each._phase == "closing"]
        if len(found) - len(ended) >= MAX_CONNECTIONS:
            min(found, key=AdminProtocol.rank).yield_now()
        if len(ended) >= MAX_CONNECTIONS:
            min(ended, key=AdminProtocol.rank).transport.abort()

    def can_yield_to(self, newest: "AdminProtocol") -> bool:
        """Whether it is another connection, and not closed already."""
        return self is not newest and not self.transport.is_closing()

    def rank(self) -> tuple[bool, bool, int]:
        """The smallest yields first."""
        return self._phase == "closing", self._busy(), self._number

    def yield_now(self) -> None:
        """Make room. As many as may be open may linger, so that most clients see an end and no reset."""
        if self._busy():
            self.transport.abort()
        else:
            self._end_connection(linger=True)

    def shutdown(self) -> None:
        """The server shuts down: the proxy does not wait for clients of the admin port that ask for nothing."""
        super().shutdown()
        if not self._busy():
            self.transport.close()
