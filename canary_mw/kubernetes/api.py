"""Requests to the API of a cluster: a group, a page of a list, a watch, and which rights there are."""

import asyncio
import json
from contextlib import aclosing
from functools import cache
from importlib import import_module
from typing import Any

import httpx

from canary_mw.config.document import on_one_line
from canary_mw.kubernetes.backoff import retry_after_of
from canary_mw.kubernetes.credentials import Connection, tls_context
from canary_mw.kubernetes.reflector import MalformedAnswer

# Seconds for a connection, for a status line, and for the rest of an answer that is no watch.
CONNECT_TIMEOUT, HEAD_TIMEOUT, BODY_TIMEOUT = 5.0, 10.0, 30.0
# Bytes of an answer, and of one event.
_MAX_BODY, _MAX_LINE = 128 << 20, 16 << 20
_MAX_MESSAGE = 300


class Refused(Exception):
    """A status other than 200 or 201; `reason` tells two kinds of 409 apart, `method` is that of the request."""

    def __init__(self, code: int, message: str, retry_after: float, reason: str = "", method: str = "GET") -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after, self.reason = code, message, retry_after, reason
        self.method = method


class Unanswered(Exception):
    """No status line in time."""


class Api:
    """A client of an API server, for one task.

    It uses a transport of httpx without the client around it, which would log each request by a logger of the host.
    Nothing of the environment counts: the proxy of a pod must not get what is for the API server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def reset(self) -> None:
        """Close the connection: the next one reads certificates again."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def get(self, path: str, params: dict[str, str], accept: str) -> Any:
        """The body of an answer.

        Raises:
            Refused, Unanswered, MalformedAnswer: there is none.
            httpx.HTTPError, OSError: the server cannot be reached.
        """
        return await self._json(self._request("GET", path, params, accept))

    async def post(self, path: str, body: Any) -> Any:
        """The answer to a new object; see `get`."""
        return await self._json(self._request("POST", path, {}, "application/json", body))

    async def put(self, path: str, body: Any) -> Any:
        """The answer to another version of an object; see `get`."""
        return await self._json(self._request("PUT", path, {}, "application/json", body))

    async def watch(self, path: str, params: dict[str, str], accept: str) -> "Lines":
        """Open a watch; the caller closes it. See `get`."""
        return Lines(await self._send(self._request("GET", path, params, accept)))

    def _request(self, method: str, path: str, params: dict[str, str], accept: str, body: Any = None) -> httpx.Request:
        headers = {"accept": accept, "user-agent": "canary-mw"}
        token = self._connection.token()
        if token:
            headers["authorization"] = f"Bearer {token}"
        extensions: dict[str, Any] = {"timeout": {"connect": CONNECT_TIMEOUT}}
        if self._connection.server_name:
            extensions["sni_hostname"] = self._connection.server_name
        url = httpx.URL(self._connection.server + path, params=params)
        return httpx.Request(method, url, headers=headers, json=body, extensions=extensions)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        if self._transport is None:
            self._transport = _transport(self._connection)
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                response = await self._transport.handle_async_request(request)
        except TimeoutError:
            raise Unanswered from None
        response.request = request
        if response.status_code not in (200, 201):
            async with aclosing(response):
                raise await _refused(response)
        return response

    async def _json(self, request: httpx.Request) -> Any:
        async with aclosing(await self._send(request)) as response:
            return _decode(await _body(response))


class Lines:
    """The events of a watch."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._chunks: Any = response.aiter_raw()
        self._rest = bytearray()

    async def next(self, silence: float) -> list[Any] | None:
        """The next events that are there, at least one; None at the end of the watch.

        Raises:
            TimeoutError: the server was silent for this many seconds.
            MalformedAnswer: it sends no JSON.
            httpx.HTTPError: the connection was cut.
        """
        while True:
            async with asyncio.timeout(silence):
                chunk = await anext(self._chunks, None)
            if chunk is None:
                return None
            self._rest += chunk
            if b"\n" in chunk and (events := self._whole_lines()):
                return events
            if len(self._rest) > _MAX_LINE:
                raise MalformedAnswer("an event is too long")

    def _whole_lines(self) -> list[Any]:
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return [_decode(line) for line in lines if line.strip()]

    async def aclose(self) -> None:
        """Leave the watch."""
        await self._chunks.aclose()
        await self._response.aclose()


@cache
def preload() -> None:
    """Import what httpx loads at its first request: a fork meanwhile would leave a child with a held lock."""
    for name in ("anyio._backends._asyncio", "anyio.streams.tls", "httpcore"):
        import_module(name)


def _transport(connection: Connection) -> httpx.AsyncHTTPTransport:
    verify = tls_context(connection) if connection.server.startswith("https") else False
    return httpx.AsyncHTTPTransport(verify=verify, proxy=connection.proxy, trust_env=False)


async def _body(response: httpx.Response) -> bytes:
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in response.aiter_raw():
                parts.append(chunk)
                size += len(chunk)
                if size > _MAX_BODY:
                    raise MalformedAnswer("an answer is too long")
    except TimeoutError:
        raise MalformedAnswer(f"an answer is not complete after {BODY_TIMEOUT:.0f} s") from None
    return b"".join(parts)


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedAnswer("an answer is no JSON") from None


async def _refused(response: httpx.Response) -> Refused:
    """What the server says; a kind that is not installed is refused with a plain text."""
    body = await _body(response)
    message, reason = body[:_MAX_MESSAGE].decode("utf-8", "replace").strip(), ""
    try:
        status = json.loads(body)
        message, reason = str(status["message"])[:_MAX_MESSAGE], str(status.get("reason", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    message = on_one_line(message)
    retry_after = retry_after_of(response.headers.get("retry-after"))
    return Refused(response.status_code, message, retry_after, reason, response.request.method)
