"""An agent of Consul as far as a client sees it that asks for the instances of services; an ASGI app."""

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs

from canary_mw.types import Receive, Scope, Send

Instance = tuple[str | None, int]


class FakeConsul:
    """Answers blocking queries of the Health API.

    Attributes:
        index: what the next answers tell; None leaves the header out.
        status: of all answers.
        body: what is sent in place of instances, None for those of the service.
        asked: the query and the token of each request.
    """

    def __init__(self) -> None:
        self.index: int | None = 10
        self.status = 200
        self.body: bytes | None = None
        self.asked: list[dict[str, str | None]] = []
        self._services: dict[str, list[Instance]] = {}
        self._moved = asyncio.Event()

    def put(self, name: str, *instances: Instance) -> None:
        """Let these instances pass: addresses, None for that of the node, which is 127.0.0.1, and ports."""
        self._services[name] = list(instances)
        self.turn(self.index + 1 if self.index is not None else None)

    def turn(self, index: int | None) -> None:
        """Go on to an index, and answer who waits."""
        self.index = index
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        token = dict(scope["headers"]).get(b"x-consul-token", b"").decode() or None
        name = scope["path"].removeprefix("/v1/health/service/")
        self.asked.append({"service": name, "token": token, **query})
        while self.status == 200 and query.get("index") == str(self.index):
            moved = asyncio.ensure_future(self._moved.wait())
            left = asyncio.ensure_future(_left(receive))
            await asyncio.wait({moved, left}, return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()
            left.cancel()
            if left.done() and not left.cancelled():
                return
        body = self.body if self.body is not None else json.dumps(self._entries(name)).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        if self.index is not None:
            headers.append((b"x-consul-index", b"%d" % self.index))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _entries(self, name: str) -> list[dict[str, Any]]:
        return [
            {"Node": {"Address": "127.0.0.1"}, "Service": {"Address": address or "", "Port": port}}
            for address, port in self._services.get(name, ())
        ]


async def _left(receive: Receive) -> None:
    """Return once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
