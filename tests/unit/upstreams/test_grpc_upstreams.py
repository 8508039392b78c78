"""gRPC calls by the upstreams of both middlewares: endpoints and overrides are those of HTTP; forks and the extra."""

import asyncio
import os
import ssl
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from math import inf
from pathlib import Path
from time import monotonic

import pytest
from auth_rules import auth_service
from certificates import OURS, leaf, secret, write
from certificates import server as tls_server
from grpc_peer import METHOD, Connection, serving
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rules import read_rules

from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import BodyFraming, ResponseHead
from canary_mw.observability.opentelemetry import OpenTelemetry
from canary_mw.rules.upstream import CircuitBreakers, EndpointOptions, UpstreamOptions, UpstreamTLS
from canary_mw.upstreams.aio import Upstreams
from canary_mw.upstreams.sync import SyncUpstreams

GRPC = UpstreamOptions(endpoints=EndpointOptions(grpc=True))
Result = tuple[ResponseHead, bytes]


def request(options: UpstreamOptions = GRPC) -> UpstreamRequest:
    return UpstreamRequest("auth:50051", "POST", METHOD, [], BodyFraming(1), options=options)


class Aio:
    """The upstreams of ASGI, in a loop that runs while something is asked."""

    def __init__(self, **options: object) -> None:
        self._runner = asyncio.Runner()
        self.upstreams = Upstreams(**options)  # type: ignore[arg-type]

    def ask(self, options: UpstreamOptions = GRPC) -> Result:
        async def main() -> Result:
            loop = asyncio.get_running_loop()
            response = await self.upstreams.send(request(options), b"x", loop, inf)
            try:
                return response.head, await response.read()
            finally:
                response.close()

        return self._runner.run(main())

    def close(self) -> None:
        self._runner.run(self.upstreams.aclose())
        self._runner.close()


class Sync:
    """The upstreams of WSGI."""

    def __init__(self, **options: object) -> None:
        self.upstreams = SyncUpstreams(**options)  # type: ignore[arg-type]

    def ask(self, options: UpstreamOptions = GRPC) -> Result:
        response = self.upstreams.send(request(options), b"x", monotonic() + 10)
        try:
            return response.head, response.read()
        finally:
            response.close()

    def close(self) -> None:
        self.upstreams.close()


@pytest.fixture(params=[Aio, Sync], ids=["aio", "sync"])
def kind(request: pytest.FixtureRequest) -> type[Aio | Sync]:
    chosen: type[Aio | Sync] = request.param
    return chosen


@pytest.fixture
def peers() -> Iterator[list[str]]:
    """The URLs of two servers that answer with their numbers."""

    def numbered(number: int) -> object:
        def handler(connection: Connection) -> None:
            while (asked := connection.take()) is not None:
                connection.answer(asked, b"%d" % number)

        return handler

    with serving(numbered(1)) as one, serving(numbered(2)) as two:  # type: ignore[arg-type]
        yield [f"http://{each.origin.authority}" for each in (one, two)]


def test_a_call_goes_where_the_service_is_replaced_by_round_robin(kind: type[Aio | Sync], peers: list[str]) -> None:
    upstreams = kind(overrides={"auth": peers})
    assert {upstreams.ask()[1] for _ in range(4)} == {b"1", b"2"}
    assert upstreams.ask()[0] == ResponseHead(200, [(b"grpc-status", b"0")])
    upstreams.close()


def test_a_dead_endpoint_is_passed_over(kind: type[Aio | Sync], peers: list[str]) -> None:
    upstreams = kind(overrides={"auth": ["http://127.0.0.1:9", peers[0]]})
    assert [upstreams.ask()[1] for _ in range(4)] == [b"1"] * 4
    upstreams.close()


def test_a_tls_context_offers_http2_and_shows_our_certificate(kind: type[Aio | Sync], tmp_path: Path) -> None:
    write(tmp_path / "auth", secret(leaf("us"), OURS))
    context = tls_server(clients=OURS)
    context.set_alpn_protocols(["http/1.1", "h2"])
    with serving(context=context) as peer:
        upstreams = kind(overrides={"auth": f"https://{peer.origin.authority}"}, secrets=tmp_path)
        assert upstreams.ask(GRPC._replace(tls=UpstreamTLS("auth", "auth")))[1] == b"x"
        sock = peer.connections[0].sock
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.selected_alpn_protocol() == "h2"
        assert sock.getpeercert() is not None
        # It has no certificate of ours that way, and the other way no authority.
        with pytest.raises(UpstreamConnectError):
            upstreams.ask()
        upstreams.close()


def test_a_call_carries_the_trace_of_its_attempt(kind: type[Aio | Sync]) -> None:
    seen: list[dict[str, str]] = []

    def handler(connection: Connection) -> None:
        while (asked := connection.take()) is not None:
            seen.append(asked.headers)
            connection.answer(asked)

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with serving(handler) as peer:
        url = f"http://{peer.origin.authority}"
        upstreams = kind(overrides={"auth": url}, tracer=OpenTelemetry(provider))
        upstreams.ask()
        upstreams.close()
    (span,) = exporter.get_finished_spans()
    assert seen[0]["traceparent"].split("-")[1:3] == [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]
    provider.shutdown()


def test_calls_under_circuit_breakers_have_connections_of_their_own(kind: type[Aio | Sync], peers: list[str]) -> None:
    upstreams = kind(overrides={"auth": peers[:1]})
    limited = GRPC._replace(circuit_breakers=CircuitBreakers(max_requests=1))
    assert [upstreams.ask(limited)[1] for _ in range(3)] == [b"1"] * 3
    assert upstreams.ask()[1] == b"1"
    upstreams.close()


def test_without_the_extra_a_call_fails_by_its_name(kind: type[Aio | Sync], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("canary_mw.client.aio.grpc", "canary_mw.client.sync.grpc"):
        monkeypatch.setitem(sys.modules, module, None)
    upstreams = kind(overrides={"auth": "http://127.0.0.1:9"})
    with pytest.raises(UpstreamConnectError, match=r"pip install 'canary-mw\[grpc\]'"):
        upstreams.ask()
    upstreams.close()


def test_without_the_extra_a_document_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary_mw.config.filters.auth_service.find_spec", lambda name: None)
    rules = read_rules(auth_service(proto="grpc"))
    assert [each.message for each in rules.diagnostics if each.severity == "error"] == [
        "AuthService auth: proto grpc needs the extra `grpc`"
    ]
    assert rules.shared.filters.auth_in_error == "auth"


@pytest.mark.slow
def test_nothing_of_the_extra_is_loaded_before_a_call() -> None:
    script = "import canary_mw.middleware.asgi.middleware, canary_mw.middleware.wsgi.middleware, sys"
    script += "; sys.exit('h2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.slow
def test_a_forked_child_uses_none_of_the_connections_of_its_parent() -> None:
    script = """\
        import os, sys
        from math import inf
        from canary_mw.forwarding.messages import UpstreamRequest
        from canary_mw.http.messages import BodyFraming
        from canary_mw.rules.upstream import EndpointOptions, UpstreamOptions
        from canary_mw.upstreams.sync import SyncUpstreams

        def ask():
            grpc = UpstreamOptions(endpoints=EndpointOptions(grpc=True))
            request = UpstreamRequest("auth", "POST", b"/a.B/C", [], BodyFraming(0), options=grpc)
            return upstreams.send(request, b"", inf).read()

        upstreams = SyncUpstreams({"auth": sys.argv[1]})
        assert ask() == b"1"
        if not (child := os.fork()):
            assert ask() == b"2"
            upstreams.close()
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert ask() == b"1"
        upstreams.close()
        """

    def handler(connection: Connection) -> None:
        while (asked := connection.take()) is not None:
            connection.answer(asked, b"%d" % connection.number)

    with serving(handler) as peer:
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), f"http://{peer.origin.authority}"]
        subprocess.run(command, check=True, timeout=30, env=os.environ)
