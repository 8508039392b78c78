"""A reflector driven over the network: lists and watches without end."""

import asyncio
import random
from collections.abc import Callable
from contextlib import aclosing, suppress
from time import monotonic
from typing import Any

from canary_mw.kubernetes.api import Api, Lines, Refused, Unanswered
from canary_mw.kubernetes.credentials import Connection
from canary_mw.kubernetes.reflector import MalformedAnswer, Reflector
from canary_mw.kubernetes.rights import explain_denial

_PAGE = 500
# Seconds after which the server ends a watch, and the longest silence: of a stream that has had a bookmark, which come
# each minute, and beyond the end of any other.
_WATCH_SECONDS = (240, 300)
_BOOKMARK_SILENCE, _SILENCE = 90.0, 15.0


class Follower:
    """A reflector, and what follows its objects.

    Args:
        changed: called after each answer.

    Attributes:
        last_contact: monotonic time of the last line or accepted request, None before the first one.
        listed_at: monotonic time of the first complete list, None before it.
        denied_at: monotonic time of the last refusal for a missing right.
    """

    def __init__(
        self, reflector: Reflector, connection: Connection, selector: str, changed: Callable[[], object]
    ) -> None:
        self.reflector = reflector
        self.last_contact: float | None = None
        self.listed_at: float | None = None
        self.denied_at = 0.0
        self._hurry = asyncio.Event()
        self._connection = connection
        self._api = Api(connection)
        self._params = {"labelSelector": selector} if selector else {}
        self._changed = changed

    async def run(self, delay: float = 0.0) -> None:
        """Follow until cancelled.

        Args:
            delay: seconds before the first request.
        """
        try:
            await asyncio.sleep(delay)
            while True:
                await self._pause(self.reflector.delay)
                await self._step()
        finally:
            await self._api.reset()

    def hurry(self) -> None:
        """Make the next request now."""
        self._hurry.set()

    async def _pause(self, seconds: float) -> None:
        if seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._hurry.wait()
        self._hurry.clear()

    async def _step(self) -> None:
        steps = {"discover": self._discover, "list": self._list, "watch": self._watch}
        try:
            await steps[self.reflector.step]()
        except Refused as exc:
            await self._refused(exc)
        except Unanswered:
            self.reflector.unanswered()
            await self._api.reset()
        except Exception as exc:  # noqa: BLE001 - whatever a server sends, it is asked again
            self.reflector.broken(type(exc).__name__, f"{exc or type(exc).__name__}")
            await self._api.reset()
        self._changed()

    async def _refused(self, refusal: Refused) -> None:
        message = refusal.message
        if refusal.code == 404:
            # The server is there, and the kind is not.
            self._note_contact()
        if refusal.code == 401:
            message += "; the credentials have expired, or are those of another cluster; they are read again"
            self._connection.renew()
            await self._api.reset()
        if refusal.code == 403 and self.reflector.step != "discover":
            self.denied_at = monotonic()
            message = await explain_denial(self._api, self.reflector.kind, self.reflector.namespace, message)
        self.reflector.refused(refusal.code, message, refusal.retry_after)

    async def _discover(self) -> None:
        group = await self._api.get(self.reflector.kind.group_path, {}, "application/json")
        versions = group.get("versions") if isinstance(group, dict) else None
        if not isinstance(versions, list):
            raise MalformedAnswer("a group without versions")
        self.reflector.discovered([str(each.get("version")) for each in versions if isinstance(each, dict)])
        self._note_contact()

    async def _list(self) -> None:
        reflector = self.reflector
        params = {**self._params, "limit": str(_PAGE)}
        if reflector.continue_token:
            params["continue"] = reflector.continue_token
        accept = reflector.kind.accept(is_list=True)
        body = await self._api.get(reflector.kind.path(reflector.version, reflector.namespace), params, accept)
        self._note_contact()
        reflector.page(body)
        if reflector.listed and self.listed_at is None:
            self.listed_at = monotonic()

    async def _watch(self) -> None:
        reflector, seconds = self.reflector, random.randint(*_WATCH_SECONDS)
        params = {
            **self._params,
            "watch": "1",
            "resourceVersion": reflector.resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        path = reflector.kind.path(reflector.version, reflector.namespace)
        lines = await self._api.watch(path, params, reflector.kind.accept(is_list=False))
        async with aclosing(lines):
            reflector.opened()
            self._note_contact()
            await self._read(lines, seconds)

    async def _read(self, lines: Lines, seconds: int) -> None:
        """Take the events of a watch, until it ends or has to be left."""
        reflector, since = self.reflector, monotonic()
        while reflector.step == "watch":
            self._changed()
            limit = _BOOKMARK_SILENCE if reflector.bookmarked else seconds + _SILENCE
            try:
                events = await lines.next(limit)
            except TimeoutError:
                reflector.silent()
                return
            if events is None:
                reflector.ended(monotonic() - since)
                return
            self._note_contact()
            self._take(events)

    def _take(self, events: list[Any]) -> None:
        for event in events:
            self.reflector.line(event)
            if self.reflector.step != "watch":
                return

    def _note_contact(self) -> None:
        self.last_contact = monotonic()
