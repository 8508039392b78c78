"""TLS on our own port: `canary-mw serve --ssl-certfile`, asked by real clients."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from certificates import FOREIGN, OURS, leaf, secret, write
from click.testing import CliRunner
from servers import Client, free_port, mapping, process, run
from upstream import Peer, forever, serving

from canary_mw.cli.main import main
from canary_mw.server.runner import tls_options
from canary_mw.server.settings import Settings


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """The server's directory: tls.crt, tls.key, ca.crt."""
    return write(tmp_path / "certs", secret(leaf("localhost"), OURS))


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(mapping("shop", "/shop/", "shop"))
    return path


@contextlib.asynccontextmanager
async def client_of(port: int, certs: Path, shown: Path | None = None) -> AsyncIterator[Client]:
    """A connection over TLS that verifies the server, and shows the certificate of a directory."""
    context = ssl.create_default_context(cafile=certs / "ca.crt")
    if shown is not None:
        context.load_cert_chain(shown / "tls.crt", shown / "tls.key")
    client = Client(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost"))
    try:
        yield client
    finally:
        with contextlib.suppress(ssl.SSLError):
            await client.close()


def test_the_proxy_speaks_tls_keeps_connections_and_ends_on_sigterm(certs: Path, rules: Path, tmp_path: Path) -> None:
    port = free_port()
    seen: list[list[bytes]] = []
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            seen.append(request.headers)
            if request.line.startswith(b"GET /late"):
                asked.set()
                await go_on.wait()
            await peer.answer(request.body)

    async def talk() -> None:
        async with serving(script) as upstream:
            arguments = ["serve", "--rules", str(rules), "--port", str(port)]
            arguments += ["--ssl-certfile", str(certs / "tls.crt"), "--ssl-keyfile", str(certs / "tls.key")]
            arguments += ["--upstream", f"*=http://127.0.0.1:{upstream.origin.port}"]
            with process(*arguments, log=tmp_path / "log", wait_for=[port]) as proxy:
                async with client_of(port, certs) as client, client_of(port, certs) as idle:
                    large = b"x" * 300_000
                    for body in (b"one", large):
                        answer = await client.get("POST", "/shop/", body=body)
                        assert (answer.status, answer.body, answer.header("connection")) == (200, body, None)
                    assert b"x-forwarded-proto: https" in seen[0]
                    assert (await idle.get("GET", "/none")).status == 404
                    running = asyncio.create_task(client.get("GET", "/shop/late"))
                    await asked.wait()
                    proxy.terminate()
                    go_on.set()
                    assert (await running).status == 200
                assert await asyncio.to_thread(proxy.stop) == 0
            assert "Traceback" not in proxy.output

    run(talk())


def test_a_refused_request_is_answered_over_tls_and_its_connection_ends(
    certs: Path, rules: Path, tmp_path: Path
) -> None:
    port = free_port()

    async def talk() -> None:
        arguments = ["serve", "--rules", str(rules), "--port", str(port)]
        arguments += ["--ssl-certfile", str(certs / "tls.crt"), "--ssl-keyfile", str(certs / "tls.key")]
        with process(*arguments, log=tmp_path / "log", wait_for=[port]):
            async with client_of(port, certs) as client:
                await client.put(b"GET / HTTP/1.1\r\n\r\n")
                answer = await client.reader.read()
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert answer.endswith(b"the request is not well-formed HTTP/1.1\n")

    run(talk())


def test_clients_may_have_to_show_a_certificate_to_every_worker(certs: Path, rules: Path, tmp_path: Path) -> None:
    port = free_port()
    shown = write(tmp_path / "client", secret(leaf("client")))
    foreign = write(tmp_path / "foreign", secret(leaf("client", by=FOREIGN)))

    async def status(shown: Path | None) -> int | None:
        try:
            async with client_of(port, certs, shown) as client:
                return (await client.get("GET", "/shop/")).status
        except (OSError, AssertionError):
            return None

    async def talk() -> None:
        async with serving(forever) as upstream:
            with process(
                *("serve", "--workers", "2", "--port", str(port), "--rules", str(rules)),
                log=tmp_path / "log",
                wait_for=[port],
                CANARY_MW_SSL_CERTFILE=str(certs / "tls.crt"),
                CANARY_MW_SSL_KEYFILE=str(certs / "tls.key"),
                CANARY_MW_SSL_CA_CERTS=str(certs / "ca.crt"),
                CANARY_MW_SSL_CERT_REQS="required",
                CANARY_MW_UPSTREAM=f"*=http://127.0.0.1:{upstream.origin.port}",
            ) as proxy:
                assert [await status(shown) for _ in range(4)] == [200] * 4
                assert [await status(each) for each in (None, foreign)] == [None, None]
                await asyncio.to_thread(proxy.stop)

    run(talk())


def test_files_that_cannot_be_used_end_it_with_2_and_their_name(
    certs: Path, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {})

    def error_output(*arguments: str) -> str:
        outcome = CliRunner().invoke(main, ["serve", "--rules", str(rules), *arguments])
        assert outcome.exit_code == 2
        return " ".join(outcome.output.split())

    missing = str(certs / "missing.crt")
    certificate, key = ("--ssl-certfile", str(certs / "tls.crt")), ("--ssl-keyfile", str(certs / "tls.key"))
    assert f"{missing}: it cannot be used with" in error_output("--ssl-certfile", missing, *key)
    assert "the key in it" in error_output(*certificate)
    required = ("--ssl-cert-reqs", "required", "--ssl-ca-certs")
    assert f"{certs / 'tls.key'}: no authorities can be read" in error_output(
        *certificate, *key, *required, str(certs / "tls.key")
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"ssl_keyfile": "k"}, "there is no certificate to listen with (set CANARY_MW_SSL_CERTFILE)"),
        ({"ssl_ca_certs": "c", "ssl_cert_reqs": "required"}, "there is no certificate to listen with"),
        ({"ssl_certfile": "c", "ssl_ca_certs": "c"}, "set both CANARY_MW_SSL_CA_CERTS and CANARY_MW_SSL_CERT_REQS"),
        ({"ssl_certfile": "c", "ssl_cert_reqs": "required"}, "clients cannot be verified"),
        ({"ssl_cert_reqs": "2"}, "CANARY_MW_SSL_CERT_REQS is '2' (use none, optional, required)"),
    ],
)
def test_settings_that_verify_nobody_are_refused(
    given: dict[str, str], text: str, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {f"CANARY_MW_{name.upper()}": value for name, value in given.items()})
    outcome = CliRunner().invoke(main, ["serve", "--rules", str(rules)])
    assert outcome.exit_code == 2
    assert text in " ".join(outcome.output.split())


def test_without_a_certificate_it_listens_in_plain_text(certs: Path) -> None:
    assert tls_options(Settings()) == {}
    pair = Settings(ssl_certfile=str(certs / "tls.crt"), ssl_keyfile=str(certs / "tls.key"))
    assert tls_options(pair)["ssl_cert_reqs"] == ssl.CERT_NONE
