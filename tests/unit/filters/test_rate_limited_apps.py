"""A RateLimitService that is really asked, through both middlewares: over HTTP/2, and what comes of its answers."""

from collections.abc import Iterable
from typing import Any

import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from google.protobuf.json_format import ParseDict
from grpc_peer import OK, Connection
from grpc_peer import serving as serving_grpc
from middlewares import middleware, serving_middleware
from servers import Answer, fetch, mapping, respond, run
from test_both import Log
from upstream import until

from canary_mw.control.sources.static import StaticSource
from canary_mw.types import Environ, Receive, Scope, Send, StartResponse

RULES = mapping("own", "/own/", "me", labels="{ambassador: [{g: [remote_address, {user: {header: x-user}}]}]}")
LIMITS = "---\napiVersion: getambassador.io/v3alpha1\nkind: RateLimitService\nname: limits\nservice: limits\n"
USER = [("x-user", "bob")]


def ask(
    *answers: dict[str, Any] | None, path: str = "/own/", more: str = "", app: Any = None
) -> tuple[list[Answer], list[Any], Log]:
    """One request for each answer of the service: what came, what it was asked, and what was told of it."""
    asked: list[Any] = []
    log = Log()

    def limiter(connection: Connection) -> None:
        while (call := connection.take()) is not None:
            asked.append(RateLimitRequest.FromString(call.message))
            said = answers[len(asked) - 1]
            message = b"" if said is None else ParseDict(said, RateLimitResponse()).SerializeToString()
            connection.answer(call, message, [("grpc-status", "13")] if said is None else OK)

    async def main(port: int) -> list[Answer]:
        rules = StaticSource(RULES + LIMITS + "protocol_version: v3\ntimeout_ms: 5000\n" + more)
        served = middleware(
            app, rules=rules, local="me", upstreams={"limits": f"http://127.0.0.1:{port}"}, observers=[log]
        )
        async with serving_middleware(served) as front:
            found = [await fetch(front, path, headers=USER) for _ in answers]
            await until(lambda: log.has(len(answers)))
        return found

    with serving_grpc(limiter) as service:
        return run(main(service.origin.port)), asked, log


def test_an_app_gets_what_is_below_the_limit_and_no_more(interface: str) -> None:
    added = [{"key": "x-left", "value": "0"}]
    answers, asked, log = ask(
        {"overall_code": "OK", "response_headers_to_add": added},
        {"overall_code": "OVER_LIMIT", "response_headers_to_add": added, "raw_body": "c2xvdw=="},
    )
    assert [(each.status, each.body) for each in answers] == [(200, b"from the app"), (429, b"slow")]
    assert [each.header("x-left") for each in answers] == ["0", "0"]
    assert answers[1].header("x-envoy-ratelimited") == "true"
    entries = [(entry.key, entry.value) for entry in asked[0].descriptors[0].entries]
    assert entries == [("remote_address", "127.0.0.1"), ("user", "bob")]
    assert [(end.status, end.rate_limit) for end in log.ends] == [(200, "ok"), (429, "over_limit")]
    assert all(end.rate_limit_seconds is not None for end in log.ends)


@pytest.mark.parametrize(("more", "status"), [("", 200), ("failure_mode_deny: true\n", 500)])
def test_a_service_that_fails_is_told_of(interface: str, more: str, status: int) -> None:
    answers, _, log = ask(None, more=more)
    assert answers[0].status == status
    assert log.ends[0].rate_limit == "error"


async def showing(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that says which users it got."""
    users = [value for name, value in scope["headers"] if name == b"x-user"]
    await respond(send, b", ".join(users))


def wsgi_showing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The same for WSGI."""
    start_response("200 OK", [])
    return [environ["HTTP_X_USER"].encode()]


def test_what_the_service_adds_is_beside_what_the_client_has_sent(interface: str) -> None:
    added = [{"key": "x-user", "value": "2"}, {"key": "x-user", "value": "3"}]
    app = showing if interface == "asgi" else wsgi_showing
    answers, _, _ = ask({"overall_code": "OK", "request_headers_to_add": added}, app=app)
    assert answers[0].body == b"bob, 2, 3"
