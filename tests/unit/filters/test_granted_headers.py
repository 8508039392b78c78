"""A client cannot bring the headers that an auth service grants: not by any spelling, way or failure."""

import pytest
from auth_rules import AuthService, auth_service, headers_of
from middlewares import middleware, serving_middleware
from servers import fetch, mapping, run
from upstream import Peer, serving

from canary_mw.control.sources.static import StaticSource

RULES = (
    mapping("shop", "/shop/", "shop")
    + mapping("free", "/free/", "shop", bypass_auth="true")
    + mapping("vip", "/shop/", "vip", headers="{x-user: vip}", bypass_auth="true")
    + mapping("own", "/own/", "me")
)
GRANTED = {"allowed_authorization_headers": "[X-User, x-role]"}


class Shop:
    """An upstream that keeps what it gets."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            self.seen.append(headers_of(await peer.request()))
            await peer.answer(b"shop")


async def ask(auth: AuthService, path: str, *headers: tuple[str, str], **attributes: str) -> tuple[int, Shop]:
    """The status of one request through a middleware, and what the shop has seen."""
    shop = Shop()
    async with serving(auth) as service, serving(shop) as upstream:
        urls = {"auth": service.origin.port, "shop": upstream.origin.port, "vip": upstream.origin.port}
        served = middleware(
            rules=StaticSource(RULES + auth_service(**{**GRANTED, **attributes})),
            local="me",
            upstreams={name: f"http://127.0.0.1:{port}" for name, port in urls.items()},
        )
        async with serving_middleware(served) as port:
            answer = await fetch(port, path, headers=list(headers))
    return answer.status, shop


SPOOFED = [("x-user", "admin"), ("X-User", "admin"), ("x-role", "root")]


@pytest.mark.parametrize("name", SPOOFED)
def test_a_header_that_the_service_did_not_send_is_gone(interface: str, name: tuple[str, str]) -> None:
    async def main() -> None:
        status, shop = await ask(AuthService(), "/shop/", name)
        assert status == 200
        assert not {"x-user", "x-role"} & shop.seen[0].keys()

    run(main())


def test_the_value_of_the_service_replaces_all_of_the_client(interface: str) -> None:
    auth = AuthService((b"200 OK", [b"X-User: real", b"x-user: last", b"x-other: no"], b""))

    async def main() -> None:
        _, shop = await ask(auth, "/shop/", ("x-user", "one"), ("x-user", "two"))
        assert shop.seen[0]["x-user"] == "last"
        assert "x-other" not in shop.seen[0]

    run(main())


def test_a_name_with_underscores_is_the_same_name() -> None:
    # Only ASGI servers pass such a name on.
    async def main() -> None:
        _, shop = await ask(AuthService(), "/shop/", ("x_user", "admin"))
        assert not {"x_user", "x-user"} & shop.seen[0].keys()

    run(main())


@pytest.mark.parametrize("named", ["x-user", "close, X-User", "x-user, authorization"])
def test_no_client_keeps_from_the_upstream_what_the_service_grants(interface: str, named: str) -> None:
    auth = AuthService((b"200 OK", [b"x-user: bob", b"authorization: granted"], b""))

    async def main() -> None:
        _, shop = await ask(auth, "/shop/", ("connection", named), ("authorization", "own"))
        assert (shop.seen[0]["x-user"], shop.seen[0]["authorization"]) == ("bob", "granted")

    run(main())


def test_the_upstream_gets_what_the_service_says_of_a_proxy(interface: str) -> None:
    auth = AuthService((b"200 OK", [b"proxy-authenticate: Basic"], b""))

    async def main() -> None:
        _, shop = await ask(auth, "/shop/")
        assert shop.seen[0]["proxy-authenticate"] == "Basic"

    run(main())


@pytest.mark.parametrize("named", ["[X-Request-Id]", '["*"]'])
def test_the_service_and_the_upstream_know_a_request_by_the_same_id(interface: str, named: str) -> None:
    auth = AuthService()

    async def main() -> None:
        _, shop = await ask(auth, "/shop/", allowed_request_headers=named)
        told = headers_of(auth.seen[0])["x-request-id"]
        assert told == shop.seen[0]["x-request-id"]

    run(main())


def test_a_service_that_fails_open_grants_nothing(interface: str) -> None:
    auth = AuthService((b"500 Oops", [b"x-user: b"], b""))

    async def main() -> None:
        status, shop = await ask(auth, "/shop/", ("x-user", "admin"), failure_mode_allow="true")
        assert status == 200
        assert "x-user" not in shop.seen[0]

    run(main())


def test_a_granted_header_of_the_client_leads_to_no_free_mapping(interface: str) -> None:
    """The Mapping for `x-user: vip` is free; it is for those whom the service calls vip."""

    async def main() -> None:
        auth = AuthService((b"401 No", [], b""))
        status, shop = await ask(auth, "/shop/", ("x-user", "vip"))
        assert (status, shop.seen) == (401, [])

    run(main())


def test_the_service_leads_to_the_mapping_of_its_header(interface: str) -> None:
    async def main() -> None:
        auth = AuthService((b"200 OK", [b"x-user: vip"], b""))
        status, shop = await ask(auth, "/shop/")
        assert status == 200
        assert len(auth.seen) == 1
        assert shop.seen[0]["x-user"] == "vip"

    run(main())


def test_a_mapping_with_bypass_auth_gets_what_the_client_sends(interface: str) -> None:
    async def main() -> None:
        auth = AuthService()
        _, shop = await ask(auth, "/free/", ("x-user", "anybody"))
        assert auth.seen == []
        assert shop.seen[0]["x-user"] == "anybody"

    run(main())
