"""An upstream that fails is heard: in the log and in the metrics, in both middlewares and in the standalone proxy."""

import logging
from pathlib import Path
from typing import Any

import pytest
from middlewares import ASGI_ONLY, Middleware, current, middleware, serving_middleware
from servers import client_of, fetch, mapping, run
from standalone import HANDLERS, Noting, listening, wire_to
from upstream import Peer, Script, answering, forever, serving, silent
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from canary_mw.control.sources.static import StaticSource
from canary_mw.observability.prometheus import Metrics

GRAY = [("gray", "true")]
RULES = (
    mapping("gray", "/shop/", "shop-gray", headers="{gray: 'true'}", timeout_ms=400)
    + mapping("tried", "/tried/", "shop-gray", retry_policy="{retry_on: connect-failure, num_retries: 2}")
    + mapping("busy", "/busy/", "busy", circuit_breakers="[{max_requests: 0}]")
    + mapping("lost", "/lost/", "nowhere.invalid")
    + mapping("closed", "/closed/", "shop-gray", use_websocket="false")
)


def around(port: int, **options: Any) -> Middleware:
    """The middleware, with the gray service on a port."""
    upstreams = {"shop-gray": f"http://127.0.0.1:{port}", "busy": f"http://127.0.0.1:{port}"}
    return middleware(**{"rules": StaticSource(RULES), "upstreams": upstreams, **options})


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """What was logged of upstreams."""
    return [each.getMessage() for each in caplog.records if each.name == "canary_mw.relay" and each.levelno == level]


def counts(served: Middleware) -> dict[tuple[str, str], int]:
    return served.upstream_errors()


async def reset(peer: Peer) -> None:
    """A request gets a reset."""
    await peer.request()
    peer.reset()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (silent, "timeout"),
        (reset, "reset"),
        (answering(b"SSH-2.0-x\r\n"), "protocol"),
        (answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), "timeout"),
    ],
    ids=["silent", "reset", "no-http", "late"],
)
def test_every_kind_of_failure_is_told_and_counted(
    interface: str, script: Script, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(script) as upstream:
            served = around(upstream.origin.port)
            async with serving_middleware(served) as port:
                for _ in range(2):
                    async with client_of(port) as client:
                        await client.ask("POST", "/shop/", GRAY)
                        await client.answer()
                assert counts(served) == {("shop-gray", reason): 2}
            (line,) = lines(caplog)
            assert line.startswith("upstream shop-gray failed")
            assert f"127.0.0.1:{upstream.origin.port}" in line
            assert f": {reason}: " in line
            assert "Mapping gray" in line

    run(main())


class Service:
    """A script: while it is down it resets what it is asked."""

    down = True

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            if self.down:
                peer.reset()
                return
            await peer.answer()


def test_an_outage_and_its_end_are_two_lines(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "canary_mw")
    service = Service()

    async def main() -> None:
        async with serving(service) as upstream:
            served = around(upstream.origin.port)
            async with serving_middleware(served) as port:
                for _ in range(5):
                    assert (await fetch(port, "/shop/", "POST", GRAY)).status == 503
                service.down = False
                for _ in range(5):
                    assert (await fetch(port, "/shop/", "POST", GRAY)).status == 200
                assert counts(served) == {("shop-gray", "reset"): 5}

    run(main())
    assert len(lines(caplog)) == 1
    (end,) = lines(caplog, logging.INFO)
    assert end.startswith("upstream shop-gray answers again, after 5 failures in ")


def test_retries_are_counted_one_by_one(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        served = around(1)
        async with serving_middleware(served) as port:
            assert (await fetch(port, "/tried/")).status == 503
            assert counts(served) == {("shop-gray", "connect"): 3}

    run(main())
    assert ["tried again" in line for line in lines(caplog)] == [True, False]


def test_an_endpoint_that_fails_is_told_though_another_takes_its_requests(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(forever) as upstream:
            both = ["http://127.0.0.1:1", f"http://127.0.0.1:{upstream.origin.port}"]
            served = around(1, upstreams={"shop-gray": both})
            async with serving_middleware(served) as port:
                for _ in range(4):
                    assert (await fetch(port, "/shop/", headers=GRAY)).status == 200
                assert counts(served) == {("shop-gray", "connect"): 2}
                assert not served.upstreams.errors.failing

    run(main())
    (line,) = lines(caplog)
    assert "127.0.0.1:1" in line
    assert line.endswith("; the request was tried again")


def test_limits_of_our_own_are_overload(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        served = around(1)
        async with serving_middleware(served) as port:
            assert (await fetch(port, "/busy/")).status == 503
            assert counts(served) == {("busy", "overload"): 1}

    run(main())
    assert ": overload: " in lines(caplog)[0]


def test_a_service_without_an_address_names_the_remedy(
    interface: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(host: str, port: int) -> Any:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("canary_mw.upstreams.discovery.dns.look_up", unknown)

    async def main() -> None:
        async with serving_middleware(around(1)) as port:
            assert (await fetch(port, "/lost/")).status == 503

    run(main())
    (line,) = lines(caplog)
    assert "nowhere.invalid: no address: [Errno -2] Name or service not known" in line
    assert all(name in line for name in ("upstreams=", "--upstream", "CANARY_MW_UPSTREAM"))
    assert not [each for each in caplog.records if each.name == "canary_mw.endpoints"]


def test_a_loop_is_told_with_the_variable_to_set(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving_middleware(around(1, hop_id="me")) as port:
            via = [*GRAY, ("via", "1.1 canary-mw-me")]
            assert [(await fetch(port, "/shop/", headers=via)).status for _ in range(3)] == [508, 508, 508]

    run(main())
    (line,) = lines(caplog)
    assert line.startswith("508: ")
    assert "CANARY_MW_LOCAL=shop-gray" in line


UPGRADE = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
]


def test_a_refused_websocket_is_told_with_the_attribute_to_set(
    interface: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving_middleware(around(1)) as port:
            for _ in range(3):
                async with client_of(port) as client:
                    await client.ask("GET", "/closed/", UPGRADE)
                    assert (await client.head()).status_code == 403

    run(main())
    (line,) = lines(caplog)
    assert "a WebSocket to shop-gray is refused" in line
    assert ("allow_upgrade: [websocket]" if current() == "asgi" else "WSGI") in line


@ASGI_ONLY
def test_a_websocket_that_finds_nobody_is_an_outage(interface: str, caplog: pytest.LogCaptureFixture) -> None:
    rules = StaticSource(mapping("ws", "/ws/", "shop-gray", use_websocket="true"))

    async def main() -> None:
        served = middleware(rules=rules, upstreams={"shop-gray": "http://127.0.0.1:1"})
        async with serving_middleware(served) as port:
            with pytest.raises(InvalidStatus):
                await connect(f"ws://127.0.0.1:{port}/ws/")
            assert counts(served) == {("shop-gray", "connect"): 1}

    run(main())
    assert len(lines(caplog)) == 1


def test_the_counts_are_metrics(interface: str) -> None:
    metrics = Metrics()

    async def main() -> None:
        served = around(1, observers=[metrics])
        metrics.follow(served)
        async with serving_middleware(served) as port:
            await fetch(port, "/shop/", headers=GRAY)

    run(main())
    assert b'canary_mw_upstream_errors_total{reason="connect",service="shop-gray"} 1.0' in metrics.render()


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_standalone_proxy_tells_it_on_both_paths(
    handler: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On a connection that was idle: the fast path sends the request, and meets the failure."""
    caplog.set_level(logging.INFO, "canary_mw")
    rules = tmp_path / "rules.yaml"
    rules.write_text(mapping("stable", "/shop/", "shop", timeout_ms=300))

    async def script(peer: Peer) -> None:
        while True:
            seen = await peer.request()
            if b"/late" in seen.line:
                await peer.gone()
                return
            await peer.answer()

    async def main() -> None:
        async with serving(script) as upstream:
            app = Noting(rules, upstream.origin.port, handler=handler)
            async with listening(app) as (port, _), wire_to(port) as client:
                assert (await client.get()).status == 200
                assert (await client.get(b"/shop/late")).status == 504
                assert (await client.get()).status == 200
                # The fast path has an idle connection again.
                assert (await client.get(b"/shop/late")).status == 504
                assert (await client.get()).status == 200
                assert (await client.get()).status == 200

    run(main())
    (line,) = lines(caplog)
    assert line.startswith("upstream shop failed: timeout: ")
    assert len(lines(caplog, logging.INFO)) == 1
