"""Requests to an admin app without any socket."""

import httpx
from servers import Answer, Pairs
from starlette.applications import Starlette


async def fetch_app(
    app: Starlette, target: str = "/", method: str = "GET", headers: Pairs = (), body: bytes = b""
) -> Answer:
    """The answer of an app; by the name localhost unless the headers say another one."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.request(method, target, headers=list(headers), content=body or None)
        raw = [(name.lower(), value) for name, value in answer.headers.raw]
        return Answer(answer.status_code, raw, answer.content, True)
