"""Requests to other pods: their evidence is asked for, and they are told of a rollback. A pod may answer anything."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from canary_mw.client.aio.client import HTTP11Client, HTTP11Response
from canary_mw.client.limits import Limits
from canary_mw.control.rollouts.peers.addresses import Address, may_hear_token, text_of
from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamTimeout
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import BodyFraming, ResponseHead
from canary_mw.observability.peers.wire import MOST_PACKED
from canary_mw.rules.upstream import Origin

# Seconds that a pod has for an answer as a whole.
TIMEOUT = 1.5
CURSOR = b"x-canary-mw-cursor"
_LIMITS = Limits(max_connections=2, keepalive_expiry=10.0, max_head=16_384)
_STATUS = {
    401: "refuses the token: its file of --admin-token-file has another one for peer",
    403: "gives nothing to this token: its file of --admin-token-file has no line peer TOKEN with it",
    404: "has no such answer: it runs a version without it, or its port is no admin port",
}


class NoAnswer(Exception):
    """A pod has not answered as it should; the text says why, and holds nothing of what it sent."""


class Answer(NamedTuple):
    """What a pod gives as its evidence.

    Attributes:
        cursor: names this evidence.
        data: None where nothing has changed since.
    """

    cursor: str
    data: bytes | None


class PeerClient:
    """Asks and tells pods; for one event loop.

    Args:
        token: gives the token; raises ConfigError where there is none.
    """

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token
        self._client = HTTP11Client(limits=_LIMITS)

    async def evidence(self, address: Address, cursor: str) -> Answer:
        """The evidence of a pod, unless it is that of the cursor; raises NoAnswer and ConfigError."""
        head, data = await self._ask("GET", address, f"/api/v1/evidence?since={quote(cursor)}", b"")
        found = next((value for name, value in head.headers if name == CURSOR), b"")
        if head.status == 304 and cursor:
            return Answer(cursor, None)
        if head.status != 200:
            raise NoAnswer(_STATUS.get(head.status, f"answers with status {head.status}"))
        return Answer(found[:200].decode("ascii", "replace"), data)

    async def tell(self, address: Address, path: str, body: bytes) -> int:
        """The status of the answer to a message; raises as `evidence`."""
        head, _ = await self._ask("POST", address, path, body)
        return head.status

    async def _ask(self, method: str, address: Address, target: str, body: bytes) -> tuple[ResponseHead, bytes]:
        host, port = address
        if not may_hear_token(host):
            raise NoAnswer("is no address of a private network, and the token is not sent there")
        headers = [
            (b"host", text_of(address).encode()),
            (b"authorization", b"Bearer " + self._token().encode()),
            (b"user-agent", b"canary-mw"),
        ]
        if body:
            headers.append((b"content-type", b"application/json"))
        framing = BodyFraming(len(body)) if body else None
        request = UpstreamRequest("peer", method, target.encode(), headers, framing, TIMEOUT, TIMEOUT)
        origin = Origin("http", host, port, host)
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._client.send(origin, request, body or None)
                try:
                    return response.head, await _body(response)
                finally:
                    response.close()
        except TimeoutError:
            raise NoAnswer("does not answer in time") from None
        except UpstreamError as exc:
            raise NoAnswer(_why(exc)) from None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _body(response: HTTP11Response) -> bytes:
    parts, size = [], 0
    while piece := await response.read():
        parts.append(piece)
        size += len(piece)
        if size > MOST_PACKED:
            raise NoAnswer(f"answers with more than {MOST_PACKED >> 20} MiB")
    return b"".join(parts)


def _why(exc: UpstreamError) -> str:
    if isinstance(exc, UpstreamTimeout):
        return "does not answer in time"
    if isinstance(exc, UpstreamConnectError):
        return "cannot be reached: is its admin port open to other pods (--admin-host 0.0.0.0)?"
    return "does not answer by HTTP/1.1"
