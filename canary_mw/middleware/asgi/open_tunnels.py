"""The websockets that are relayed now, to be closed: without what relays them, which is loaded with the first one."""

import asyncio
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from canary_mw.client.limits import CLOSE_TIMEOUT
from canary_mw.upstreams.aio import Upstreams


class OpenTunnel(Protocol):
    """What is to be known of a `WebSocketTunnel` to end it."""

    upstreams: Upstreams
    task: asyncio.Task[Any]

    def start_close(self, code: int) -> None:
        """See `WebSocketTunnel`."""


# One set for each loop, so that only its own thread changes it.
_tunnels: WeakKeyDictionary[asyncio.AbstractEventLoop, set[OpenTunnel]] = WeakKeyDictionary()


def tunnels_of(loop: asyncio.AbstractEventLoop) -> set[OpenTunnel]:
    """The set of the open tunnels of a loop; each adds itself and leaves when it ends."""
    return _tunnels.setdefault(loop, set())


def close_tunnels(upstreams: Upstreams, code: int = 1001) -> list[asyncio.Task[Any]]:
    """Close both sides of the tunnels of this loop to these upstreams; returns their tasks."""
    tunnels = [tunnel for tunnel in _tunnels.get(asyncio.get_running_loop(), ()) if tunnel.upstreams is upstreams]
    for tunnel in tunnels:
        tunnel.start_close(code)
    return [tunnel.task for tunnel in tunnels]


async def wait_tunnels(upstreams: Upstreams, code: int = 1001) -> None:
    """Close the tunnels of this loop to these upstreams, and wait until they end, for twice `CLOSE_TIMEOUT` at most."""
    if tasks := close_tunnels(upstreams, code):
        await asyncio.wait(tasks, timeout=2 * CLOSE_TIMEOUT)
