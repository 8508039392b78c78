"""Bounds of what a server may send, and of the time that it may take."""

from typing import Any

import pytest
from clusters import in_loop
from servers import serving_app

from canary_mw.kubernetes import api as api_module
from canary_mw.kubernetes.api import Api, Refused, Unanswered
from canary_mw.kubernetes.credentials import Connection
from canary_mw.kubernetes.reflector import MalformedAnswer
from canary_mw.types import Receive, Scope, Send

JSON = "application/json"


class Server:
    """It sends a head and some pieces; then it ends, or waits until the client has left.

    Attributes:
        seen: paths with queries, and headers.
    """

    def __init__(self, *pieces: bytes, status: int = 200, waits: bool = False, silent: bool = False) -> None:
        self.pieces, self.status, self.waits, self.silent = pieces, status, waits, silent
        self.headers: list[tuple[bytes, bytes]] = []
        self.seen: list[tuple[str, dict[bytes, bytes]]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append((scope["path"] + "?" + scope["query_string"].decode(), dict(scope["headers"])))
        if not self.silent:
            await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
            for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        while self.waits and (await receive())["type"] != "http.disconnect":
            pass
        if not self.silent:
            await send({"type": "http.response.body", "body": b""})


async def got(server: Server, **connection: Any) -> Any:
    """What a get of a served server gives."""
    async with serving_app(server, lifespan="off") as port:
        api = Api(Connection(server=f"http://127.0.0.1:{port}", namespace="shop", **connection))
        try:
            return await api.get("/api", {"limit": "5"}, JSON)
        finally:
            await api.reset()


@in_loop
async def test_a_body_is_put_together() -> None:
    server = Server(b'{"a":', b"1}")
    assert await got(server, token=lambda: "abc") == {"a": 1}
    ((path, headers),) = server.seen
    assert path == "/api?limit=5"
    assert (headers[b"authorization"], headers[b"accept"], headers[b"user-agent"]) == (
        b"Bearer abc",
        b"application/json",
        b"canary-mw",
    )


@in_loop
async def test_a_server_that_sends_no_status_line_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "HEAD_TIMEOUT", 0.05)
    with pytest.raises(Unanswered):
        await got(Server(waits=True, silent=True))


@in_loop
async def test_a_body_that_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "BODY_TIMEOUT", 0.05)
    with pytest.raises(MalformedAnswer, match="not complete"):
        await got(Server(b'{"a":', waits=True))


@in_loop
async def test_a_body_that_is_too_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "_MAX_BODY", 100)
    with pytest.raises(MalformedAnswer, match="too long"):
        await got(Server(b" " * 101, waits=True))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"404 page not found\n", "404 page not found"),
        (b'{"kind": "Status", "message": "so\\nit is"}', r"so\nit is"),
        (b"[]", "[]"),
        (b"\xff" * 1000, "\ufffd" * 300),
        (b"", ""),
    ],
)
@in_loop
async def test_a_refusal_has_its_message_on_one_line(body: bytes, message: str) -> None:
    server = Server(body, status=404)
    server.headers = [(b"retry-after", b"7")]
    with pytest.raises(Refused) as caught:
        await got(server)
    assert (caught.value.code, caught.value.message, caught.value.retry_after) == (404, message, 7.0)


@in_loop
async def test_a_redirect_is_not_followed() -> None:
    server = Server(status=302)
    server.headers = [(b"location", b"http://127.0.0.1:9/")]
    with pytest.raises(Refused):
        await got(server, token=lambda: "abc")


@in_loop
async def test_events_are_cut_at_line_feeds_alone() -> None:
    server = Server(b'{"a"', b': "\xe2\x80\xa8"}\n{"b":', b"2}\n\n", b'{"c": 3}\n', waits=True)
    async with serving_app(server, lifespan="off") as port:
        api = Api(Connection(server=f"http://127.0.0.1:{port}", namespace="shop"))
        lines = await api.watch("/api", {"watch": "1"}, JSON)
        events: list[Any] = []
        while len(events) < 3:
            events += await lines.next(5.0) or ["the end"]
        assert events == [{"a": "\u2028"}, {"b": 2}, {"c": 3}]
        with pytest.raises(TimeoutError):
            await lines.next(0.01)
        await lines.aclose()
        await api.reset()


@in_loop
async def test_an_event_that_is_too_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "_MAX_LINE", 100)
    async with serving_app(Server(b"x" * 101, waits=True), lifespan="off") as port:
        api = Api(Connection(server=f"http://127.0.0.1:{port}", namespace="shop"))
        lines = await api.watch("/api", {}, JSON)
        with pytest.raises(MalformedAnswer, match="too long"):
            await lines.next(5.0)
        await lines.aclose()
        await api.reset()


@in_loop
async def test_the_proxy_of_a_kubeconfig_gets_the_requests() -> None:
    server = Server(b"{}")
    async with serving_app(server, lifespan="off") as port:
        where = Connection(server="http://k8s.example/base", namespace="shop", proxy=f"http://127.0.0.1:{port}")
        api = Api(where)
        assert await api.get("/api", {}, JSON) == {}
        await api.reset()
    ((path, headers),) = server.seen
    assert path.startswith("/base/api")
    assert headers[b"host"] == b"k8s.example"
