"""Failures of gray in the demo, and how far the release is."""

import asyncio
import json
from itertools import chain, repeat
from random import Random
from typing import Any

import click

from canary_mw.cli.demo_requests import SEED
from canary_mw.client.aio.client import HTTP11Client
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import raw_headers
from canary_mw.rules.release import STABLE
from canary_mw.rules.upstream import Origin
from canary_mw.types import ASGIApp, Receive, Scope, Send

RELEASE = "svc-2026-11"


class Faults:
    """Which requests gray fails, drawn with a fixed seed.

    Attributes:
        percent: of its requests.
    """

    def __init__(self) -> None:
        self.percent = 0.0
        self._drawn = Random(SEED)

    def begin(self, percent: float) -> None:
        """Fail so many of the requests from now on."""
        self.percent = percent

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
    """The address of the page of the release."""
    return f"http://127.0.0.1:{port}/ambassador/v0/diag/releases/{RELEASE}"


async def first_step_within(seconds: float, store: RuleStore) -> None:
    """Wait until the release gives gray its first users.

    Raises:
        click.ClickException: it does not in this time.
    """
    try:
        async with asyncio.timeout(seconds):
            # The table is made anew in another thread.
            for pause in chain([0], repeat(0.05)):
                await asyncio.sleep(pause)
                if _gray(store):
                    break
    except TimeoutError:
        raise click.ClickException(f"the release has not begun within {seconds:g} seconds") from None


def _gray(store: RuleStore) -> float:
    release = store.table.releases.get(RELEASE)
    return 0.0 if release is None else 100.0 - release.effective_shares()[STABLE]


async def phase_within(seconds: float, phase: str, client: HTTP11Client, admin: Origin) -> dict[str, Any]:
    """The release when it is in a phase, as the API of the admin port has it.

    Raises:
        click.ClickException: it does not get there in this time.
    """
    release: dict[str, Any] = {}
    try:
        async with asyncio.timeout(seconds):
            for pause in chain([0], repeat(0.2)):
                await asyncio.sleep(pause)
                release = await _release(client, admin) or release
                if release and release["rollout"] and release["rollout"]["phase"] == phase:
                    break
    except TimeoutError:
        said = release["verdict"]["sentence"] if release else "nothing"
        message = f"the release is not {phase} within {seconds:g} seconds; what was said last: {said}"
        raise click.ClickException(message) from None
    return release


async def resume(client: HTTP11Client, admin: Origin, token: str) -> None:
    """Let the release go on from its first step.

    Raises:
        click.ClickException: it does not.
    """
    head = raw_headers([("host", admin.authority), ("authorization", f"Bearer {token}"), ("content-length", "0")])
    target = f"/api/v1/releases/{RELEASE}/resume".encode()
    status, body = await _answer(client, admin, UpstreamRequest("demo", "POST", target, head, timeout=5.0))
    if status != 200:
        raise click.ClickException(f"the release does not go on: {body.decode(errors='replace')}")


async def _release(client: HTTP11Client, admin: Origin) -> dict[str, Any] | None:
    """What the API says of the release; None before it is there."""
    head = raw_headers([("host", admin.authority)])
    target = f"/api/v1/releases/{RELEASE}".encode()
    request = UpstreamRequest("demo", "GET", target, head, timeout=5.0, replayable=True)
    status, body = await _answer(client, admin, request)
    found: dict[str, Any] | None = json.loads(body) if status == 200 else None
    return found


async def _answer(client: HTTP11Client, admin: Origin, request: UpstreamRequest) -> tuple[int, bytes]:
    """The status and body of an answer of the admin port; a failure has the status 0, and its reason as body."""
    body = b""
    try:
        response = await client.send(admin, request)
        while chunk := await response.read():
            body += chunk
    except UpstreamError as exc:
        return 0, str(exc).encode()
    return response.head.status, body
