"""Requests to a middleware of either interface without any socket, as a user's test client sends them."""

import asyncio
from typing import Any

import httpx

from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware

BASE = "http://shop.example"


def ask(served: CanaryMiddleware | CanaryWSGIMiddleware, path: str = "/shop/", **headers: str) -> tuple[int, str]:
    """Status and body of the answer to a GET."""
    if isinstance(served, CanaryMiddleware):
        return asyncio.run(_ask(served, path, headers))
    transport = httpx.WSGITransport(served)
    with httpx.Client(transport=transport, base_url=BASE) as client:
        answer = client.get(path, headers=headers)
        return answer.status_code, answer.text


async def _ask(served: CanaryMiddleware, path: str, headers: dict[str, str]) -> tuple[int, str]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url=BASE) as client:
        answer = await client.get(path, headers=headers)
        return answer.status_code, answer.text


def end(served: CanaryMiddleware | CanaryWSGIMiddleware) -> None:
    """Close it."""
    if isinstance(served, CanaryMiddleware):
        asyncio.run(served.aclose())
    else:
        served.close()


def app_that_says(interface: str, text: str) -> Any:
    """An app of an interface that answers with a text, and with the path and the header `x-added` that it gets."""

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        added = dict(scope["headers"]).get(b"x-added", b"").decode()
        body = f"{text} {scope['path']} {added}".rstrip().encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def wsgi_app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return [f"{text} {environ['PATH_INFO']} {environ.get('HTTP_X_ADDED', '')}".rstrip().encode()]

    return asgi_app if interface == "asgi" else wsgi_app
