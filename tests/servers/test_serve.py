"""`canary-mw serve` as an operator runs it: real processes on real ports."""

import asyncio
import re
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers import client_of, fetch, fetch_admin, free_port, mapping, process, run
from upstream import Peer, forever, serving, until

from canary_mw import __version__
from canary_mw.cli.main import main
from canary_mw.server.runner import log_config

RULES = mapping("stable", "/shop/", "shop-stable") + mapping("gray", "/shop/", "shop-gray", headers="{gray: 'true'}")


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def test_serve_forwards_follows_the_rules_and_ends_on_sigterm(rules: Path, tmp_path: Path) -> None:
    port, admin = free_port(), free_port()

    async def talk(log: Path) -> None:
        async with serving(forever) as upstream:
            arguments = [
                "serve",
                "--rules",
                str(rules),
                "--port",
                str(port),
                "--admin-port",
                str(admin),
                "--access-log",
            ]
            arguments += ["--upstream", f"shop-gray=http://127.0.0.1:{upstream.origin.port}"]
            with process(*arguments, log=log, wait_for=[port, admin]) as proxy:
                gray = await fetch(port, "/shop/", headers=[("gray", "true")])
                assert (gray.status, gray.body) == (200, b"1")
                assert gray.header("server") is None
                assert (await fetch_admin(admin, "/readyz")).status == 200
                await asyncio.to_thread(rules.write_text, RULES + mapping("new", "/new/", "127.0.0.1:1"))
                while b'"generation":2' not in (await fetch_admin(admin, "/rules")).body:
                    pass
                assert (await fetch(port, "/new/")).status == 503
                assert await asyncio.to_thread(proxy.stop) == 0
            assert '"path": "/new/"' in proxy.output

    run(talk(tmp_path / "log"))


def test_our_own_answers_name_the_server_too(rules: Path, tmp_path: Path) -> None:
    module = "---\napiVersion: getambassador.io/v2\nkind: Module\nname: ambassador\nconfig: {server_name: edge}\n"
    dead, moved = mapping("dead", "/dead/", "127.0.0.1:1"), mapping("moved", "/moved/", "new.com", host_redirect="true")
    rules.write_text(module + RULES + dead + moved)
    port = free_port()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        # On a connection that is open already, and so on the fast path.
        await peer.request()
        await peer.send(b"nonsense\r\n\r\n")

    async def talk(upstream: int) -> None:
        other = f"shop-stable=http://127.0.0.1:{upstream}"
        arguments = ["serve", "--rules", str(rules), "--port", str(port), "--upstream", other]
        with process(*arguments, log=tmp_path / "log", wait_for=[port]):
            for target, status in (("/shop/", 200), ("/shop/", 502), ("/dead/", 503), ("/moved/", 301), ("/", 404)):
                answer = await fetch(port, target)
                assert (answer.status, answer.header("server")) == (status, "edge")

    async def main() -> None:
        async with serving(script) as upstream:
            await talk(upstream.origin.port)

    run(main())


def test_on_sigterm_it_is_not_ready_but_finishes_what_runs(rules: Path, tmp_path: Path) -> None:
    port, admin = free_port(), free_port()

    async def talk() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def script(peer: Peer) -> None:
            await peer.request()
            asked.set()
            await go_on.wait()
            await peer.answer(b"late")

        async with serving(script) as upstream:
            arguments = ["serve", "--rules", str(rules), "--port", str(port), "--admin-port", str(admin)]
            arguments += ["--upstream", f"*=http://127.0.0.1:{upstream.origin.port}"]
            with process(*arguments, log=tmp_path / "log", wait_for=[port, admin]) as proxy:
                running = asyncio.create_task(fetch(port, "/shop/"))
                await asked.wait()
                proxy.terminate()
                while (answer := await fetch_admin(admin, "/readyz")).status == 200:
                    pass
                assert answer.body == b"not ready: shutting down\n"
                go_on.set()
                assert (await running).body == b"late"
                await asyncio.to_thread(proxy.stop)

    run(talk())


def test_a_request_that_an_idle_client_sends_while_it_ends_is_answered_and_its_last(
    rules: Path, tmp_path: Path
) -> None:
    port = free_port()

    async def talk() -> None:
        with process(
            "serve", "--rules", str(rules), "--port", str(port), log=tmp_path / "log", wait_for=[port]
        ) as proxy:
            async with client_of(port) as client:
                assert (await client.get("GET", "/none")).header("connection") is None
                proxy.terminate()
                # It listens no more: the end has begun.
                await until(lambda: refused(port) or None)
                last = await client.get("GET", "/none")
                assert (last.status, last.header("connection")) == (404, "close")
            assert await asyncio.to_thread(proxy.stop) == 0

    run(talk())


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
def test_workers_get_their_settings_from_the_environment(rules: Path, tmp_path: Path) -> None:
    port, admin = free_port(), free_port()

    async def talk() -> None:
        async with serving(forever) as upstream:
            with process(
                *("serve", "--workers", "2", "--port", str(port)),
                log=tmp_path / "log",
                wait_for=[admin, port],
                CANARY_MW_RULES=str(rules),
                CANARY_MW_ADMIN_PORT=str(admin),
                CANARY_MW_UPSTREAM=f"*=http://127.0.0.1:{upstream.origin.port}",
            ) as proxy:
                while b"canary_mw_workers_current 2.0" not in (await fetch_admin(admin, "/metrics")).body:
                    assert (await fetch(port, "/shop/")).status == 200
                await asyncio.to_thread(proxy.stop)
            assert "Traceback" not in proxy.output

    run(talk())


@pytest.mark.parametrize(
    "same",
    [pytest.param(True, marks=pytest.mark.slow), pytest.param(False, marks=pytest.mark.slow)],
    ids=["one deployment", "two deployments"],
)
def test_two_proxies_that_forward_to_each_other_answer_508(same: bool, tmp_path: Path) -> None:
    ports = free_port(), free_port()

    async def talk() -> None:
        for port in ports:
            assert (await fetch(port, "/shop/")).status == 508

    def serve(index: int) -> list[str]:
        other = f"*=http://127.0.0.1:{ports[1 - index]}"
        own_rules = tmp_path / ("rules.yaml" if same else f"rules-{index}.yaml")
        own_rules.write_text(mapping("loop", "/shop/", "shop", rewrite='""'))
        return ["serve", "--rules", str(own_rules), "--port", str(ports[index]), "--upstream", other, "--access-log"]

    with (
        process(*serve(0), log=tmp_path / "log-0", wait_for=[ports[0]]) as one,
        process(*serve(1), log=tmp_path / "log-1", wait_for=[ports[1]]) as two,
    ):
        run(talk())
    # Both requests ended at the first process that a deployment had been through before.
    assert (one.output + two.output).count('"path": "/shop/"') == 2 * (2 if same else 3)


@pytest.mark.slow
def test_hosts_with_numbers_and_the_same_rules_forward_to_each_other(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(mapping("shop", "/shop/", "shop", rewrite='""'))

    def serve(port: int, to: int) -> list[str]:
        return ["serve", "--rules", str(path), "--port", str(port), "--upstream", f"shop=http://127.0.0.1:{to}"]

    async def talk() -> None:
        async with serving(forever) as upstream:
            inner, outer = free_port(), free_port()
            with (
                process(*serve(inner, upstream.origin.port), log=tmp_path / "log-1", wait_for=[inner], HOSTNAME="gw-1"),
                process(*serve(outer, inner), log=tmp_path / "log-2", wait_for=[outer], HOSTNAME="gw-2"),
            ):
                assert (await fetch(outer, "/shop/")).status == 200

    run(talk())


def test_broken_rules_are_served_as_far_as_they_go_but_strict_exits_with_1(rules: Path, tmp_path: Path) -> None:
    rules.write_text(RULES + "---\nkind: [\n")
    port = free_port()
    with process("serve", "--rules", str(rules), "--port", str(port), log=tmp_path / "log", wait_for=[port]) as proxy:
        assert run(fetch(port, "/shop/", headers=[("gray", "true")])).status == 503
        assert str(rules) in proxy.output
    outcome = CliRunner().invoke(
        main, ["serve", "--rules", str(rules), "--port", str(port), "--strict", "--admin-port", "0"]
    )
    assert outcome.exit_code == 1
    assert outcome.output.startswith(f"canary-mw: {rules}:")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "no rules: give --rules PATH, or set CANARY_MW_RULES"),
        (["--rules", "x", "--upstream", "shop"], "upstream 'shop' is not NAME=URL"),
        (["--rules", "x", "--upstream", "shop=http://a/b"], "holds more than scheme, host and port"),
        (["--rules", "x", "--forwarded-allow-ips", "moon"], "trusted peer 'moon'"),
        (["--rules", "x", "--port", "99999"], "--port is 99999"),
        (["--rules", "x", "--log-level", "loud"], "'loud' is not one of"),
    ],
)
def test_wrong_usage_is_explained_and_exits_with_2(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {})
    outcome = CliRunner().invoke(main, ["serve", *arguments])
    assert outcome.exit_code == 2
    assert text in outcome.output


def test_every_option_names_its_variable() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"], terminal_width=200).output
    options = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    named = re.findall(r"\[env: (CANARY_MW_\w+)\]", " ".join(text.split()))
    assert len(named) == len(options) - 1
    assert "CANARY_MW_FORWARDED_ALLOW_IPS" in named


def test_version_is_shown() -> None:
    outcome = CliRunner().invoke(main, ["--version"])
    assert outcome.output == f"canary-mw, version {__version__}\n"


@pytest.mark.slow
def test_a_start_names_rules_admin_port_time_and_process_once(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(mapping("shop", "/shop/", "shop"))
    port, admin = free_port(), free_port()
    options = ["--rules", str(rules), "--port", str(port), "--admin-port", str(admin)]
    with process("serve", *options, log=tmp_path / "log", wait_for=[port], CANARY_MW_PROT="1") as proxy:
        pass
    lines = proxy.output.splitlines()
    stamp = rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} (INFO|WARNING): +\[{proxy.child.pid}\] "
    assert all(re.match(stamp, line) for line in lines), lines
    texts = [re.sub(stamp, "", line) for line in lines]
    assert f"1 Mapping from {rules}; no local service is named" in texts
    assert f"admin port: http://127.0.0.1:{admin} with /healthz, /readyz, /rules and /metrics" in texts
    assert any(text.startswith("CANARY_MW_PROT is no variable of canary-mw") for text in texts)
    assert not any("has no effect: the argument" in text for text in texts)
    assert sum(text.startswith("Started server process") for text in texts) == 1
    assert sum(text.startswith("Finished server process") for text in texts) == 1


def test_the_access_log_has_no_handler_so_that_the_proxy_writes_it_in_batches() -> None:
    config = log_config("warning")
    assert config["loggers"]["canary_mw"]["level"] == "WARNING"
    access = config["loggers"]["canary_mw.access"]
    assert (access["handlers"], access["propagate"]) == ([], False)
