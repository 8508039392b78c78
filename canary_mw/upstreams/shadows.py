"""Copies of requests for the shadows of their groups: no request waits for them, and their responses are dropped."""

import asyncio
import logging
from typing import TYPE_CHECKING

from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.host import HostLogger
from canary_mw.observability.figures.tallies import Tally, no_tally
from canary_mw.upstreams.aio import Upstreams

if TYPE_CHECKING:
    from canary_mw.upstreams.body_buffer import ReplayBuffer


logger = HostLogger(logging.getLogger("canary_mw.shadow"))

# Seconds for a copy whose Mapping sets no timeout, because copies in flight are limited.
DEFAULT_TIMEOUT = 60.0


class ShadowSender:
    """Sends copies, a bounded number at a time.

    Args:
        upstreams: sends the copies.
        limit: copies in flight in this process; further ones are skipped.
        tally: is told what became of each copy.

    Attributes:
        counts: copies that were sent (their response was read), failed, or were skipped because the body was not read
            completely or too many were in flight.
    """

    def __init__(self, upstreams: Upstreams, limit: int, tally: Tally = no_tally) -> None:
        self._tally = tally
        self.counts = {"sent": 0, "failed": 0, "skipped_body": 0, "skipped_busy": 0}
        self._upstreams = upstreams
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def send_when_complete(self, request: UpstreamRequest, buffer: "ReplayBuffer") -> None:
        """Send a copy as soon as its body is complete.

        Args:
            buffer: keeps the body of the main request.
        """
        if request.body is None or request.body.length == 0:
            self.send_now(request, b"")
        else:
            buffer.when_complete(lambda body: self.send_now(request, body))

    def send_now(self, request: UpstreamRequest, body: bytes | None) -> None:
        """Send a copy now, unless too many are in flight; called in the loop of the copies.

        Args:
            body: None if it is not complete; then nothing is sent.
        """
        if body is None:
            self._count("skipped_body")
        elif len(self._tasks) >= self._limit and not self._forget_closed_loops():
            self._count("skipped_busy")
        else:
            task = asyncio.get_running_loop().create_task(self._send(request, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _count(self, result: str) -> None:
        self.counts[result] += 1
        self._tally("shadow", result)

    def _forget_closed_loops(self) -> bool:
        """Forget the copies whose loop was closed before their end; returns whether there is room for another now."""
        for task in list(self._tasks):
            if task.get_loop().is_closed():
                self._tasks.discard(task)
        return len(self._tasks) < self._limit

    async def _send(self, request: UpstreamRequest, body: bytes) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (request.timeout or DEFAULT_TIMEOUT)
        try:
            response = await self._upstreams.send(request, body if request.body else None, loop, deadline)
            try:
                while await response.read():
                    pass
            finally:
                response.close()
        except UpstreamError as exc:
            self._count("failed")
            self._upstreams.errors.failed(request.service, request.mapping, exc)
        except Exception:
            self._count("failed")
            logger.exception("a copy for the shadow %s failed", request.service)
        else:
            self._count("sent")
            if self._upstreams.errors.failing:
                self._upstreams.errors.succeeded(request.service)

    async def aclose(self) -> None:
        """Cancel the copies in flight in the running loop."""
        loop = asyncio.get_running_loop()
        # Copied first: the loops of other threads add and remove theirs meanwhile.
        own = [task for task in list(self._tasks) if task.get_loop() is loop]
        for task in own:
            task.cancel()
        if own:
            await asyncio.wait(own)
