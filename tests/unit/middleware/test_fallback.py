"""The safety net of a release on real sockets: every row of its table, wherever canary-mw stands."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gray import ASGI, PLACES, PROXY, STABLE, WSGI, app_world, rules, world
from servers import client_of, fetch, mapping, run, serving_app
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from upstream import until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from canary_mw.observability.events import Decided, Finished
from canary_mw.observability.observers import Observer
from canary_mw.observability.prometheus import Metrics
from canary_mw.types import Message, Scope

# All failures but those of a test are rescued.
OPEN = "budget: {percent: 100, min: 1000}"
# Only for a gray that never answers: on a busy machine others may take as long.
QUICK = f"{{gray_timeout_ms: 300, {OPEN}}}"
PATIENT = f"{{gray_timeout_ms: 20000, {OPEN}}}"
LARGE = b"0123456789abcdef" * 20000


class Row(NamedTuple):
    """A request, and whether stable answers it, or what else comes."""

    method: str
    path: str
    kind: str | None
    result: str | None = "ok"
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    whole: bool = True


TABLE = [
    # Nothing was sent: any method, any body.
    Row("GET", "/shop-dead/x", "connect"),
    Row("POST", "/shop-dead/x", "connect", body=b"a little"),
    Row("POST", "/shop-dead/x", "connect", body=LARGE),
    Row("DELETE", "/shop-dead/x", "connect"),
    Row("GET", "/shop-full/x", "overload"),
    Row("POST", "/shop-full/x", "overload", body=LARGE),
    # The request was sent.
    Row("GET", "/shop/reset", "reset"),
    Row("HEAD", "/shop/gone", "reset"),
    Row("GET", "/shop/garbage", "reset"),
    Row("GET", "/shop/502", "502"),
    Row("OPTIONS", "/shop/503", "503"),
    Row("GET", "/shop/504", "504"),
    Row("GET", "/shop/half", "503"),
    Row("GET", "/shop/endless", "503"),
    Row("GET", "/shop/hint", "503"),
    Row("GET", "/shop-again/503?again", "503"),
    Row("POST", "/shop/503", "503", "refused", 503),
    Row("DELETE", "/shop/503", "503", "refused", 503),
    Row("POST", "/shop/gone", "reset", "refused", 503),
    Row("GET", "/shop/503", "503", "refused", 503, body=b"a body"),
    Row("PUT", "/shop/503", "503", "refused", 503, body=LARGE),
    # Any other status, and what broke too late.
    Row("GET", "/shop/500", "500", None, 500),
    Row("GET", "/shop/404", None, None, 404),
    Row("GET", "/shop/ok", None, None),
    Row("GET", "/shop/cut", "reset", "refused", whole=False),
    # Who asks for gray by name sees gray.
    Row("GET", "/shop/503", "503", None, 503, headers=(("x-gray", "v2"),)),
    Row("GET", "/shop-dead/x", "connect", None, 503, headers=(("x-gray", "v2"),)),
]


@pytest.mark.parametrize("place", PLACES)
def test_every_row_of_the_table(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with world(place, PATIENT, tmp_path=tmp_path) as seen:
            failures: dict[str, int] = {}
            results: dict[tuple[str, str], int] = {}
            for row in TABLE:
                asked = len(seen.stable.bodies)
                answer = await fetch(seen.port, row.path, row.method, row.headers, row.body)
                assert (answer.status, answer.whole) == (row.status, row.whole), row
                rescued = row.result == "ok"
                if row.method != "HEAD":
                    assert (STABLE in answer.body) == rescued, row
                    assert not (rescued and b"gray" in answer.body), row
                assert seen.stable.bodies[asked:] == ([row.body] if rescued else []), row
                assert answer.header("x-canary-variant") == "v2"
                if row.kind:
                    failures[row.kind] = failures.get(row.kind, 0) + 1
                if row.kind and row.result:
                    results[row.kind, row.result] = results.get((row.kind, row.result), 0) + 1
                await until(partial(seen.has_failures, sum(failures.values())))
                assert seen.failures() == {("shop-2", "v2", kind): count for kind, count in failures.items()}, row
                assert seen.results() == results, row
            # Answers that are not read to their end are closed, and not kept for other requests.
            await until(lambda: seen.gray.ended >= 6)
            assert seen.gray.took(b"?again") == 2

    run(main())


@pytest.mark.parametrize("place", PLACES)
def test_a_gray_without_a_head_in_time_has_failed_retries_included(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        text = rules(QUICK, stable=not place.endswith("/app"), use_websocket="true")
        async with world(place, text=text, tmp_path=tmp_path) as seen:
            assert (await fetch(seen.port, "/shop-again/silent")).body.startswith(STABLE)
            assert seen.gray.took(b"/silent") == 1
            if not place.startswith("wsgi"):
                assert await greeted(seen.port, Handshake("/shop/silent", None, None, "")) == "stable: hello"
            wanted = 1 if place.startswith("wsgi") else 2
            await until(partial(seen.has_failures, wanted))
            assert seen.results() == {("timeout", "ok"): wanted}

    run(main())


class Handshake(NamedTuple):
    """A websocket, and who answers: a variant, or a refusal with a status."""

    path: str
    kind: str | None
    result: str | None
    answer: str | int
    by_name: bool = False


HANDSHAKES = [
    Handshake("/shop/accept", None, None, "gray: hello"),
    Handshake("/shop/503", "503", "ok", "stable: hello"),
    Handshake("/shop/garbage", "reset", "ok", "stable: hello"),
    Handshake("/shop/reset", "reset", "ok", "stable: hello"),
    Handshake("/shop-dead/x", "connect", "ok", "stable: hello"),
    Handshake("/shop-full/x", "overload", "ok", "stable: hello"),
    Handshake("/shop/500", "500", None, 500),
    Handshake("/shop/404", None, None, 404),
    Handshake("/shop/503", "503", None, 503, by_name=True),
]


@pytest.mark.parametrize("place", ["asgi/upstream", "asgi/app", "asgi/service", "proxy/upstream"])
def test_a_handshake_that_fails_is_as_a_get(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        text = rules(PATIENT, stable=place != "asgi/app", use_websocket="true")
        async with world(place, text=text, tmp_path=tmp_path) as seen:
            for number, each in enumerate(HANDSHAKES, 1):
                asked = len(seen.stable.bodies)
                assert await greeted(seen.port, each) == each.answer, each
                assert len(seen.stable.bodies) - asked == (each.result == "ok"), each
                kinds = [earlier.kind for earlier in HANDSHAKES[:number] if earlier.kind]
                await until(partial(seen.has_failures, len(kinds)))
                assert seen.failures() == {("shop-2", "v2", kind): kinds.count(kind) for kind in kinds}, each

    run(main())


async def greeted(port: int, handshake: Handshake) -> str | int:
    """What comes back for a message, or the status of a refusal."""
    headers = {"x-gray": "v2"} if handshake.by_name else {}
    opening = connect(f"ws://127.0.0.1:{port}{handshake.path}", additional_headers=headers)
    try:
        client = await opening
    except InvalidStatus as exc:
        return exc.response.status_code
    async with client:
        assert client.response is not None
        assert client.response.headers["x-canary-variant"] == "v2"
        await client.send("hello")
        return str(await client.recv())


@pytest.mark.parametrize("place", ["asgi/upstream", "asgi/app", "proxy/upstream"])
def test_a_websocket_that_breaks_later_goes_nowhere_else(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        text = rules(PATIENT, stable=place != "asgi/app", use_websocket="true")
        async with world(place, text=text, tmp_path=tmp_path) as seen:
            async with connect(f"ws://127.0.0.1:{seen.port}/shop/accept") as client:
                await client.send("cut")
                with pytest.raises(ConnectionClosed):
                    await client.recv()
            await until(lambda: seen.gray.ended)
            assert not seen.stable.bodies

    run(main())


@pytest.mark.parametrize("place", PLACES)
def test_a_body_is_repeated_up_to_the_length_that_the_release_says(place: str, tmp_path: Path) -> None:
    settings = f"{{methods: [GET, POST, PUT], body: 100000, {OPEN}}}"
    chunked = b"POST /shop/503 HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"

    async def main() -> None:
        async with world(place, settings, tmp_path=tmp_path) as seen:
            for size, rescued in ((1, True), (100000, True), (100001, False), (500000, False)):
                body = LARGE[:1] * size if size > len(LARGE) else LARGE[:size]
                answer = await fetch(seen.port, "/shop/503", "PUT", (), body)
                assert answer.status == (200 if rescued else 503), size
                assert answer.body == (b"stable: " + body if rescued else b"gray")
                # Before the body was read: its length is known, and the rest goes to stable.
                answer = await fetch(seen.port, "/shop/early", "PUT", (), body)
                if rescued:
                    assert answer.body == b"stable: " + body
                else:
                    assert answer.body == b"gray"
            async with client_of(seen.port) as client:
                await client.put(chunked + b"4\r\nfour\r\n6\r\nchunks\r\n0\r\n\r\n")
                assert (await client.answer()).body == b"stable: fourchunks"

    run(main())


@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY, "asgi/app", "wsgi/app"])
def test_a_budget_that_is_used_up_leaves_the_answer_of_gray(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with world(place, "{budget: {percent: 50, min: 0}}", tmp_path=tmp_path) as seen:
            answers = [await fetch(seen.port, "/shop/503") for _ in range(10)]
            assert [answer.status for answer in answers] == [503, 200] * 5
            assert answers[0].body == b"gray"
            refused = await fetch(seen.port, "/shop-dead/x")
            assert (refused.status, b"not reachable" in refused.body) == (503, True)
            assert seen.failures() == {("shop-2", "v2", "503"): 10, ("shop-2", "v2", "connect"): 1}
            assert seen.results() == {("503", "ok"): 5, ("503", "denied"): 5, ("connect", "denied"): 1}
            assert len(seen.stable.bodies) == 5

    run(main())


@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY])
def test_requests_of_stable_count_for_the_budget(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        fallback = "{budget: {percent: 10, min: 0}}"
        async with world(place, fallback, tmp_path=tmp_path, text=rules(fallback, gray=0)) as seen:
            for _ in range(19):
                assert (await fetch(seen.port, "/shop/503", headers=[("x-gray", "stable")])).status == 200
            assert not seen.failures()
            window = seen.nets._windows["shop-2"][1]
            assert (sum(window._requests), sum(window._fallbacks)) == (19, 0)

    run(main())


class Log(Observer):
    """Keeps the records."""

    def __init__(self) -> None:
        self.requests: list[Decided] = []
        self.ends: list[Finished] = []

    def decided(self, record: Decided) -> None:
        self.requests.append(record)

    def finished(self, record: Finished) -> None:
        self.ends.append(record)

    def has(self, number: int) -> bool:
        return len(self.ends) >= number


@pytest.mark.parametrize("place", PLACES)
def test_a_rescued_request_is_recorded_as_what_it_was_assigned_to(place: str, tmp_path: Path) -> None:
    log = Log()

    async def main() -> None:
        async with world(place, PATIENT, tmp_path=tmp_path, observer=log) as seen:
            requests = [("GET", "/shop/503"), ("POST", "/shop-dead/x"), ("POST", "/shop/503"), ("GET", "/shop/ok")]
            for number, (method, path) in enumerate(requests, 1):
                await fetch(seen.port, path, method)
                await until(partial(log.has, number))

    run(main())
    rows = [(end.mapping, end.variant, end.status, end.answered_by, end.fallback) for end in log.ends]
    assert rows == [
        ("gray", "gray", 200, "stable", "503"),
        ("gray-dead", "gray", 200, "stable", "connect"),
        ("gray", "gray", 503, None, None),
        ("gray", "gray", 200, None, None),
    ]


@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY])
def test_a_stable_side_that_fails_too_is_a_fallback_that_failed(place: str, tmp_path: Path) -> None:
    log = Log()

    async def main() -> None:
        async with world(place, PATIENT, tmp_path=tmp_path, observer=log) as seen:
            answer = await fetch(seen.port, "/shop/down/503")
            assert answer.status == 503
            assert b"stable" in answer.body
            assert seen.results() == {("503", "failed"): 1}
            await until(lambda: log.ends)

    run(main())
    assert [(end.answered_by, end.fallback) for end in log.ends] == [(None, "503")]


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_trusted_callers_are_told_why_stable_answers(place: str, trusted: bool, tmp_path: Path) -> None:
    peers = ["127.0.0.1"] if trusted else []
    options: dict[str, Any] = {"forwarded_allow_ips": tuple(peers)} if place == PROXY else {"trusted": peers}

    async def main() -> None:
        async with world(place, PATIENT, tmp_path=tmp_path, **options) as seen:
            for path, kind in (("/shop/503", "503"), ("/shop-dead/x", "connect")):
                answer = await fetch(seen.port, path)
                assert answer.header("x-canary-fallback") == (kind if trusted else None)
            assert (await fetch(seen.port, "/shop/ok")).header("x-canary-fallback") is None
            assert (await fetch(seen.port, "/shop/503", "POST")).header("x-canary-fallback") is None

    run(main())


@pytest.mark.parametrize("place", [ASGI, "asgi/app", PROXY])
def test_nobody_is_asked_for_a_client_that_has_left(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with world(place, f"{{gray_timeout_ms: 0, {OPEN}}}", tmp_path=tmp_path) as seen:
            async with client_of(seen.port) as client:
                await client.ask("GET", "/shop/silent")
                await until(lambda: seen.gray.seen)
            # The request to gray is given up.
            await until(lambda: seen.gray.ended)
            assert not seen.stable.bodies
            assert not seen.failures()

    run(main())


@pytest.mark.parametrize("path", ["/shop/503", "/shop-dead/x"])
@pytest.mark.parametrize("side", ["upstream", "app"])
def test_a_client_that_is_known_to_have_left_is_looked_for_before_stable_is_asked(side: str, path: str) -> None:
    left: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return left.pop(0) if len(left) > 1 else left[0]

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        async with world(f"asgi/{side}", PATIENT) as seen:
            await seen.app(http_scope(path), receive, send)
            assert (sent, seen.stable.bodies, seen.failures()) == ([], [], {})

    run(main())


def http_scope(path: str) -> Scope:
    """The scope of a GET."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"shop.example")],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 80),
    }


class Passing(BaseHTTPMiddleware):
    """A layer outside that reads ahead: what its `receive` has taken is lost when that is cancelled."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


def test_a_layer_outside_loses_no_message_of_the_request() -> None:
    async def main() -> None:
        async with world("asgi/app", PATIENT) as seen, serving_app(Passing(seen.app), lifespan="off") as port:
            for path in ("/shop/503", "/shop/reset", "/shop-dead/x"):
                assert (await fetch(port, path)).body == b"stable: "
            assert (await fetch(port, "/shop-dead/x", "POST", (), LARGE)).body == b"stable: " + LARGE

    run(main())


@pytest.mark.parametrize("place", ["asgi/app", "asgi/service", "wsgi/app", "wsgi/service"])
def test_the_app_sees_the_decision_of_stable(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with world(place, PATIENT) as seen:
            assert (await fetch(seen.port, "/shop/503")).body == b"stable: "
            (decision,) = seen.stable.decisions
            assert (decision.variant, decision.release.variant, decision.release.reason) == (
                "stable",
                "stable",
                "fallback",
            )

    run(main())


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY])
def test_what_a_lost_connection_may_have_brought_to_gray_counts_as_sent(
    place: str, method: str, tmp_path: Path
) -> None:
    servers: list[asyncio.Server] = []

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngray")
        # The second request gets lost, and so do all other connections: the last error is that nobody listens.
        await reader.readuntil(b"\r\n\r\n")
        servers[0].close()
        writer.close()

    async def main() -> None:
        servers.append(await asyncio.start_server(answer_once, "127.0.0.1", 0))
        port = servers[0].sockets[0].getsockname()[1]
        async with world(place, PATIENT, tmp_path=tmp_path, dead=port) as seen:
            assert (await fetch(seen.port, "/shop-dead/x")).body == b"gray"
            answer = await fetch(seen.port, "/shop-dead/x", method)
            assert answer.body.startswith(STABLE) == (method == "GET")
            await until(partial(seen.has_failures, 1))
            assert seen.results() == {("connect", "ok" if method == "GET" else "refused"): 1}

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY])
def test_the_time_of_gray_ends_with_its_head(place: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with world(place, f"{{gray_timeout_ms: 1000, {OPEN}}}", tmp_path=tmp_path) as seen:
            answer = await fetch(seen.port, "/shop/slow")
            assert (answer.body, answer.whole) == (b"slow body", True)
            assert not seen.failures()

    run(main())


@pytest.mark.parametrize("place", ["wsgi/upstream", "wsgi/app", "wsgi/service"])
def test_a_wsgi_server_has_the_head_with_the_first_byte_of_the_body(place: str) -> None:
    async def main() -> None:
        async with world(place, PATIENT) as seen:
            assert (await fetch(seen.port, "/shop/bare")).body == b"stable: "
            posted = await fetch(seen.port, "/shop/bare", "POST")
            assert (posted.status, posted.body.startswith(STABLE)) == (502, False)
            await until(partial(seen.has_failures, 2))
            assert seen.results() == {("reset", "ok"): 1, ("reset", "refused"): 1}

    run(main())


@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY])
def test_both_tries_have_one_request_id_and_the_shadow_gets_one_copy(place: str, tmp_path: Path) -> None:
    text = rules(PATIENT) + mapping("copy", "/shop/", "stable", shadow="true", prefix_exact="false")

    async def main() -> None:
        async with world(place, text=text, tmp_path=tmp_path) as seen:
            assert (await fetch(seen.port, "/shop/503?shadow")).status == 200
            await until(lambda: len(seen.stable.ids) == 2)
            gray = next(line for line in seen.gray.seen[0].headers if line.startswith(b"x-request-id"))
            assert seen.stable.ids == [gray, gray]

    run(main())


@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY])
def test_a_release_without_a_safety_net_leaves_failures_as_they_are(place: str, tmp_path: Path) -> None:
    text = rules("{}").replace("fallback: {}\n", "")

    async def main() -> None:
        async with world(place, text=text, tmp_path=tmp_path) as seen:
            for path in ("/shop/503", "/shop-dead/x", "/shop/gone"):
                assert (await fetch(seen.port, path)).status == 503
            assert not seen.failures()
            assert not seen.stable.bodies
            assert not seen.nets._windows

    run(main())


def test_the_metrics_have_what_the_safety_net_counts(tmp_path: Path) -> None:
    async def main() -> bytes:
        metrics = Metrics()
        async with world(ASGI, PATIENT, observer=metrics) as seen:
            await fetch(seen.port, "/shop/503")
            await fetch(seen.port, "/shop/500")
            return metrics.render()

    text = run(main()).decode()
    labels = 'release="shop-2",variant="v2"'
    for kind in ("500", "503"):
        assert _sample(text, "canary_mw_gray_failures_total", f'kind="{kind}"', labels) == 1.0
    assert _sample(text, "canary_mw_fallbacks_total", 'kind="503"', 'result="ok"', labels) == 1.0


def _sample(text: str, name: str, *labels: str) -> float:
    """The value of the sample that has these labels."""
    wanted = {label for group in labels for label in group.split(",")}
    for line in text.splitlines():
        if line.startswith(name + "{"):
            found, _, value = line.removeprefix(name + "{").rpartition("} ")
            if wanted <= set(found.split(",")):
                return float(value)
    raise AssertionError(f"no {name} with {wanted} in {text}")


@pytest.mark.parametrize("side", ["upstream", "app"])
@pytest.mark.parametrize("kind", ["local", "service"])
def test_an_app_is_a_gray_variant_like_any_upstream(interface: str, kind: str, side: str) -> None:
    settings = f"{{on: [502, 503, 504, 500], methods: [GET, PUT], body: 1000, {OPEN}}}"

    async def main() -> None:
        async with app_world(interface, kind, side, settings) as seen:
            for path in ("/shop/503", "/shop/endless", "/shop/early", "/shop/raise", "/shop/hint"):
                answer = await fetch(seen.port, path)
                assert (answer.status, answer.body) == (200, b"stable: "), path
                assert answer.header("x-canary-variant") == "v2"
            # What gray has read is read again, and what it has not is there.
            for path in ("/shop/503", "/shop/early"):
                answer = await fetch(seen.port, path, "PUT", (), b"a body")
                assert answer.body == b"stable: a body", path
            assert (await fetch(seen.port, "/shop/ok", "PUT", (), LARGE)).body == b"gray"
            assert seen.gray.bodies[-1] == LARGE
            assert (await fetch(seen.port, "/shop/503", "PUT", (), LARGE)).status == 503
            assert (await fetch(seen.port, "/shop/503", "POST")).status == 503
            assert (await fetch(seen.port, "/shop/404")).status == 404
            assert (await fetch(seen.port, "/shop/503", headers=[("x-gray", "v2")])).body == b"gray"
            results = {(key.kind, result): count for (key, result), count in seen.nets.counters.fallbacks().items()}
            assert results == {("503", "ok"): 6, ("500", "ok"): 1, ("503", "refused"): 2}

    run(main())


@pytest.mark.parametrize("side", ["upstream", "app"])
def test_a_handshake_that_a_gray_app_denies_is_as_a_get(side: str) -> None:
    async def main() -> None:
        async with app_world("asgi", "service", side, PATIENT) as seen:
            for path, answer in (("ok", "gray"), ("503", "stable"), ("early", "stable")):
                assert await greeted(seen.port, Handshake(f"/shop/{path}", None, None, "")) == f"{answer}: hello"
            assert await greeted(seen.port, Handshake("/shop/404", None, None, "")) == 404
            assert await greeted(seen.port, Handshake("/shop/503", None, None, "", by_name=True)) == 503

    run(main())


def shares(place: str, tmp_path: Path, fallback: str, number: int) -> tuple[dict[int, int], dict[tuple[str, str], int]]:
    """The statuses of so many requests, half of them for a gray that answers 503, and what the net did."""
    statuses: dict[int, int] = {}

    async def ask(port: int, share: int) -> None:
        async with client_of(port) as client:
            for _ in range(share):
                answer = await client.get("GET", "/shop/503")
                assert (answer.body == b"gray") == (answer.status == 503)
                assert answer.whole
                statuses[answer.status] = statuses.get(answer.status, 0) + 1

    async def main() -> dict[tuple[str, str], int]:
        text = rules(fallback, gray=50)
        async with world(place, text=text, tmp_path=tmp_path) as seen:
            await asyncio.gather(*(ask(seen.port, number // 40) for _ in range(40)))
            assert sum(seen.failures().values()) == seen.gray.took(b"/503")
            return seen.results()

    return statuses, run(main())


@pytest.mark.slow
@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY])
def test_a_budget_of_all_leaves_no_failure(place: str, tmp_path: Path) -> None:
    statuses, results = shares(place, tmp_path, "{budget: {percent: 100, min: 0, interval: 60}}", 2000)
    assert statuses == {200: 2000}
    assert list(results) == [("503", "ok")]


@pytest.mark.slow
@pytest.mark.parametrize("place", [ASGI, WSGI, PROXY])
def test_a_budget_of_a_fifth_rescues_a_fifth_of_all(place: str, tmp_path: Path) -> None:
    statuses, results = shares(place, tmp_path, "{budget: {percent: 20, min: 0, interval: 60}}", 2000)
    assert 340 <= results["503", "ok"] <= 400
    assert results["503", "denied"] == statuses[503]
    assert statuses[200] + statuses[503] == 2000
