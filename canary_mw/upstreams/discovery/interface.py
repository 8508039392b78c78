"""What finds the endpoints of a service."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from canary_mw.exceptions import UpstreamError
from canary_mw.rules.upstream import Origin

Sleep = Callable[[float], Awaitable[object]]


class Resolver(Protocol):
    """Finds the endpoints of one service, for one event loop.

    Attributes:
        names: what is looked up again and again.
    """

    names: list[Origin]

    def resolved(self) -> list[Origin] | None:
        """Each known endpoint once, in a stable order. None while nothing is known, empty where there is none."""

    async def look_up(self, origin: Origin) -> bool:
        """Look one of `names` up. False if that failed; then what is known stays."""

    async def pause(self, seconds: float, sleep: Sleep) -> float:
        """Wait before the next look-up, at most so many seconds; returns how many passed without a change."""

    def error(self, *, at_deadline: bool) -> UpstreamError:
        """The error of a request while there is no endpoint.

        Args:
            at_deadline: the deadline of the request passed while it waited.
        """
