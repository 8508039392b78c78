"""TLS to upstreams: real servers, with certificates of CAs made for the tests."""

import asyncio
import contextlib
import datetime
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trustme
from certificates import FOREIGN, OURS, Secret, leaf, name_in, secret, server, write
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from kubelet import Volume
from servers import Answer, fetch, hello, mapping, run, serving_app
from threaded import MakeClient, ThreadedClient
from upstream import CERTIFICATE, ON_BOTH_LOOPS, Peer, Run, Upstream, forever, get, req, serving, until
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from canary_mw.client.aio.client import HTTP11Client
from canary_mw.client.tls import CertificateFiles, ConnectionSecurity, TLSContexts, locate, make_context, with_tls
from canary_mw.control.sources.static import StaticSource
from canary_mw.exceptions import ConfigError, UpstreamConnectError
from canary_mw.middleware.asgi.middleware import CanaryMiddleware
from canary_mw.rules.upstream import HealthCheck, Origin, UpstreamTLS
from canary_mw.upstreams.health_checks import HealthChecker

CERTS = UpstreamTLS("certs", "default/certs")


def context(name: str = "ctx", **attributes: Any) -> str:
    """A TLSContext as YAML."""
    lines = [f"{key}: {value}" for key, value in attributes.items()]
    return "\n".join(["---", "apiVersion: getambassador.io/v2", "kind: TLSContext", f"name: {name}", *lines, ""])


async def client_name(peer: Peer) -> None:
    """Every request gets the name in the client's certificate."""
    while True:
        await peer.request()
        await peer.answer(name_in(peer.writer.get_extra_info("peercert")).encode())


@contextlib.asynccontextmanager
async def forwarding(rules: str, secrets: Path | None = None, **options: Any) -> AsyncIterator[int]:
    """A middleware with these rules, on a port."""
    app = CanaryMiddleware(hello, rules=StaticSource(rules), secrets=secrets, **options)
    async with aclosing(app), serving_app(app, lifespan="off") as port:
        yield port


async def shop(upstream: Upstream, attributes: dict[str, Any], secrets: Path, host: str = "localhost") -> Answer:
    """The answer to one request that a Mapping with such a TLSContext takes to `host`."""
    rules = context(**attributes) + mapping("shop", "/shop/", f"{host}:{upstream.origin.port}", tls="ctx")
    async with forwarding(rules, secrets) as port:
        return await fetch(port, "/shop/")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_untrusted_certificate_is_503_and_nothing_is_sent() -> None:
    async def main() -> None:
        async with serving(forever, tls=server()) as upstream:
            service = f"https://localhost:{upstream.origin.port}"
            async with forwarding(mapping("shop", "/shop/", service)) as port:
                answer = await fetch(port, "/shop/", "POST", body=b"order")
            assert answer.status == 503
            # Its script runs from the end of the handshake on.
            assert upstream.accepted == 0

    run(main())


def test_own_authorities_are_verified_against(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(authority=OURS))

    async def main() -> None:
        async with serving(forever, tls=server()) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 200
        async with serving(forever, tls=server(leaf("localhost", by=FOREIGN))) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 503
            assert upstream.accepted == 0

    run(main())


def test_own_authorities_replace_those_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = write(tmp_path / "system", secret(authority=FOREIGN)) / "ca.crt"
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    write(tmp_path / "certs", secret(authority=OURS))

    async def main() -> None:
        async with serving(forever, tls=server(leaf("localhost", by=FOREIGN))) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 503

    run(main())


def test_without_own_authorities_those_of_the_system_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "certs", secret(leaf("client", common_name="gray")))

    async def main() -> None:
        async with serving(client_name, tls=server(clients=OURS)) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 503
            assert upstream.accepted == 0
            system = write(tmp_path / "system", secret(authority=OURS)) / "ca.crt"
            monkeypatch.setenv("SSL_CERT_FILE", str(system))
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).body == b"gray"
            assert (await shop(upstream, {}, tmp_path)).status == 503

    run(main())


def test_an_intermediate_authority_may_be_trusted_alone(tmp_path: Path) -> None:
    below = OURS.create_child_ca()
    write(tmp_path / "certs", secret(authority=below))

    async def main() -> None:
        async with serving(forever, tls=server(leaf("localhost", by=below))) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 200
        async with serving(forever, tls=server(leaf("localhost"))) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 503

    run(main())


def test_a_client_certificate_is_shown_where_it_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(leaf("client", common_name="canary"), OURS))
    write(tmp_path / "bare", secret(authority=OURS))

    async def main() -> None:
        async with serving(client_name, tls=server(clients=OURS)) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).body == b"canary"
            assert (await shop(upstream, {"secret": "bare"}, tmp_path)).status == 503
            both = {"secret": "certs", "ca_secret": "bare"}
            assert (await shop(upstream, both, tmp_path)).body == b"canary"

    run(main())


def test_the_authorities_may_be_a_secret_of_their_own_and_called_tls_crt_as_in_emissary(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(leaf("client", common_name="canary"), FOREIGN))
    write(tmp_path / "ca", {"tls.crt": secret(authority=OURS)["ca.crt"]})

    async def main() -> None:
        async with serving(client_name, tls=server(clients=OURS)) as upstream:
            both = {"secret": "certs", "ca_secret": "ca"}
            assert (await shop(upstream, both, tmp_path)).body == b"canary"
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 503

    run(main())


def test_the_server_is_asked_for_the_host_of_the_service_or_for_sni(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(authority=OURS))
    seen: list[str | None] = []

    async def main() -> None:
        tls = server(leaf("localhost", "127.0.0.1", "api.example.com"), seen=seen.append)
        async with serving(forever, tls=tls) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 200
            sni = {"secret": "certs", "sni": "api.example.com"}
            assert (await shop(upstream, sni, tmp_path)).status == 200
            assert (await shop(upstream, {"secret": "certs"}, tmp_path, "127.0.0.1")).status == 200
        # An address is verified, and is no name to ask for (RFC 6066, section 3).
        assert seen == ["localhost", "api.example.com", None]

    run(main())


@pytest.mark.parametrize(
    ("names", "attributes"),
    [(["other.example.com"], {}), (["localhost"], {"sni": "api.example.com"}), (["127.0.0.1"], {})],
    ids=["another name", "not the name of sni", "an address"],
)
def test_a_certificate_for_another_host_is_refused(
    names: list[str], attributes: dict[str, str], tmp_path: Path
) -> None:
    write(tmp_path / "certs", secret(authority=OURS))

    async def main() -> None:
        async with serving(forever, tls=server(leaf(*names))) as upstream:
            assert (await shop(upstream, {"secret": "certs", **attributes}, tmp_path)).status == 503
            assert upstream.accepted == 0

    run(main())


def test_versions_of_tls_are_bounded(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(authority=OURS))

    async def version(peer: Peer) -> None:
        await peer.request()
        await peer.answer(peer.writer.get_extra_info("ssl_object").version().encode())

    async def main() -> None:
        async with serving(version, tls=server()) as upstream:
            newest = {"secret": "certs", "min_tls_version": "v1.3"}
            assert (await shop(upstream, newest, tmp_path)).body == b"TLSv1.3"
            older = {"secret": "certs", "max_tls_version": "v1.2"}
            assert (await shop(upstream, older, tmp_path)).body == b"TLSv1.2"
        old = server()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(version, tls=old) as upstream:
            assert (await shop(upstream, newest, tmp_path)).status == 503
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).body == b"TLSv1.2"

    run(main())


def test_two_contexts_to_one_service_never_share_a_connection(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, secret(leaf("client", common_name=name), OURS))

    async def main() -> None:
        async with serving(client_name, tls=server(clients=OURS)) as upstream:
            service = f"localhost:{upstream.origin.port}"
            rules = "".join(
                context(name, secret=name) + mapping(f"to-{name}", f"/{name}/", service, tls=name)
                for name in ("one", "two")
            )
            async with forwarding(rules, tmp_path) as port:
                asked = ["one", "two", "two", "one", "one", "two"]
                answers = [(await fetch(port, f"/{name}/")).body.decode() for name in asked]
                assert answers == asked
                assert upstream.accepted == 2

    run(main())


def test_a_url_in_place_of_a_service_keeps_the_tls_context_where_it_is_https(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(leaf("client", common_name="canary"), OURS))
    rules = context(secret="certs") + mapping("shop", "/shop/", "shop", tls="ctx")

    async def body_by(url: str) -> bytes:
        async with forwarding(rules, tmp_path, upstreams={"shop": url}) as port:
            return (await fetch(port, "/shop/")).body

    async def main() -> None:
        async with serving(client_name, tls=server(clients=OURS)) as upstream:
            assert await body_by(f"https://localhost:{upstream.origin.port}") == b"canary"
        async with serving(forever) as upstream:
            assert await body_by(f"http://localhost:{upstream.origin.port}") == b"1"

    run(main())


def test_a_websocket_goes_through_a_context(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(leaf("client", common_name="canary"), OURS))

    async def greet(connection: ServerConnection) -> None:
        await connection.send(name_in(connection.transport.get_extra_info("peercert")))

    async def main() -> None:
        async with serve(greet, "127.0.0.1", 0, ssl=server(clients=OURS)) as upstream:
            service = f"127.0.0.1:{next(iter(upstream.sockets)).getsockname()[1]}"
            rules = context(secret="certs") + mapping("ws", "/ws/", service, tls="ctx", use_websocket="true")
            rules += mapping("bare", "/bare/", f"https://{service}", use_websocket="true")
            async with forwarding(rules, tmp_path) as port:
                async with connect(f"ws://127.0.0.1:{port}/ws/", proxy=None) as websocket:
                    assert await websocket.recv() == "canary"
                upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")]
                upgrade.append(("sec-websocket-key", "MDEyMzQ1Njc4OWFiY2RlZg=="))
                assert (await fetch(port, "/bare/", headers=upgrade)).status == 503

    run(main())


def test_health_is_asked_for_by_the_same_context(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(leaf("client", common_name="canary"), OURS))
    asked: list[tuple[bytes, str]] = []

    async def script(peer: Peer) -> None:
        while True:
            asked.append(((await peer.request()).line, name_in(peer.writer.get_extra_info("peercert"))))
            await peer.answer()

    async def main() -> None:
        async with serving(script, tls=server(clients=OURS)) as upstream:
            checks = "[{health_check: {http: {path: /health}}}]"
            service = f"localhost:{upstream.origin.port}"
            rules = context(secret="certs") + mapping("shop", "/shop/", service, tls="ctx", health_checks=checks)
            async with forwarding(rules, tmp_path) as port:
                assert (await fetch(port, "/shop/")).status == 200
                await until(lambda: (b"GET /health HTTP/1.1", "canary") in asked)
            async with aclosing(HealthChecker(TLSContexts(tmp_path))) as probe:
                with pytest.raises(UpstreamConnectError, match="certificate"):
                    await probe(Origin("https", "localhost", upstream.origin.port), HealthCheck(b"/health"))

    run(main())


def test_the_environment_names_the_directory_of_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "default" / "certs", secret(authority=OURS))
    monkeypatch.setenv("CANARY_MW_SECRETS", str(tmp_path))

    async def main() -> None:
        async with serving(forever, tls=server()) as upstream, aclosing(HTTP11Client()) as client:
            upstream.origin = upstream.origin._replace(tls=CERTS)
            assert await get(client, upstream) == b"1"

    run(main())


def test_a_secret_is_found_by_its_namespace_then_by_its_name_and_a_path_as_it_is(tmp_path: Path) -> None:
    plain = write(tmp_path / "certs", secret(authority=OURS))
    assert locate(CERTS, tmp_path).authorities == plain / "ca.crt"
    namespaced = write(tmp_path / "default" / "certs", secret(authority=OURS))
    assert locate(CERTS, tmp_path).authorities == namespaced / "ca.crt"
    assert locate(UpstreamTLS("x", str(plain)), None).authorities == plain / "ca.crt"
    assert locate(UpstreamTLS("x"), None) == CertificateFiles()


def test_a_secret_that_is_not_there_is_explained(tmp_path: Path) -> None:
    def error_of(tls: UpstreamTLS, root: Path | None = tmp_path) -> str:
        with pytest.raises(ConfigError) as caught:
            locate(tls, root)
        assert caught.value.hint
        return str(caught.value)

    assert "--secrets or CANARY_MW_SECRETS" in error_of(CERTS, None)
    assert f"neither {tmp_path / 'default/certs'} nor {tmp_path / 'certs'} is a directory" in error_of(CERTS)
    certs = write(tmp_path / "certs", {})
    assert error_of(CERTS).startswith(f"{certs}: there is neither a certificate nor authorities")
    write(certs, {"tls.crt": "x"})
    assert error_of(CERTS).startswith(f"{certs}: there is no tls.key")
    (certs / "tls.crt").rename(certs / "tls.key")
    assert error_of(CERTS).startswith(f"{certs}: there is no tls.crt")
    ca = write(tmp_path / "ca", {})
    assert error_of(UpstreamTLS("x", None, "default/ca")).startswith(f"{ca}: there is no ca.crt")


def test_files_that_do_not_hold_what_they_should_are_named(tmp_path: Path) -> None:
    held = secret(leaf("client"), OURS)

    def error_in(**changed: str) -> str:
        certs = write(tmp_path, {**held, **{name.replace("_", "."): text for name, text in changed.items()}})
        with pytest.raises(ConfigError) as caught:
            make_context(CertificateFiles(certs / "tls.crt", certs / "tls.key", certs / "ca.crt"), CERTS)
        assert caught.value.hint
        return str(caught.value)

    assert error_in(ca_crt="").startswith(f"{tmp_path / 'ca.crt'}: no authorities can be read")
    assert error_in(tls_key=held["tls.key"][:80]).startswith(f"{tmp_path / 'tls.crt'}: it cannot be used with")
    assert error_in(tls_key=secret(leaf("client"))["tls.key"]).startswith(f"{tmp_path / 'tls.crt'}: it cannot be used")
    # It must not prompt for the pass phrase.
    key = load_pem_private_key(held["tls.key"].encode(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    assert "without pass phrase" in error_in(tls_key=locked.decode())


def test_only_origins_of_https_get_a_tls_context() -> None:
    origins = [Origin("http", "a", 80), Origin("https", "a", 443)]
    assert [origin.tls for origin in with_tls(origins, CERTS)] == [None, CERTS]
    contexts = TLSContexts()
    assert contexts(origins[0]) == (None, None)
    assert contexts(origins[1]) == contexts(origins[1])
    assert contexts(origins[1]).name == "a"


class Rotation:
    """A server that answers with the name of the client, and a client whose certificates and clock are set by hand."""

    def __init__(self, root: Path) -> None:
        self.volume = Volume(root / "certs")
        self.clock = Clock()
        self.contexts = TLSContexts(root, clock=self.clock)
        self.go_on = asyncio.Event()

    def renew(self, name: str, **changed: str) -> None:
        """Swap in another certificate, as kubelet does."""
        self.volume.set({**self.held(name), **changed})
        self.clock.now += 1.0

    def held(self, name: str) -> Secret:
        return secret(leaf("client", common_name=name), OURS)

    async def script(self, peer: Peer) -> None:
        """Answer at once, `/late` once `go_on` is set."""
        while True:
            seen = await peer.request()
            if b"/late" in seen.line:
                await self.go_on.wait()
            if b"/cut" in seen.line:
                peer.reset()
                return
            name = name_in(peer.writer.get_extra_info("peercert"))
            await peer.answer(f"{name} {peer.number}".encode())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[HTTP11Client, Upstream]]:
        """Client and server."""
        client = HTTP11Client(contexts=self.contexts)
        async with serving(self.script, tls=server(clients=OURS)) as upstream, aclosing(client):
            upstream.origin = upstream.origin._replace(tls=CERTS)
            yield client, upstream


class SlowContexts(TLSContexts):
    """Reading the certificates takes an hour."""

    def __init__(self) -> None:
        super().__init__(default=ssl.create_default_context(cafile=CERTIFICATE))
        self.late = 0.0

    def __call__(self, origin: Origin) -> ConnectionSecurity:
        self.late = 3600.0
        return super().__call__(origin)

    def now(self) -> float:
        """The monotonic clock of a client with these contexts."""
        return time.monotonic() + self.late

    def loop(self) -> asyncio.AbstractEventLoop:
        """An event loop with that clock."""
        loop = asyncio.new_event_loop()
        loop.time = self.now  # type: ignore[method-assign]
        return loop


@pytest.mark.parametrize("client", [HTTP11Client, ThreadedClient])
def test_the_time_of_reading_certificates_does_not_count_as_connecting(
    client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = SlowContexts()
    monkeypatch.setattr("canary_mw.client.sync.pool.monotonic", contexts.now)
    monkeypatch.setattr("canary_mw.client.sync.connect.monotonic", contexts.now)

    async def main() -> None:
        async with serving(forever, tls=True) as upstream, aclosing(client(contexts=contexts)) as asked:
            assert await get(asked, upstream, req(timeout=None, connect_timeout=30.0)) == b"1"

    Run(contexts.loop)(main)


@ON_BOTH_LOOPS
def test_a_swapped_directory_counts_for_new_connections_and_retires_the_old(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        rotation = Rotation(tmp_path)
        rotation.renew("old")
        async with rotation.running() as (client, upstream):
            assert await get(client, upstream) == b"old 1"
            rotation.renew("new")
            assert await get(client, upstream) == b"old 1"
            late = asyncio.ensure_future(get(client, upstream, req(target=b"/late")))
            await asyncio.sleep(0)
            assert await get(client, upstream) == b"new 2"
            rotation.go_on.set()
            assert await late == b"old 1"
            assert await asyncio.gather(*(get(client, upstream) for _ in range(2))) == [b"new 2", b"new 3"]

    run(main)


@ON_BOTH_LOOPS
def test_idle_connections_are_closed_when_the_certificates_have_changed(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        rotation = Rotation(tmp_path)
        rotation.renew("old")
        async with rotation.running() as (client, upstream):
            late = asyncio.ensure_future(get(client, upstream, req(target=b"/late")))
            await asyncio.sleep(0)
            assert await get(client, upstream) == b"old 2"
            rotation.go_on.set()
            assert await late == b"old 1"
            rotation.renew("new")
            # Takes the first, is cut off, and is repeated on a fresh one, while the second is idle.
            await asyncio.gather(get(client, upstream, req(target=b"/cut", replayable=True)), return_exceptions=True)
            assert await get(client, upstream) == b"new 4"

    run(main)


@ON_BOTH_LOOPS
def test_files_are_checked_once_a_second_at_most(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        rotation = Rotation(tmp_path)
        rotation.renew("old")
        origin = Origin("https", "localhost", 443, tls=CERTS)
        first = rotation.contexts(origin).context
        rotation.renew("new")
        rotation.clock.now -= 0.1
        assert rotation.contexts(origin).context is first
        rotation.clock.now += 0.1
        second = rotation.contexts(origin).context
        assert second is not first
        rotation.clock.now += 1.0
        assert rotation.contexts(origin).context is second

    run(main)


def test_a_half_written_pair_keeps_the_last_good_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rotation = Rotation(tmp_path)
    rotation.renew("old")
    origin = Origin("https", "localhost", 443, tls=CERTS)
    good = rotation.contexts(origin).context
    caplog.clear()
    rotation.renew("new", **{"tls.key": rotation.held("other")["tls.key"]})
    for _ in range(3):
        assert rotation.contexts(origin).context is good
        rotation.clock.now += 1.0
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert f"TLSContext certs: {tmp_path / 'certs' / 'tls.crt'}: it cannot be used with" in record.message
    assert "what was read before stays in use" in record.message
    rotation.renew("new")
    assert rotation.contexts(origin).context is not good


def test_a_file_that_is_gone_keeps_the_last_good_and_its_return_is_no_change(tmp_path: Path) -> None:
    clock = Clock()
    contexts = TLSContexts(tmp_path, clock=clock)
    certs = write(tmp_path / "certs", secret(leaf("client"), OURS))
    origin = Origin("https", "localhost", 443, tls=CERTS)
    good = contexts(origin).context
    for before, after in (("tls.key", "kept"), ("kept", "tls.key")):
        (certs / before).rename(certs / after)
        clock.now += 1.0
        assert contexts(origin).context is good


def test_without_any_good_certificates_it_is_503_until_there_are_some(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        clock = Clock()
        client = HTTP11Client(contexts=TLSContexts(tmp_path, clock=clock))
        async with serving(forever, tls=server()) as upstream, aclosing(client):
            upstream.origin = upstream.origin._replace(tls=CERTS)
            for _ in range(3):
                with pytest.raises(UpstreamConnectError, match="TLSContext certs: neither") as caught:
                    await get(client, upstream)
                assert not caught.value.sent
                clock.now += 1.0
            assert [record.levelname for record in caplog.records] == ["ERROR"]
            assert "no connection can be opened" in caplog.text
            write(tmp_path / "certs", secret(authority=OURS))
            assert await get(client, upstream) == b"1"

    run(main())


def test_without_any_good_certificates_the_client_gets_503(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(forever, tls=server()) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 503
            assert upstream.accepted == 0

    run(main())


def test_the_chain_of_our_certificate_is_sent(tmp_path: Path) -> None:
    below = OURS.create_child_ca()
    write(tmp_path / "certs", secret(below.issue_cert("client", common_name="below"), OURS))

    async def main() -> None:
        async with serving(client_name, tls=server(clients=OURS)) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).body == b"below"

    run(main())


def test_an_outdated_certificate_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "certs", secret(authority=OURS))
    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    expired: trustme.LeafCert = OURS.issue_cert("localhost", not_before=then, not_after=then.replace(month=2))

    async def main() -> None:
        async with serving(forever, tls=server(expired)) as upstream:
            assert (await shop(upstream, {"secret": "certs"}, tmp_path)).status == 503

    run(main())
