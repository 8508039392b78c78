"""What a pool for threads needs of its connections."""

from typing import Protocol

from canary_mw.exceptions import UpstreamError
from canary_mw.rules.upstream import UpstreamOptions


class PooledConnection(Protocol):
    """A connection of a `SyncPool`.

    Attributes:
        options: those of the current or the last request.
        reused: the connection has served a request before.
        opened_at: monotonic time at which it was opened.
    """

    options: UpstreamOptions
    reused: bool
    opened_at: float

    def is_reusable(self) -> bool:
        """Whether an idle connection can take a request."""

    def fail(self, error: UpstreamError) -> None:
        """Close at once; what is not complete ends with `error`."""

    def abort(self, error: UpstreamError) -> None:
        """Abort the exchange of another thread, which then raises `error`."""

    def abandon(self, error: UpstreamError) -> None:
        """In a forked child: close the descriptor of the parent's connection without sending anything."""
