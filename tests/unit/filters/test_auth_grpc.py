"""An AuthService over gRPC: what it is asked, and what its answers do, through both middlewares."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import pytest
from auth_rules import auth_service, headers_of
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from google.protobuf.json_format import MessageToDict, ParseDict
from grpc_peer import OK, Connection
from grpc_peer import serving as serving_grpc
from middlewares import middleware, serving_middleware
from servers import Answer, fetch, mapping, run
from upstream import Peer, serving

from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import UpstreamProtocolError
from canary_mw.forwarding.filters import auth_grpc
from canary_mw.forwarding.filters.calls import AskGrpc, HttpAnswer
from canary_mw.forwarding.filters.grpc_calls import fields_of
from canary_mw.rules.upstream import DEFAULT_OPTIONS
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

RULES = (
    mapping("shop", "/shop/", "shop", auth_context_extensions="{team: blue}")
    + mapping("gray", "/shop/", "gray", headers="{x-user: vip}")
    + mapping("other", "/other/", "gray")
    + mapping("named", "/shop/", "gray", host="other.example")
    + mapping("free", "/free/", "shop", bypass_auth="true")
)
GRPC = {"proto": "grpc", "protocol_version": "v3"}
ALLOWED: dict[str, Any] = {"status": {"code": 0}}


class Outcome(NamedTuple):
    """What one request has led to.

    Attributes:
        checks: what the service was asked.
        seen: what upstreams have got: by whom, the target, the headers.
    """

    answer: Answer
    checks: list[dict[str, Any]]
    seen: list[tuple[str, str, dict[str, str]]]

    @property
    def http(self) -> dict[str, Any]:
        """The request in the only check."""
        (check,) = self.checks
        found: dict[str, Any] = check["attributes"]["request"]["http"]
        return found


class Said(NamedTuple):
    """A status of gRPC instead of an answer, or bytes that are none."""

    status: str = "0"
    message: bytes = b""


class Guarded:
    """A middleware that runs, its service and its upstreams.

    Attributes:
        said: what the service answers next.
    """

    def __init__(self) -> None:
        self.said: dict[str, Any] | Said = ALLOWED
        self.port = 0
        self._checks: list[dict[str, Any]] = []
        self._seen: list[tuple[str, str, dict[str, str]]] = []

    def check(self, connection: Connection) -> None:
        """The service."""
        while (asked := connection.take()) is not None:
            message = CheckRequest.FromString(asked.message)
            self._checks.append(MessageToDict(message, preserving_proto_field_name=True))
            said = self.said
            if isinstance(said, Said):
                connection.answer(asked, said.message, [("grpc-status", said.status)])
            else:
                connection.answer(asked, ParseDict(said, CheckResponse()).SerializeToString(), OK)

    def upstream(self, name: str) -> Any:
        """The script of an upstream."""

        async def script(peer: Peer) -> None:
            while True:
                request = await peer.request()
                self._seen.append((name, request.line.split()[1].decode("latin-1"), headers_of(request)))
                await peer.answer(name.encode())

        return script

    async def ask(
        self,
        said: dict[str, Any] | Said,
        path: str = "/shop/x",
        *headers: tuple[str, str],
        method: str = "GET",
        body: bytes = b"",
    ) -> Outcome:
        """Make one request, about which the service says so."""
        self.said = said
        self._checks.clear()
        self._seen.clear()
        answer = await fetch(self.port, path, method, list(headers), body)
        return Outcome(answer, [*self._checks], [*self._seen])


@contextlib.asynccontextmanager
async def guarded(**attributes: str) -> AsyncIterator[Guarded]:
    """A middleware behind an AuthService with these attributes."""
    made = Guarded()
    with serving_grpc(made.check) as service:
        async with serving(made.upstream("shop")) as shop, serving(made.upstream("gray")) as gray:
            ports = {"auth": service.origin.port, "shop": shop.origin.port, "gray": gray.origin.port}
            served = middleware(
                rules=StaticSource(RULES + auth_service(**{**GRPC, **attributes})),
                upstreams={name: f"http://127.0.0.1:{port}" for name, port in ports.items()},
            )
            async with serving_middleware(served) as made.port:
                yield made


def ok(**fields: object) -> dict[str, Any]:
    """An answer that allows a request, and changes it."""
    return {**ALLOWED, "ok_response": fields}


def header(key: str, value: str, **more: object) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, **more}


def texts(answer: Answer) -> list[tuple[str, str]]:
    """The headers of an answer."""
    return [(name.decode(), value.decode("latin-1")) for name, value in answer.headers]


def test_a_service_is_told_of_the_whole_request(interface: str) -> None:
    async def main() -> None:
        sent = [("x-tok", "1"), ("x-tok", "2"), ("cookie", "a=1"), ("cookie", "b=2"), ("host", "Shop.Example:8080")]
        async with guarded() as behind:
            outcome = await behind.ask(ALLOWED, "/shop/a%7Eb/../c?y=1&z=%2F", *sent)
        assert (outcome.answer.status, outcome.answer.body) == (200, b"shop")
        http = outcome.http
        headers = http.pop("headers")
        assert http.pop("id")
        assert http == {
            "method": "GET",
            "path": "/shop/c?y=1&z=%2F",
            "host": "Shop.Example:8080",
            "scheme": "http",
            "protocol": "HTTP/1.1",
        }
        assert headers[":path"] == "/shop/c?y=1&z=%2F"
        assert (headers[":method"], headers[":scheme"], headers[":authority"]) == ("GET", "http", "Shop.Example:8080")
        assert headers["x-forwarded-for"] == "127.0.0.1"
        if interface == "asgi":
            # WSGI has joined them before.
            assert (headers["x-tok"], headers["cookie"]) == ("1,2", "a=1; b=2")
        attributes = outcome.checks[0]["attributes"]
        assert attributes["context_extensions"] == {"team": "blue"}
        assert attributes["source"]["address"]["socket_address"]["address"] == "127.0.0.1"
        assert attributes["metadata_context"] == attributes["route_metadata_context"] == {}
        assert attributes["request"]["time"]

    run(main())


def test_service_and_upstream_know_a_request_by_the_same_id(interface: str) -> None:
    async def main() -> None:
        async with guarded() as behind:
            for sent in ((), (("x-request-id", "of-the-client"),)):
                outcome = await behind.ask(ALLOWED, "/shop/", *sent)
                told = outcome.http["headers"]["x-request-id"]
                assert outcome.seen[0][2]["x-request-id"] == told
                assert told == "of-the-client" if sent else len(told) > 8

    run(main())


BODIES: dict[bytes, dict[str, str]] = {
    b"hello": {"body": "hello", "size": "5"},
    b"\xff\x00\x01": {"raw_body": "/wAB", "size": "3"},
    b"0123456789": {"body": "01234567", "size": "10"},
    b"": {},
}


def test_a_body_is_sent_as_it_is(interface: str) -> None:
    async def main() -> None:
        lie = ("x-envoy-auth-partial-body", "lies")
        async with guarded(include_body="{max_bytes: 8, allow_partial: true}") as behind:
            for body, wanted in BODIES.items():
                outcome = await behind.ask(ALLOWED, "/shop/", lie, method="POST", body=body)
                assert outcome.answer.status == 200
                http = outcome.http
                assert {name: http[name] for name in ("body", "raw_body", "size") if name in http} == wanted
                partial = ("true" if len(body) > 8 else "false") if body else None
                assert http["headers"].get("x-envoy-auth-partial-body") == partial

    run(main())


@pytest.mark.parametrize(
    ("value", "text"), [(b"caf\xe9", "caf!"), ("caf\xe9".encode(), "caf\xe9"), (b"\xff\xfe\xe4x", "!!!x"), (b"", "")]
)
def test_bytes_that_are_no_text_are_marked(value: bytes, text: str) -> None:
    assert auth_grpc._text(value) == text


# Requests that go on.


GO_ON: list[dict[str, Any]] = [ALLOWED, {}, {"status": {}}, {"denied_response": {}}]


def test_code_0_and_no_status_let_a_request_go_on(interface: str) -> None:
    async def main() -> None:
        async with guarded() as behind:
            for said in GO_ON:
                outcome = await behind.ask(said)
                assert (outcome.answer.status, [name for name, *_ in outcome.seen]) == (200, ["shop"])

    run(main())


def test_headers_of_an_answer_are_set_appended_and_removed(interface: str) -> None:
    async def main() -> None:
        said = ok(
            headers=[
                header("X-Set", "service"),
                header("x-has", "more", append=True),
                header("x-none", "dropped", append=True),
                {"header": {"key": "x-raw", "raw_value": "w6Q="}, "append_action": "OVERWRITE_IF_EXISTS"},
                header("connection", "x-set"),
                header("content-length", "7"),
                header(":method", "DELETE"),
            ],
            headers_to_remove=["X-Gone", "host", ":path", "via"],
        )
        sent = [("x-set", "client"), ("x-has", "one"), ("x-gone", "1"), ("x-stays", "1")]
        async with guarded() as behind:
            outcome = await behind.ask(said, "/shop/", *sent)
        ((_, target, headers),) = outcome.seen
        assert target == "/"
        assert headers["x-set"] == "service"
        assert headers["x-has"] == "one,more"
        assert headers["x-raw"] == "\xc3\xa4"
        assert headers["x-stays"] == "1"
        assert headers["host"]
        assert not {"x-none", "x-gone", "content-length"} & headers.keys()

    run(main())


def test_no_spelling_of_a_header_brings_what_the_service_grants(interface: str) -> None:
    async def main() -> None:
        sent = [("x_user", "admin"), ("x-role", "root")]
        async with guarded(allowed_authorization_headers="[x-role]") as behind:
            outcome = await behind.ask(ok(headers=[header("x-user", "bob")]), "/shop/", *sent)
        ((_, _, headers),) = outcome.seen
        assert headers["x-user"] == "bob"
        assert not {"x_user", "x-role"} & headers.keys()

    run(main())


def test_no_client_keeps_from_the_upstream_what_a_service_sets(interface: str) -> None:
    async def main() -> None:
        said = ok(headers=[header("x-set", "1"), header("x-own", "2", append=True)])
        async with guarded() as behind:
            outcome = await behind.ask(said, "/shop/x", ("connection", "X-Set, x-own"), ("x-own", "1"))
        ((_, _, headers),) = outcome.seen
        assert (headers["x-set"], headers["x-own"]) == ("1", "1,2")

    run(main())


ELSEWHERE = [
    (header("x-user", "vip"), ("gray", "/x")),
    (header(":path", "/other/a/../b?c=d"), ("gray", "/b?c=d")),
    (header("host", "other.example"), ("gray", "/x")),
]


def test_a_change_may_lead_elsewhere(interface: str) -> None:
    async def main() -> None:
        async with guarded() as behind:
            for change, wanted in ELSEWHERE:
                outcome = await behind.ask(ok(headers=[change]))
                ((name, target, _),) = outcome.seen
                assert (name, target) == wanted
                assert len(outcome.checks) == 1

    run(main())


QUERIES = {
    "": "?b=x%20y&n=%C3%A4",
    "?a=1&b=2&keep=%2F&b=3&gone": "?a=1&keep=%2F&b=x%20y&n=%C3%A4",
    "?%62=2&g%6fne=1&g+n=1&x": "?g+n=1&x&b=x%20y&n=%C3%A4",
}


def test_query_parameters_are_set_and_removed_in_any_spelling(interface: str) -> None:
    async def main() -> None:
        parameters = [{"key": "b", "value": "x y"}, {"key": "n", "value": "\xe4"}]
        said = ok(query_parameters_to_set=parameters, query_parameters_to_remove=["gone"])
        async with guarded() as behind:
            for query, wanted in QUERIES.items():
                outcome = await behind.ask(said, "/shop/" + query)
                assert outcome.seen[0][1] == "/" + wanted

    run(main())


def test_headers_for_the_client_are_added_to_the_answer(interface: str) -> None:
    async def main() -> None:
        added = [header("x-added", "1"), header("set-cookie", "a=1"), header("set-cookie", "b=2"), header("te", "x")]
        async with guarded() as behind:
            outcome = await behind.ask(ok(response_headers_to_add=added))
        assert outcome.answer.body == b"shop"
        given = [pair for pair in texts(outcome.answer) if pair[0] in ("x-added", "set-cookie", "te")]
        assert sorted(given) == [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("x-added", "1")]

    run(main())


async def showing(scope: Scope, receive: Receive, send: Send) -> None:
    """What an ASGI app gets."""
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    told = [scope["path"], scope["query_string"].decode(), headers.get("host"), headers.get("x-set")]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def wsgi_showing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The same of a WSGI app."""
    told = [environ[name] for name in ("PATH_INFO", "QUERY_STRING", "HTTP_HOST")]
    start_response("200 OK", [])
    return [json.dumps([*told, environ.get("HTTP_X_SET")]).encode()]


def test_an_app_gets_what_the_service_has_changed(interface: str) -> None:
    def check(connection: Connection) -> None:
        said = ok(
            headers=[header(":path", "/new%20path?a=1"), header("host", "other"), header("x-set", "1")],
            query_parameters_to_set=[{"key": "b", "value": "2"}],
            response_headers_to_add=[header("x-added", "1")],
        )
        while (asked := connection.take()) is not None:
            connection.answer(asked, ParseDict(said, CheckResponse()).SerializeToString())

    async def main() -> None:
        with serving_grpc(check) as service:
            served = middleware(
                showing if interface == "asgi" else wsgi_showing,
                rules=StaticSource(auth_service(**GRPC)),
                upstreams={"auth": f"http://{service.origin.authority}"},
            )
            async with serving_middleware(served) as port:
                answer = await fetch(port, "/old?c=3", headers=[("x-set", "client")])
        assert json.loads(answer.body) == ["/new path", "a=1&b=2", "other", "1"]
        assert ("x-added", "1") in texts(answer)

    run(main())


# Requests that do not.

COOKIES = [header("set-cookie", "a=1", append=True), header("set-cookie", "b=2", append=True)]
DENIED: list[tuple[dict[str, Any], int, bytes]] = [
    ({}, 403, b""),
    ({"status": {"code": 401}}, 401, b""),
    ({"body": "no", "headers": [header("x-any", "1")]}, 403, b"no"),
    ({"status": {"code": 302}, "headers": [header("location", "/login"), *COOKIES]}, 302, b""),
    ({"status": {"code": 200}, "body": "fine"}, 200, b"fine"),
    ({"body": "no", "headers": [header("content-length", "99"), header("connection", "x")]}, 403, b"no"),
]


def test_a_refusal_reaches_the_client_as_the_service_has_written_it(interface: str) -> None:
    async def main() -> None:
        async with guarded() as behind:
            for denied, status, body in DENIED:
                outcome = await behind.ask({"status": {"code": 7}, "denied_response": denied})
                assert (outcome.answer.status, outcome.answer.body, outcome.seen) == (status, body, [])
                headers = texts(outcome.answer)
                for each in denied.get("headers", []):
                    pair = (each["header"]["key"], each["header"]["value"])
                    assert (pair in headers) == (pair[0] not in ("content-length", "connection"))
                if body:
                    assert ("content-type", "text/plain") in headers

    run(main())


FAILURES: dict[str, dict[str, Any] | Said] = {
    "a status of gRPC": Said("14"),
    "permission denied by gRPC": Said("7"),
    "no message": Said("0", b"\xff\xff"),
    "a header that is none": ok(headers=[header("x-a b", "1")]),
    "a value that is none": ok(headers=[header("x-a", "1\r\nx-b: 2")]),
    "a value for the client that is none": ok(response_headers_to_add=[header("x-a", "a\nb")]),
    "a path that is none": ok(headers=[header(":path", "shop\x7f")]),
    "a status that is none": {"status": {"code": 7}, "denied_response": {"status": {"code": 100}}},
}


@pytest.mark.parametrize("status", [403, 500])
def test_a_service_that_fails_closes_the_door(interface: str, status: int) -> None:
    async def main() -> None:
        attributes = {} if status == 403 else {"status_on_error": f"{{code: {status}}}"}
        async with guarded(**attributes) as behind:
            for what, said in FAILURES.items():
                outcome = await behind.ask(said)
                assert (what, outcome.answer.status, outcome.answer.body) == (what, status, b"")
                assert outcome.seen == []

    run(main())


def test_a_service_that_fails_lets_requests_go_on_where_the_document_says_so(interface: str) -> None:
    async def main() -> None:
        async with guarded(failure_mode_allow="true", allowed_authorization_headers="[x-user]") as behind:
            for said in (Said("14"), {"status": {"code": 14}, "error_response": {"status": {"code": 503}}}):
                outcome = await behind.ask(said, "/shop/", ("x-user", "vip"))
                ((name, _, headers),) = outcome.seen
                assert (outcome.answer.status, name) == (200, "shop")
                assert "x-user" not in headers

    run(main())


def test_an_error_of_the_service_has_an_answer_of_its_own(interface: str) -> None:
    async def main() -> None:
        error = {"status": {"code": 503}, "body": "later", "headers": [header("retry-after", "7")]}
        async with guarded() as behind:
            outcome = await behind.ask({"status": {"code": 14}, "error_response": error})
        assert (outcome.answer.status, outcome.answer.body) == (503, b"later")
        assert ("retry-after", "7") in texts(outcome.answer)

    run(main())


def test_a_service_that_is_dead_closes_the_door(interface: str) -> None:
    async def main() -> None:
        served = middleware(
            rules=StaticSource(RULES + auth_service(**GRPC)),
            upstreams={"auth": "http://127.0.0.1:9", "shop": "http://127.0.0.1:9"},
        )
        async with serving_middleware(served) as port:
            answers = await asyncio.gather(*(fetch(port, "/shop/") for _ in range(3)))
        assert [answer.status for answer in answers] == [403] * 3

    run(main())


def test_what_bypasses_the_service_is_asked_about_nowhere(interface: str) -> None:
    async def main() -> None:
        async with guarded() as behind:
            outcome = await behind.ask(Said("14"), "/free/")
        assert (outcome.answer.status, outcome.checks) == (200, [])

    run(main())


@pytest.mark.parametrize(("status", "name"), [("7", "PERMISSION_DENIED"), ("99", "99"), ("", "")])
def test_the_error_of_a_call_names_the_status(status: str, name: str) -> None:
    call = AskGrpc("auth", "AuthService auth", auth_grpc.METHOD, {}, 1.0, 1.0, DEFAULT_OPTIONS)
    with pytest.raises(UpstreamProtocolError, match=rf"status {name} \(why\)"):
        fields_of(call, HttpAnswer(200, [(b"grpc-status", status.encode()), (b"grpc-message", b"why")]))
