"""Failures of gray in the demo, and the verdict that they lead to."""

import asyncio
import json
from itertools import chain, repeat
from random import Random
from typing import Any

import click

from canary_mw.cli.demo_requests import SEED
from canary_mw.client.aio.client import HTTP11Client
from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import raw_headers
from canary_mw.rules.upstream import Origin
from canary_mw.types import ASGIApp, Receive, Scope, Send

_BAD = "worse"


class Faults:
    """Which requests gray fails, drawn with a fixed seed.

    Attributes:
        percent: of its requests.
    """

    def __init__(self) -> None:
        self.percent = 0.0
        self._drawn = Random(SEED)

    def before(self, app: ASGIApp) -> ASGIApp:
        """An app that fails some requests in place of another one, which gets the others."""

        async def failing(scope: Scope, receive: Receive, send: Send) -> None:
            if self._drawn.random() * 100 >= self.percent:
                await app(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        return failing


def page_of(port: int) -> str:
    """The address of the pages."""
    return f"http://127.0.0.1:{port}/ambassador/v0/diag/"


async def verdict_within(seconds: float, client: HTTP11Client, admin: Origin) -> dict[str, Any]:
    """The verdict that gray is worse, as the API of the admin port has it.

    Raises:
        click.ClickException: the figures do not say so in this time.
    """
    verdict: dict[str, Any] = {"state": "", "sentence": "none"}
    try:
        async with asyncio.timeout(seconds):
            for pause in chain([0], repeat(1)):
                await asyncio.sleep(pause)
                verdict = await _verdict(client, admin) or verdict
                if verdict["state"] == _BAD:
                    break
    except TimeoutError:
        message = f"gray is not called worse within {seconds:g} seconds; what was said last: {verdict['sentence']}"
        raise click.ClickException(message) from None
    return verdict


async def _verdict(client: HTTP11Client, admin: Origin) -> dict[str, Any] | None:
    """What the overview says of the one release; None before its first figures."""
    head = raw_headers([("host", admin.authority)])
    request = UpstreamRequest("demo", "GET", b"/api/v1/overview", head, timeout=5.0, replayable=True)
    body = b""
    try:
        response = await client.send(admin, request)
        while chunk := await response.read():
            body += chunk
    except UpstreamError:
        return None
    releases = json.loads(body).get("releases") if response.head.status == 200 else None
    return releases[0]["verdict"] if releases else None
