"""A GrayRelease behind an AuthService: what the service has granted is the key, and only the second decision counts."""

import json
from typing import Any

import pytest
from auth_rules import AuthService, auth_service
from middlewares import current, middleware, serving_middleware
from rules import get
from servers import Answer, fetch, mapping, run
from test_both import Log
from upstream import Peer, serving
from wsgiservers import hello as wsgi_hello

from canary_mw.control.sources.static import StaticSource
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.middleware.wsgi.middleware import CanaryWSGIMiddleware
from canary_mw.observability.counters import RequestCounters
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable

MAPPINGS = mapping("svc", "/svc/", "svc") + mapping("gray", "/svc/", "gray", weight=0)
GRANTED = auth_service(allowed_authorization_headers="[k]")


def release(**fields: Any) -> str:
    """A release of half of all keys."""
    given = {"gray": {"gray": 50}, "sticky": [{"header": "k"}], **fields}
    return f"---\n{json.dumps({'apiVersion': 'canary-mw/v1', 'kind': 'GrayRelease', 'name': 'r', **given})}\n"


async def answer_of(auth: AuthService, rules: str, observers: list[Any], *headers: tuple[str, str]) -> Answer:
    """One request through a middleware whose app is stable."""

    async def gray(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(b"gray")

    async with serving(auth) as service, serving(gray) as upstream:
        urls = {"auth": service.origin.port, "gray": upstream.origin.port}
        served: CanaryMiddleware | CanaryWSGIMiddleware = middleware(
            wsgi_hello if current() == "wsgi" else None,
            rules=StaticSource(rules),
            local="svc",
            upstreams={name: f"http://127.0.0.1:{port}" for name, port in urls.items()},
            observers=observers,
        )
        async with serving_middleware(served) as port:
            return await fetch(port, "/svc/", headers=list(headers))


def key_of(variant: str) -> str:
    """A key that the release gives to a variant, without a service."""
    table = RouteTable.from_yaml(MAPPINGS + release(), local=["svc"], middleware=True)
    keys = (f"user-{number}" for number in range(100))
    return next(k for k in keys if (found := decide(table, get("/svc/", {"k": k}), 0.0)) and found.variant == variant)


@pytest.mark.parametrize("variant", ["stable", "gray"])
def test_the_key_is_what_the_service_has_granted(interface: str, variant: str) -> None:
    other = "gray" if variant == "stable" else "stable"
    auth = AuthService((b"200 OK", [b"k: " + key_of(variant).encode()], b""))
    log, counters = Log(), RequestCounters()

    async def main() -> None:
        answer = await answer_of(auth, MAPPINGS + release() + GRANTED, [log, counters], ("k", key_of(other)))
        assert answer.body == (b"gray" if variant == "gray" else b"from the app")

    run(main())
    assert [(end.release, end.variant, end.auth) for end in log.ends] == [("r", variant, "allowed")]
    assert [decided.variant for decided in log.requests] == [variant]


def test_an_anonymous_id_is_drawn_once_for_both_decisions(interface: str) -> None:
    auth = AuthService((b"200 OK", [b"x-user: u"], b""))
    rules = MAPPINGS + release(sticky=[]) + auth_service(allowed_authorization_headers="[x-user]")

    async def main() -> None:
        first = await answer_of(auth, rules, [])
        (cookie,) = [value.decode().partition(";")[0] for name, value in first.headers if name == b"set-cookie"]
        again = await answer_of(auth, rules, [], ("cookie", cookie))
        assert again.body == first.body

    run(main())


def test_what_the_service_refuses_belongs_to_no_variant(interface: str) -> None:
    auth, log = AuthService((b"403 No", [], b"")), Log()

    async def main() -> None:
        answer = await answer_of(auth, MAPPINGS + release() + GRANTED, [log], ("k", key_of("gray")))
        assert answer.status == 403
        assert answer.header("set-cookie") is None

    run(main())
    assert [(end.release, end.drawn, end.key, end.auth) for end in log.ends] == [(None, False, None, "denied")]
    assert log.requests == []
