"""The standalone proxy as an app: settings, lifespan, 404, refusals."""

import asyncio
import logging
import os
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from servers import HTTPS, client_of, fetch, free_port, mapping, run, serving_app
from upstream import Peer, forever, serving, silent, until

from canary_mw.exceptions import ConfigError
from canary_mw.middleware.identity import default_hop_id, local_names, new_request_id, via_token
from canary_mw.middleware.trust import trusted_peers
from canary_mw.server import runner
from canary_mw.server.app import Proxy, create_app
from canary_mw.server.settings import Settings
from canary_mw.types import Message

RULES = mapping("stable", "/shop/", "shop") + mapping("quick", "/quick/", "shop", timeout_ms=200)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def proxy(rules: Path, port: int = 1, **options: Any) -> Proxy:
    return Proxy(Settings(rules=(str(rules),), upstream=(f"*=http://127.0.0.1:{port}",), **options))


@pytest.mark.parametrize("http", HTTPS)
def test_a_match_is_forwarded_and_anything_else_is_not_found(rules: Path, http: str) -> None:
    async def main() -> None:
        async with (
            serving(forever) as upstream,
            serving_app(proxy(rules, upstream.origin.port), http=http, lifespan="on") as port,
        ):
            assert (await fetch(port, "/shop/")).body == b"1"
            missing = await fetch(port, "/nothing")
            assert (missing.status, missing.body, missing.header("content-length")) == (404, b"", "0")

    run(main())


def test_the_local_service_is_forwarded_too_but_always_stable(rules: Path) -> None:
    async def main() -> None:
        async with (
            serving(forever) as upstream,
            serving_app(proxy(rules, upstream.origin.port, local=("shop",)), lifespan="on") as port,
        ):
            assert (await fetch(port, "/shop/")).body == b"1"

    run(main())


def test_a_dead_and_a_silent_upstream_are_503_and_504(rules: Path) -> None:
    async def main() -> None:
        async with serving_app(proxy(rules), lifespan="on") as port:
            assert (await fetch(port, "/shop/")).status == 503
        async with (
            serving(silent) as upstream,
            serving_app(proxy(rules, upstream.origin.port), lifespan="on") as port,
        ):
            assert (await fetch(port, "/quick/")).status == 504

    run(main())


@pytest.mark.parametrize("http", HTTPS)
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
    ids=["length", "chunked"],
)
def test_a_broken_answer_is_cut_without_a_traceback(
    rules: Path, http: str, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        peer.finish()

    async def main() -> None:
        async with (
            serving(script) as upstream,
            serving_app(proxy(rules, upstream.origin.port), http=http, lifespan="on") as port,
        ):
            got = await fetch(port, "/shop/")
            assert (got.body, got.whole) == (b"half", False)

    run(main())
    assert [record for record in caplog.records if record.exc_info] == []


def test_rules_that_come_later_are_picked_up(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"

    async def main() -> None:
        app = proxy(path)
        async with serving_app(app, lifespan="on") as port:
            assert (await fetch(port, "/shop/")).status == 404
            assert app.store.generation == 0
            path.write_text(RULES)
            assert await asyncio.to_thread(app.store.wait, 1, 10)
            assert (await fetch(port, "/shop/")).status == 503

    run(main())


def test_variables_of_the_process_are_put_into_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_TEST_WHERE", "shop-nine")
    monkeypatch.delenv("CANARY_MW_ENV_NAMES", raising=False)
    (tmp_path / "rules.yaml").write_text(mapping("a", "/a/", "${CANARY_TEST_WHERE}"))
    proxy = Proxy(Settings(rules=(str(tmp_path),)))
    proxy.store.reload()
    assert [each.service.text for each in proxy.store.table.mappings] == ["shop-nine"]


def test_without_any_rules_everything_is_not_found() -> None:
    async def main() -> None:
        async with serving_app(create_app(Settings()), lifespan="on") as port:
            assert (await fetch(port, "/shop/")).status == 404

    run(main())


def test_strict_does_not_start_on_rules_in_error(rules: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules.write_text(RULES + "---\nkind: [")

    async def main() -> None:
        await _lifespan_fails(proxy(rules, strict=True))
        async with serving_app(proxy(rules), lifespan="on") as port:
            assert (await fetch(port, "/shop/")).status == 503

    run(main())


def test_an_admin_port_that_is_taken_is_a_reason_not_to_start(rules: Path) -> None:
    async def main() -> None:
        async with serving_app(proxy(rules), lifespan="on") as port:
            message = await _lifespan_fails(proxy(rules, admin_port=port))
            assert f"admin port 127.0.0.1:{port}" in message

    run(main())


@pytest.mark.parametrize("http", HTTPS)
def test_a_websocket_is_refused(rules: Path, http: str) -> None:
    upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ]

    async def main() -> None:
        async with serving_app(proxy(rules), http=http, lifespan="on") as port:
            assert (await fetch(port, "/shop/", headers=upgrade)).status == 403

    run(main())


def test_sigterm_is_observed_only_where_a_server_handles_it(rules: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    received: list[int] = []

    async def main() -> None:
        app = proxy(rules, admin_port=free_port())
        async with serving_app(app, lifespan="on"):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        app = proxy(rules, admin_port=free_port())
        async with serving_app(app, lifespan="on"):
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: received)
            assert app.draining
            assert received == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert len(received) == 2

    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        run(main())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_requests_are_logged_as_json_on_demand(rules: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "canary_mw.access")

    async def main() -> None:
        async with serving_app(proxy(rules, access_log=True), lifespan="on") as port:
            await fetch(port, "/shop/x?secret")

    run(main())
    (line,) = [record.getMessage() for record in caplog.records if record.name == "canary_mw.access"]
    assert '"path": "/shop/x"' in line
    assert '"status": 503' in line
    assert "secret" not in line


def test_a_client_may_keep_its_connection(rules: Path) -> None:
    async def main() -> None:
        async with (
            serving(forever) as upstream,
            serving_app(proxy(rules, upstream.origin.port), lifespan="on") as port,
            client_of(port) as client,
        ):
            for _ in range(3):
                assert (await client.get("GET", "/shop/")).body == b"1"

    run(main())


# Settings.


def test_threads_take_short_turns_where_the_process_is_ours_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.getswitchinterval()
    monkeypatch.setenv("CANARY_MW_PORT", "1")
    try:
        create_app()
        assert sys.getswitchinterval() == before
        assert isinstance(runner.create_app(), Proxy)
        assert sys.getswitchinterval() == pytest.approx(0.00005, rel=0.2)
        # A shorter one is not made longer.
        sys.setswitchinterval(0.00001)
        runner.create_app()
        assert sys.getswitchinterval() == pytest.approx(0.00001, rel=0.2)
    finally:
        sys.setswitchinterval(before)


def test_settings_survive_the_environment() -> None:
    settings = Settings(
        rules=("/a", "/b c"),
        local=("shop",),
        upstream=("a=http://x", "*=http://y:1"),
        port=1,
        strict=True,
        shadow_writes=True,
        forwarded_allow_ips=("10.0.0.0/8", "*"),
        hop_id="me",
        log_level="debug",
    )
    environ = settings.to_environ()
    assert environ["CANARY_MW_RULES"] == os.pathsep.join(("/a", "/b c"))
    assert environ["CANARY_MW_ID"] == "me"
    assert Settings.from_environ(environ) == settings
    assert Settings.from_environ(Settings().to_environ()) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("PORT", "http", "CANARY_MW_PORT is 'http', not a number"),
        ("PORT", "65536", "CANARY_MW_PORT is 65536, not in 0..65535"),
        ("WORKERS", "0", "CANARY_MW_WORKERS is 0"),
        ("REPLAY_LIMIT", "-1", "CANARY_MW_REPLAY_LIMIT is -1"),
        ("SHADOW_LIMIT", "many", "CANARY_MW_SHADOW_LIMIT is 'many'"),
        ("SHADOW_WRITES", "some", "CANARY_MW_SHADOW_WRITES is 'some'"),
        ("STRICT", "perhaps", "CANARY_MW_STRICT is 'perhaps'"),
        ("LOG_LEVEL", "loud", "log level 'loud' is unknown"),
        ("UPSTREAM", "shop", "upstream 'shop' is not NAME=URL"),
    ],
)
def test_a_setting_that_cannot_work_is_named(variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        Settings.from_environ({f"CANARY_MW_{variable}": text})


def test_empty_variables_mean_the_default_and_repeated_names_add_up() -> None:
    empty = dict.fromkeys(("RULES", "HOST", "STRICT", "ID", "UPSTREAM"), "")
    assert Settings.from_environ({f"CANARY_MW_{name}": text for name, text in empty.items()}) == Settings()
    assert Settings(upstream=("a=http://x", "a=http://y")).upstreams == {"a": ["http://x", "http://y"]}


# Hops.


def test_all_pods_of_a_workload_have_one_id_and_two_workloads_have_two() -> None:
    def id_of(hostname: str, mode: str = "asgi", local: tuple[str, ...] = ()) -> str:
        pod = {"HOSTNAME": hostname, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        return default_hop_id(mode, local, ["/etc/rules"], pod)

    replicas = {id_of(f"shop-gray-{pod}") for pod in ("7d9f8b6c5d-x2x4z", "7d9f8b6c5d-bcdfg", "5b4c6d7f8-zzzzz")}
    assert len(replicas) == 1
    assert id_of("shop-0") == id_of("shop-12") == id_of("shop-x2x4z")
    assert id_of("shop-gray") not in {id_of("shop"), id_of("shop-gray", "proxy"), id_of("shop-gray", local=("a",))}
    assert id_of("gw-1-0") == id_of("gw-1-1") != id_of("gw-2-0")
    assert len(id_of("shop")) >= 16
    assert default_hop_id("asgi", environ={"CANARY_MW_ID": "me"}) == "me"
    assert default_hop_id("asgi", environ={}) != ""
    assert via_token("me") == b"canary-mw-me"


@pytest.mark.parametrize(
    "pair", [("gw-1", "gw-2"), ("web-lnd42", "web-lnd43"), ("db-7d9f8b6c5d-x2x4z", "db-7d9f8b6c5d-bcdfg")]
)
def test_two_hosts_are_two_hops_where_no_pod_is_named_by_kubernetes(pair: tuple[str, str]) -> None:
    first, second = (default_hop_id("proxy", (), ["/etc/rules"], {"HOSTNAME": name}) for name in pair)
    assert first != second


def test_local_names_come_from_text_list_or_environment() -> None:
    assert local_names("Shop", {}) == {"shop"}
    assert local_names(["a", " "], {}) == {"a"}
    assert local_names("a", {"CANARY_MW_LOCAL": "b, c"}) == {"b", "c"}


def test_peers_are_trusted_by_address_network_or_all() -> None:
    trusted = trusted_peers(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    assert not any(trusted(peer) for peer in ("11.0.0.1", "192.0.2.8", "::1", "unix", "", None))
    assert all(trusted(peer) for peer in ("10.1.2.3", "192.0.2.7", "::ffff:10.0.0.1", "2001:db8::1"))
    assert trusted_peers(["*"])(None)
    assert not trusted_peers([])("127.0.0.1")
    with pytest.raises(ConfigError, match="moon"):
        trusted_peers(["moon"])


def test_request_ids_are_uuids_that_differ_in_their_first_digits() -> None:
    ids = {uuid.UUID(new_request_id().decode()) for _ in range(100)}
    assert len({each.hex[:8] for each in ids}) == 100
    assert {(each.version, each.variant) for each in ids} == {(8, uuid.RFC_4122)}


def test_a_forked_child_gives_out_other_request_ids() -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, new_request_id())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read, "rb") as pipe:
        theirs = pipe.read()
    assert uuid.UUID(theirs.decode()).hex[16:] != uuid.UUID(new_request_id().decode()).hex[16:]


async def _lifespan_fails(app: Proxy) -> str:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    return str(message["message"])
