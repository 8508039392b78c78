"""The WSGI middleware: requests as an environ has them, and what only WSGI servers do."""

import asyncio
import io
import os
import threading
import time
from collections.abc import Iterable, Iterator, KeysView
from typing import Any, cast
from wsgiref.validate import validator

import httpx
import pytest
from servers import fetch, mapping, run
from upstream import Peer, answering, forever, serving, until
from wsgiservers import hello, respond, serving_wsgi

from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.exceptions import BadTarget, ClientDisconnected, ClientError, LengthRequired, UpstreamTimeout
from canary_mw.middleware.wsgi import environ as environ_module
from canary_mw.middleware.wsgi.environ import request_head
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.middleware.wsgi.request_body import CHUNK_SIZE, RecordingInput, RequestBody
from canary_mw.observability.events import Finished
from canary_mw.observability.observers import Observer
from canary_mw.types import Environ, StartResponse, WSGIApp
from canary_mw.upstreams.body_buffer import SyncReplayBuffer

RULES = (
    mapping("stable", "/shop/", "shop-stable")
    + mapping("gray", "/shop/", "shop-gray", headers="{gray: 'true'}")
    + mapping("chat", "/chat/", "shop-gray", allow_upgrade="[websocket]")
    + mapping("moved", "/old/", "shop-gray", host_redirect="true", path_redirect="/new/")
)
GRAY: dict[str, Any] = {"HTTP_GRAY": "true"}

made: list[CanaryWSGIMiddleware] = []


@pytest.fixture(autouse=True)
def _close_what_was_made() -> Iterator[None]:
    yield
    while made:
        made.pop().close()


def wrapped(app: WSGIApp = hello, port: int = 1, /, **options: Any) -> CanaryWSGIMiddleware:
    """The middleware around an app, with the gray service on a port of this machine."""
    options.setdefault("rules", StaticSource(RULES))
    options.setdefault("local", "shop-stable")
    options.setdefault("upstreams", {"shop-gray": f"http://127.0.0.1:{port}"})
    made.append(CanaryWSGIMiddleware(app, **options))
    return made[-1]


def environ_of(target: str = "/", method: str = "GET", body: bytes = b"", /, **more: Any) -> Environ:
    """The environ of a server that gives the raw target; None removes a key."""
    path, _, query = target.partition("?")
    given = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": target,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "shop.example",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "192.0.2.1",
        "HTTP_HOST": "shop.example",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        **({"CONTENT_LENGTH": str(len(body))} if body else {}),
        **more,
    }
    return {key: value for key, value in given.items() if value is not None}


class Call:
    """One call of an app, and what it answered."""

    def __init__(self, app: WSGIApp, environ: Environ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks = app(environ, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        self.status = int(status.split(" ", 1)[0])
        self.headers = dict(headers)

    def body(self) -> bytes:
        try:
            return b"".join(self.chunks)
        finally:
            if hasattr(self.chunks, "close"):
                self.chunks.close()


# environ -> RequestHead


@pytest.mark.parametrize(
    ("given", "path", "query"),
    [
        ({"RAW_URI": "/a%2Fb?c=%20"}, b"/a%2Fb", b"?c=%20"),
        ({"RAW_URI": None, "REQUEST_URI": "/a%2Fb?c"}, b"/a%2Fb", b"?c"),
        ({"RAW_URI": "http://shop.example/a?b"}, b"/a", b"?b"),
        ({"RAW_URI": None, "PATH_INFO": "/\xc3\xa4 b", "QUERY_STRING": "q=1"}, b"/%C3%A4%20b", b"?q=1"),
        ({"RAW_URI": None, "SCRIPT_NAME": "/app", "PATH_INFO": "/b"}, b"/b", b""),
        ({"RAW_URI": None, "SCRIPT_NAME": "", "PATH_INFO": ""}, b"/", b""),
        ({"RAW_URI": None, "REQUEST_METHOD": "OPTIONS", "PATH_INFO": "*"}, b"*", b""),
    ],
)
def test_the_target_is_the_raw_one_or_is_built_anew(given: dict[str, Any], path: bytes, query: bytes) -> None:
    head = request_head(environ_of(**given))
    assert (head.path, head.query) == (path, query)


@pytest.mark.parametrize(
    "given",
    [
        {"RAW_URI": "http://A.Example:80/a%20b?c"},
        {"REQUEST_URI": "https://A.Example/a%20b?c"},
        {"PATH_INFO": "http://A.Example/a b"},
    ],
)
@pytest.mark.parametrize("host", ["a.example", None])
def test_host_and_path_of_an_absolute_target_are_one_view_for_rules_and_app(
    given: dict[str, Any], host: str | None
) -> None:
    environ = environ_of(**{"RAW_URI": None, "HTTP_HOST": host, **given})
    head = request_head(environ)
    authority = "A.Example:80" if "RAW_URI" in given else "A.Example"
    assert (head.path, head.host) == (b"/a%20b", authority.encode())
    assert dict(head.headers)[b"host"] == authority.encode()
    assert environ["HTTP_HOST"] == authority
    assert environ["PATH_INFO"] == ("/a b" if "PATH_INFO" in given else environ_of()["PATH_INFO"])


@pytest.mark.parametrize(
    "target", ["http://b.example/a", "http://me@a.example/a", "http:///a", "https://a.example:80/"]
)
@pytest.mark.parametrize("key", ["RAW_URI", "REQUEST_URI", "PATH_INFO"])
def test_an_absolute_target_for_another_host_is_refused(key: str, target: str) -> None:
    with pytest.raises(BadTarget):
        request_head(environ_of(**{"RAW_URI": None, "HTTP_HOST": "a.example", key: target}))


@pytest.mark.parametrize("target", ["/\xe4", "/a#b", "/%00"])
def test_a_target_that_is_ambiguous_is_refused(target: str) -> None:
    with pytest.raises(BadTarget):
        request_head(environ_of(target))
    with pytest.raises(ClientError):
        request_head(environ_of(REQUEST_METHOD="BREW"))


def test_headers_are_read_when_somebody_asks() -> None:
    environ = environ_of(CONTENT_TYPE="", CONTENT_LENGTH="3", HTTP_X_A_B=" 1\t", HTTP_GRAY="true", **{"x.y": object()})
    head = request_head(environ)
    assert head._pairs is None
    assert head.headers == [(b"host", b"shop.example"), (b"content-length", b"3"), (b"x-a-b", b"1"), (b"gray", b"true")]
    assert head.header(b"gray") == b"true"
    other = head.replace(path=b"/other")
    assert (other.path, other.headers) == (b"/other", head.headers)
    assert head.replace(headers=[]).headers == []


@pytest.mark.parametrize("name", [b"host", b"content-type", b"content-length", b"x-a-b", b"x_a_b", b"gray"])
def test_one_header_is_found_as_if_all_were_read(name: bytes) -> None:
    environ = environ_of(CONTENT_TYPE="", CONTENT_LENGTH="3", HTTP_X_A_B=" 1\t")
    read, unread = request_head(environ), request_head(environ)
    value = dict(read.headers).get(name)
    assert unread.header(name) == read.header(name) == value
    assert unread._pairs is None
    for head in (unread, read):
        assert head.any_value_matches(name, lambda found: found == value) is (value is not None)
        assert not head.any_value_matches(name, lambda _: False)


def test_headers_that_were_taken_out_are_not_found_in_the_environ() -> None:
    head = request_head(environ_of(HTTP_GRAY="true")).replace(headers=[])
    assert head.header(b"gray") is None
    assert not head.any_value_matches(b"gray", lambda _: True)
    assert not hasattr(head, "something else")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"REMOTE_PORT": "1234", "SERVER_PORT": "80"}, ("192.0.2.1", 1234, 80)),
        ({"REMOTE_ADDR": "", "SERVER_PORT": ""}, (None, 0, 0)),
        ({"REMOTE_ADDR": None, "SERVER_PORT": 8080}, (None, 0, 8080)),
        ({"REMOTE_ADDR": "localhost", "REMOTE_PORT": "None", "SERVER_PORT": "80"}, ("localhost", 0, 80)),
    ],
)
def test_the_peer_may_be_unknown(given: dict[str, Any], wanted: tuple[str | None, int, int]) -> None:
    head = request_head(environ_of(**given))
    assert (head.client, head.client_port, head.server_port) == wanted


def test_names_of_headers_are_not_remembered_without_end() -> None:
    for number in range(3000):
        request_head(environ_of(**{f"HTTP_X_{number}": "1"})).headers  # noqa: B018 - read for its effect
    assert len(environ_module._names) <= 1024
    assert (b"x-2999", b"1") in request_head(environ_of(HTTP_X_2999="1")).headers


@pytest.mark.parametrize("junk", ["HTTP_X_{}", "HTTP_{:060}", "OTHER_{}"])
def test_names_that_nobody_sends_again_make_room_for_those_of_every_request(junk: str) -> None:
    for number in range(3000):
        request_head(environ_of(**{junk.format(number): "1"})).headers  # noqa: B018 - read for its effect
    usual = environ_of(HTTP_X_NEVER_SEEN_BEFORE="1")
    # The cache may have been replaced in the middle of the first one.
    for _ in range(2):
        request_head(usual).headers  # noqa: B018 - read for its effect
    assert usual.keys() <= environ_module._names.keys()


def test_a_long_name_is_a_header_that_is_not_remembered() -> None:
    name = "X_" + "A" * 60_000
    assert (name.replace("_", "-").lower().encode(), b"1") in request_head(environ_of(**{"HTTP_" + name: "1"})).headers
    assert max(map(len, environ_module._names)) <= 64


def test_names_are_read_from_one_cache_while_another_thread_replaces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Replaced(dict[str, bytes | None]):
        """Is replaced by an empty one as soon as it was found to hold all names."""

        def keys(self) -> KeysView[str]:  # type: ignore[override]
            monkeypatch.setattr(environ_module, "_names", {})
            return super().keys()

    given = environ_of(HTTP_X_A="1")
    wanted = request_head(given).headers
    monkeypatch.setattr(environ_module, "_names", Replaced(environ_module._names))
    assert request_head(given).headers == wanted


# The body


def test_a_short_body_comes_in_one_chunk_and_a_long_one_in_several() -> None:
    assert RequestBody(environ_of("/", "GET", b"abc"), 3).open() == b"abc"
    data = bytes(2 * CHUNK_SIZE + 5)
    chunks = list(RequestBody(environ_of("/", "GET", data), len(data)).open())
    assert [len(chunk) for chunk in chunks if isinstance(chunk, bytes)] == [CHUNK_SIZE, CHUNK_SIZE, 5]


def test_no_more_is_read_than_the_length_says() -> None:
    environ = environ_of("/", "GET", b"abcdef")
    assert RequestBody(environ, 3).open() == b"abc"
    assert environ["wsgi.input"].read() == b"def"


def test_a_body_of_a_server_that_ends_it_needs_no_length() -> None:
    body = RequestBody(environ_of("/", "GET", b"abc", **{"wsgi.input_terminated": True}), None).open()
    assert list(body) == [b"abc"]
    with pytest.raises(LengthRequired):
        RequestBody(environ_of(), None)


class Broken:
    """An input that fails as that of gunicorn does."""

    def read(self, size: int) -> bytes:
        raise OSError("gone")


@pytest.mark.parametrize("source", [io.BytesIO(b"ab"), Broken()])
def test_a_body_that_breaks_off_is_not_a_body(source: Any) -> None:
    with pytest.raises(ClientDisconnected):
        RequestBody(environ_of(**{"wsgi.input": source}), 3).open()


def recording_input(length: int | None = None) -> tuple[RecordingInput, list[bytes | None]]:
    """An input, and the bodies that its buffer reports as complete."""
    whole: list[bytes | None] = []
    buffer = SyncReplayBuffer(None, 10)
    buffer.when_complete(whole.append)
    return RecordingInput(io.BytesIO(b"ab\ncd\n"), buffer, length), whole


@pytest.mark.parametrize(
    "read",
    [
        lambda source: source.read() + source.read(),
        lambda source: b"".join(iter(lambda: source.read(2), b"")),
        lambda source: source.readline() + source.readline(1) + source.readline() + source.readline(),
        lambda source: b"".join(source.readlines()),
        lambda source: b"".join(source.readlines(3)) + b"".join(source.readlines()),
        lambda source: b"".join(source),
        lambda source: source.read(0) + source.read(None) + source.readline(-1),
    ],
)
@pytest.mark.parametrize("length", [6, None])
def test_what_an_app_reads_is_recorded_however_it_reads(read: Any, length: int | None) -> None:
    source, whole = recording_input(length=length)
    assert read(source) == b"ab\ncd\n"
    assert whole == [b"ab\ncd\n"]


def test_what_an_app_reads_by_another_method_is_not_copied() -> None:
    source, whole = recording_input()
    assert source.read1(2) == b"ab"
    assert whole == [None]


# What goes to the wrapped app


def test_the_local_service_and_what_matches_nothing_go_to_the_app_untouched() -> None:
    seen: list[Environ] = []
    given = [b"app"]

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        respond(start_response, b"app")
        return given

    middleware = wrapped(app)
    for target in ("/shop/a%2Fb", "/other"):
        environ = environ_of(target)
        before = dict(environ)
        call = Call(middleware, environ)
        assert call.chunks is given
        assert seen[-1] is environ
        decision = environ.pop("canary_mw.decision")
        assert environ == before
        assert (decision and decision.mapping.name) == ("stable" if target != "/other" else None)


def test_exceptions_of_the_app_pass_unchanged() -> None:
    error = LookupError("of the app")

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise error

    options: dict[str, Any]
    for options in ({}, {"observers": [Ends()]}):
        with pytest.raises(LookupError) as caught:
            Call(wrapped(app, **options), environ_of("/shop/"))
        assert caught.value is error


def test_a_shared_store_is_not_stopped_by_one_of_its_users() -> None:
    store = RuleStore(StaticSource(RULES), local=["shop-stable"], middleware=True)
    middleware = wrapped(rules=store)
    assert Call(middleware, environ_of("/shop/")).status == 200
    middleware.close()
    assert any(thread.name == "canary-mw-rules" for thread in threading.enumerate())
    store.stop()


def test_a_middleware_that_was_closed_starts_again() -> None:
    # Threads of other tests in this process may still be ending.
    before = set(threading.enumerate())
    middleware = wrapped()
    for _ in range(2):
        assert Call(middleware, environ_of("/old/")).status == 301
        middleware.close()
    assert not any(thread.name.startswith("canary-mw") for thread in set(threading.enumerate()) - before)


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/shop/", {}, 200),
        ("/else", {}, 200),
        ("/shop/", GRAY, 200),
        ("/app/", {}, 200),
        ("/copied/", {}, 200),
        ("/%00", {}, 400),
        ("/dead/", {}, 503),
    ],
)
def test_server_and_app_see_nothing_but_what_the_standard_allows(
    target: str, headers: dict[str, Any], status: int, observed: bool
) -> None:
    """The validator of the standard library stands on both sides of the middleware."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        while environ["wsgi.input"].read(2):
            pass
        return respond(start_response, b"from the app", headers=[("content-type", "text/plain")])

    strict = cast(WSGIApp, validator(cast(Any, app)))
    rules = RULES + mapping("app", "/app/", "cart") + mapping("copied", "/copied/", "shop-stable")
    rules += mapping("copies", "/copied/", "dead", shadow="true") + mapping("dead", "/dead/", "dead")

    async def main() -> None:
        typed = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
        async with serving(answering(typed)) as upstream:
            urls = {"dead": "http://127.0.0.1:1", "shop-gray": f"http://127.0.0.1:{upstream.origin.port}"}
            options: dict[str, Any] = {"rules": StaticSource(rules), "upstreams": urls, "services": {"cart": strict}}
            middleware = wrapped(strict, 1, **options, observers=[Ends()] if observed else [], shadow_writes=True)
            environ = environ_of(target, "POST", b"abc", **headers, **WHOLE)
            strict_middleware = cast(WSGIApp, validator(cast(Any, middleware)))
            call = await asyncio.to_thread(Call, strict_middleware, environ)
            await asyncio.to_thread(call.body)
            assert call.status == status

    run(main())


# What the validator also checks.
WHOLE = {
    "wsgi.version": (1, 0),
    "wsgi.errors": io.StringIO(),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}


# What cannot be forwarded


def test_a_websocket_is_refused_with_the_reason() -> None:
    upgrade: dict[str, Any] = {"HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket"}
    call = Call(wrapped(), environ_of("/chat/", **upgrade))
    assert (call.status, call.body()) == (403, b"websockets cannot pass a WSGI server\n")
    assert Call(wrapped(), environ_of("/shop/", **upgrade)).body() == b"from the app"


def test_a_chunked_body_needs_a_server_that_ends_it() -> None:
    middleware = wrapped()
    call = Call(middleware, environ_of("/shop/", "POST", HTTP_TRANSFER_ENCODING="chunked", **GRAY))
    assert call.status == 411
    assert b"length of the request body is not known" in call.body()
    assert middleware.refusals.refused == {411: 1}


def test_a_head_that_cannot_be_forwarded_is_a_bad_request_here_and_the_apps_there() -> None:
    broken: dict[str, Any] = {"CONTENT_LENGTH": "2", "HTTP_TRANSFER_ENCODING": "chunked"}
    assert Call(wrapped(), environ_of("/shop/", "POST", **broken, **GRAY)).status == 400
    assert Call(wrapped(), environ_of("/shop/", "POST", **broken)).status == 200


def test_no_header_for_one_hop_reaches_the_server() -> None:
    for environ in (environ_of("/%00"), environ_of("/old/"), environ_of("/shop/", HTTP_VIA="1.1 canary-mw-me", **GRAY)):
        call = Call(wrapped(hop_id="me"), environ)
        assert call.status in (400, 301, 508)
        assert not {"connection", "transfer-encoding", "keep-alive"} & {name.lower() for name in call.headers}


def test_a_server_that_gives_up_ends_the_call_to_the_upstream() -> None:
    """One that raises when the answer begins, and a client that leaves within its upload."""

    async def main() -> None:
        gone: list[bytes] = []

        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            gone.append(await peer.gone())

        def refuse(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            raise LookupError(status)

        async with serving(script) as upstream:
            middleware = wrapped(hello, upstream.origin.port)
            with pytest.raises(LookupError, match="200 OK"):
                await asyncio.to_thread(middleware, environ_of("/shop/", **GRAY), refuse)
            await until(lambda: len(gone) == 1)
            ends = Ends()
            again = "service: shop-gray\n  retry_policy: {retry_on: 5xx}"
            for rules in (RULES, RULES.replace("service: shop-gray", again)):
                middleware = wrapped(hello, upstream.origin.port, observers=[ends], rules=StaticSource(rules))
                environ = environ_of("/shop/", "POST", b"abc", **{**GRAY, "CONTENT_LENGTH": "100"})
                assert (await asyncio.to_thread(Call, middleware, environ)).body() == b""
            assert [(each.status, each.reason) for each in ends.found] == [(400, "client left")] * 2
            assert upstream.accepted == 1

    run(main())


def test_an_app_that_fails_ends_the_copy_of_its_request() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raise LookupError

    rules = mapping("a", "/a/", "up") + mapping("shadow", "/a/", "dark", shadow="true")
    middleware = wrapped(app, rules=StaticSource(rules), local="up", shadow_writes=True)
    with pytest.raises(LookupError):
        Call(middleware, environ_of("/a/", "POST", b"abc"))
    middleware.upstreams.background.run(asyncio.sleep(0))
    assert middleware.shadows.counts["skipped_body"] == 1


# Services of this process


def test_an_app_may_answer_for_a_service() -> None:
    seen: list[Environ] = []

    def gray(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ)
        start_response("207 Fine", [("Keep-Alive", "1"), ("X-Mine", "1")])
        return [environ["wsgi.input"].read(2)]

    middleware = wrapped(services={"SHOP-gray": gray})
    call = Call(middleware, environ_of("/shop/%C3%A4?q", "POST", b"hi", HTTP_COOKIE="a=1", **GRAY))
    assert (call.status, call.body(), call.headers) == (207, b"hi", {"x-mine": "1"})
    (environ,) = seen
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/\xc3\xa4", "q")
    assert environ["RAW_URI"] == "/%C3%A4?q"
    assert environ["CONTENT_LENGTH"] == "2"
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.1"
    assert environ["canary_mw.decision"].variant == "gray"
    assert Call(middleware, environ_of("/old/")).status == 301


def test_an_app_of_a_service_may_begin_late_and_change_its_mind() -> None:
    def gray(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("x-first", "1")])
        start_response("500 Broken", [("x-second", "1")], (LookupError, LookupError(), None))
        yield b"sorry"

    call = Call(wrapped(services={"shop-gray": gray}), environ_of("/shop/", **GRAY))
    assert call.body() == b"sorry"
    assert (call.status, call.headers) == (500, {"x-second": "1"})


# httpx transports for threads


@pytest.mark.parametrize(
    ("error", "seconds", "status"),
    [
        (httpx.ConnectError("refused"), 0.0, 503),
        (httpx.PoolTimeout("full"), 0.0, 503),
        (httpx.PoolTimeout("full"), 0.2, 504),
        (httpx.ReadTimeout("late"), 0.0, 504),
        (httpx.RemoteProtocolError("odd"), 0.0, 502),
    ],
)
def test_errors_of_a_transport_are_handled_as_those_of_our_client(
    error: Exception, seconds: float, status: int
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert 0 < request.extensions["timeout"]["read"] <= 0.1
        time.sleep(seconds)
        raise error

    rules = StaticSource(mapping("a", "/a/", "up", timeout_ms=100))
    call = Call(wrapped(rules=rules, transports={"up": httpx.MockTransport(answer)}), environ_of("/a/"))
    assert call.status == status


@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream"])
def test_the_answer_of_a_transport_has_to_come_in_time_unless_it_streams_events(kind: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        yield b""
        time.sleep(0.2)
        yield b"two"
        yield b"three"

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": kind}, content=chunks())

    rules = StaticSource(mapping("a", "/a/", "up", timeout_ms=100))
    middleware = wrapped(rules=rules, transports={"up": httpx.MockTransport(answer)})
    call = Call(middleware, environ_of("/a/"))
    if kind == "text/event-stream":
        assert call.body() == b"onetwothree"
    else:
        with pytest.raises(UpstreamTimeout):
            call.body()


def test_a_long_upload_passes_a_transport_in_chunks_and_a_part_of_the_answer_is_enough() -> None:
    sizes: list[int] = []

    class Taking(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            assert isinstance(request.stream, httpx.SyncByteStream)
            sizes.extend(len(chunk) for chunk in request.stream)
            return httpx.Response(200, content=iter([b"a", b"b"]))

    middleware = wrapped(transports={"shop-gray": Taking()})
    call = Call(middleware, environ_of("/shop/", "POST", bytes(CHUNK_SIZE + 1), **GRAY))
    chunks = iter(call.chunks)
    assert next(chunks) == b"a"
    call.chunks.close()  # type: ignore[attr-defined]
    assert list(chunks) == []
    assert sizes == [CHUNK_SIZE, 1]


# Observers


class Ends(Observer):
    """Keeps the ends."""

    def __init__(self) -> None:
        self.found: list[Finished] = []

    def finished(self, record: Finished) -> None:
        self.found.append(record)


def test_observers_are_notified_of_the_end_of_a_body_however_it_comes() -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [])
        yield b"a"
        if environ["PATH_INFO"] == "/shop/broken":
            raise LookupError
        yield b"b"

    ends = Ends()
    middleware = wrapped(app, observers=[ends])
    whole = Call(middleware, environ_of("/shop/"))
    assert ends.found == []
    assert whole.body() == b"ab"
    left = Call(middleware, environ_of("/shop/"))
    assert next(iter(left.chunks)) == b"a"
    left.chunks.close()  # type: ignore[attr-defined]
    with pytest.raises(LookupError):
        Call(middleware, environ_of("/shop/broken")).body()
    assert [(each.status, each.reason) for each in ends.found] == [
        (200, None),
        (200, "client left"),
        (200, "LookupError"),
    ]


def test_a_body_of_one_chunk_keeps_its_length_for_the_server() -> None:
    middleware = wrapped(observers=[Ends()])
    assert len(Call(middleware, environ_of("/shop/")).chunks) == 1  # type: ignore[arg-type]


def test_a_chunked_answer_gets_no_length_however_fast_it_comes() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

    async def main() -> None:
        for segments in ((head + b"2\r\nok\r\n0\r\n\r\n",), (head, b"2\r\nok\r\n0\r\n\r\n")):
            async with (
                serving(answering(*segments)) as upstream,
                serving_wsgi(wrapped(hello, upstream.origin.port)) as port,
            ):
                answer = await fetch(port, "/shop/", headers=[("gray", "true")])
                names = {name for name, _ in answer.headers}
                assert (answer.body, b"content-length" in names, b"transfer-encoding" in names) == (b"ok", False, True)

    run(main())


# Processes and threads


def test_a_forked_child_forwards_by_itself() -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            rules = RULES + mapping("shadow", "/shop/", "dark", shadow="true")
            # The name makes the background loop look it up, in each process by itself.
            urls = {"shop-gray": f"http://{NAME}:{upstream.origin.port}", "dark": "http://127.0.0.1:1"}
            middleware = wrapped(rules=StaticSource(rules), upstreams=urls)
            async with serving_wsgi(middleware) as port:
                assert (await fetch(port, "/shop/", headers=[("gray", "true")])).body == b"1"
                reading, writing = os.pipe()
                child = os.fork()
                if child == 0:
                    os.write(writing, Call(middleware, environ_of("/shop/", **GRAY)).body())
                    os._exit(0)
                os.close(writing)
                await until(lambda: os.waitpid(child, os.WNOHANG)[0])
                assert os.read(reading, 10) == b"2"
                os.close(reading)
                assert (await fetch(port, "/shop/", headers=[("gray", "true")])).body == b"1"

    run(main())


# Not "localhost", which is not looked up.
NAME = "ip4-loopback.invalid"


@pytest.fixture(autouse=True)
def _known_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that stands for 127.0.0.1."""
    import socket

    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == NAME else host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_that_is_unknown_is_503() -> None:
    call = Call(wrapped(upstreams={"shop-gray": "http://nowhere.invalid"}), environ_of("/shop/", **GRAY))
    assert (call.status, call.body()) == (503, b"upstream shop-gray is not reachable\n")


def test_a_shadow_over_a_transport_is_sent_from_the_background() -> None:
    copies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        copies.append(request.read())
        return httpx.Response(200, content=b"nobody's")

    async def main() -> None:
        rules = mapping("a", "/a/", "up") + mapping("shadow", "/a/", "dark", shadow="true")
        transport = httpx.MockTransport(answer)
        transports = {"dark": transport, "up": transport}
        middleware = wrapped(rules=StaticSource(rules), transports=transports, shadow_writes=True)
        async with serving_wsgi(middleware) as port:
            assert (await fetch(port, "/a/", "POST", body=b"abc")).status == 200
            await until(lambda: middleware.shadows.counts["sent"])
        assert copies == [b"abc"] * 2

    run(main())


def test_answers_go_to_the_threads_that_asked() -> None:
    async def echo(peer: Peer) -> None:
        while True:
            await peer.answer((await peer.request()).line)

    async def main() -> None:
        async with serving(echo) as upstream:
            middleware = wrapped(hello, upstream.origin.port)
            wrong: list[bytes] = []

            def ask(thread: int) -> None:
                for number in range(50):
                    body = Call(middleware, environ_of(f"/shop/{thread}/{number}", **GRAY)).body()
                    if body != b"GET /%d/%d HTTP/1.1" % (thread, number):
                        wrong.append(body)

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
            for thread in threads:
                thread.start()
            await until(lambda: not any(thread.is_alive() for thread in threads))
            assert wrong == []
            assert upstream.accepted <= 16

    run(main())
