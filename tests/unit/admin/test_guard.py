"""Who may ask the admin port, and which headers its answers have."""

import json

import pytest
from admin_client import fetch_app
from servers import fetch, mapping, run, serving_app
from starlette.applications import Starlette
from starlette.routing import Mount

from canary_mw.admin import create_admin
from canary_mw.admin.guard import CSP
from canary_mw.control.sources.static import StaticSource
from canary_mw.control.store import RuleStore
from canary_mw.observability.prometheus import Metrics

PATHS = ("/", "/rules", "/metrics", "/api/v1/rules", "/api/v1/openapi.json", "/ambassador/v0/diag/rules", "/nothing")


def app(*host_names: str, any_host: bool = False) -> Starlette:
    store = RuleStore(StaticSource(mapping("a", "/a/", "a")))
    store.reload()
    return create_admin(store, Metrics(), host_names=None if any_host else host_names)


async def status(served: Starlette, path: str, *headers: tuple[str, str], method: str = "GET") -> int:
    return (await fetch_app(served, path, method, headers)).status


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3:8877", "[::1]:8877", "[fe80::1]", "localhost", "LOCALHOST.:1"])
def test_an_address_and_localhost_may_be_asked(host: str) -> None:
    async def main() -> None:
        served = app()
        assert await status(served, "/api/v1/rules", ("host", host)) == 200

    run(main())


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8877", "1.2.3", "[x]"]
)
def test_a_name_that_was_not_given_is_refused_on_every_path_but_those_of_probes(host: str) -> None:
    async def main() -> None:
        served = app("ops.example")
        for path in PATHS:
            answer = await fetch_app(served, path, headers=[("host", host)])
            assert answer.status == 403
            assert json.loads(answer.body)["error"]["code"] == "unknown-host"
            assert "--admin-host-names" in json.loads(answer.body)["error"]["message"]
        for path in ("/healthz", "/readyz", "/ambassador/v0/check_alive", "/ambassador/v0/check_ready"):
            assert await status(served, path, ("host", host)) == 200

    run(main())


def test_a_name_that_was_given_may_be_asked_with_and_without_port() -> None:
    async def main() -> None:
        served = app("Ops.example")
        for host in ("ops.example", "OPS.example:8877", "ops.example."):
            assert await status(served, "/rules", ("host", host)) == 200
        assert await status(served, "/rules", ("host", "a.ops.example")) == 403

    run(main())


def test_an_app_that_is_mounted_leaves_names_to_whoever_mounts_it() -> None:
    async def main() -> None:
        assert await status(app(any_host=True), "/rules", ("host", "shop.example")) == 200

    run(main())


def test_another_site_reads_nothing_but_a_person_may_follow_its_link() -> None:
    site, mode, target = (
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    )
    host = ("host", "localhost")

    async def main() -> None:
        served = app()
        for path in PATHS:
            assert await status(served, path, host, site) == 403
            assert await status(served, path, host, site, mode, ("sec-fetch-dest", "iframe")) == 403
        assert await status(served, "/ambassador/v0/diag/rules", host, site, mode, target) == 200
        assert await status(served, "/api/v1/explain", host, site, mode, target, method="POST") == 403
        for same in ("same-origin", "same-site", "none"):
            assert await status(served, "/rules", host, ("sec-fetch-site", same)) == 200

    run(main())


def test_only_explain_takes_a_post() -> None:
    async def main() -> None:
        served = app()
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for path in (*PATHS, "/healthz"):
                answer = await fetch_app(served, path, method, [("host", "localhost")])
                assert answer.status == 405
                assert answer.header("allow") == "GET, HEAD"
                assert json.loads(answer.body)["error"]["code"] == "method-not-allowed"

    run(main())


def test_a_command_of_a_release_needs_a_token_and_there_is_none() -> None:
    async def main() -> None:
        served = app()
        answer = await fetch_app(served, "/api/v1/releases/shop/abort", "POST", [("host", "localhost")])
        assert answer.status == 403
        assert json.loads(answer.body)["error"]["code"] == "read-only"

    run(main())


def test_every_answer_has_the_headers_that_keep_it_where_it_is() -> None:
    async def main() -> None:
        served = app()
        for path in (*PATHS, "/healthz", "/readyz"):
            for host in ("localhost", "evil.example"):
                answer = await fetch_app(served, path, headers=[("host", host)])
                assert answer.header("content-security-policy") == CSP
                assert answer.header("x-content-type-options") == "nosniff"
                assert answer.header("referrer-policy") == "no-referrer"
                assert answer.header("cache-control") == "no-store"

    run(main())


def test_a_head_request_has_the_same_head_and_no_body() -> None:
    async def main() -> None:
        async with serving_app(app(), lifespan="off") as port:
            for path in ("/healthz", "/rules", "/api/v1/openapi.json", "/ambassador/v0/diag/rules"):
                answer = await fetch(port, path, "HEAD", [("host", "localhost")])
                assert (answer.status, answer.body) == (200, b"")
                whole = await fetch(port, path, headers=[("host", "localhost")])
                assert answer.header("content-type") == whole.header("content-type")

    run(main())


def test_it_may_be_mounted_in_another_app() -> None:
    async def main() -> None:
        outer = Starlette(routes=[Mount("/ops", app())])
        async with serving_app(outer, lifespan="off") as port:
            wanted = [("/ops/api/v1/rules", "localhost", 200), ("/ops/healthz", "evil.example", 200)]
            for path, host, status in [*wanted, ("/ops/rules", "evil.example", 403)]:
                assert (await fetch(port, path, headers=[("host", host)])).status == status
            moved = await fetch(port, "/ops/?window=1h", headers=[("host", "localhost")])
            assert (moved.status, moved.header("location")) == (307, "/ops/ambassador/v0/diag/?window=1h")

    run(main())
