"""`canary-mw serve` beside services of filters that restart, hang and talk nonsense: it lets nobody pass unasked.

One server asks by HTTP and another by gRPC, both ask a rate limit service. CANARY_MW_SOAK is in seconds.
"""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from auth_rules import auth_service
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from grpc_peer import Asked, Connection
from grpc_peer import serving as serving_grpc
from h2.exceptions import ProtocolError
from moods import Gate, changing
from servers import Pairs, client_of, free_port, mapping, process, run, serving_app
from upstream import Peer, serving

from canary_mw.types import Receive, Scope, Send

SECONDS = float(os.environ.get("CANARY_MW_SOAK", "30"))
TIMEOUT_MS = 300

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 150)]

LIMIT = """---
apiVersion: getambassador.io/v3alpha1
kind: RateLimitService
name: limits
service: 127.0.0.1:{port}
protocol_version: v3
timeout_ms: {timeout}
"""
LABELS = "{ambassador: [{all: [{request_headers: {header_name: x-over, key: over}}]}]}"
# Who may; who may not; and who may, and asks too often.
VISITORS: dict[str, Pairs] = {"yes": [("x-may", "yes")], "no": [], "over": [("x-may", "yes"), ("x-over", "yes")]}
Seen = Counter[tuple[str, str, int]]


class Auth:
    """An auth service by HTTP, which at times has failed: it allows requests with `x-may: yes`."""

    async def __call__(self, peer: Peer) -> None:
        """Serve one connection."""
        while True:
            may = b"x-may: yes" in (await peer.request()).headers
            failed = random.random() < 0.01
            await peer.answer(status=b"500 X" if failed else b"200 OK" if may else b"401 Unauthorized")


def answer(connection: Connection) -> None:
    """The same by gRPC, and a rate limit service: whoever says `x-over: yes` asks too often."""
    with contextlib.suppress(ProtocolError):
        # A call that has been given up cannot be answered.
        while (call := connection.take()) is not None:
            connection.answer(call, said(call))


def said(call: Asked) -> bytes:
    """The answer to a call."""
    if call.headers[":path"].endswith("/Check"):
        check = CheckResponse()
        if CheckRequest.FromString(call.message).attributes.request.http.headers.get("x-may") != "yes":
            check.status.code = 16
            check.denied_response.status.code = 401
        return bytes(check.SerializeToString())
    asked = [entry.key for each in RateLimitRequest.FromString(call.message).descriptors for entry in each.entries]
    code = RateLimitResponse.OVER_LIMIT if "over" in asked else RateLimitResponse.OK
    return bytes(RateLimitResponse(overall_code=code).SerializeToString())


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """What is guarded."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret"})


async def visit(port: int, name: str, who: str, until: float, seen: Seen) -> None:
    """Send requests over connections that are kept as long as they are."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        async with client_of(port) as client:
            for _ in range(50):
                found = await client.get("GET", "/shop/", VISITORS[who])
                seen[name, who, found.status] += 1
                assert (found.body == b"secret") is (found.status == 200)


@contextlib.contextmanager
def proxy(name: str, shop: int, auth: Gate, limits: Gate, folder: Path) -> Iterator[int]:
    """A server that asks by HTTP or gRPC."""
    port, path = free_port(), folder / f"{name}.yaml"
    document = auth_service(
        service=f"127.0.0.1:{auth.port}",
        proto=name,
        timeout_ms=TIMEOUT_MS,
        status_on_error="{code: 503}",
        allowed_request_headers="[x-may]",
        protocol_version="v3",
    )
    rules = mapping("shop", "/shop/", f"127.0.0.1:{shop}", labels=LABELS).replace("/v2", "/v3alpha1")
    rules = rules.replace("prefix:", "hostname: '*'\n  prefix:")
    path.write_text(rules + document + LIMIT.format(port=limits.port, timeout=TIMEOUT_MS))
    arguments = ["--rules", str(path), "--port", str(port)]
    with process("serve", *arguments, log=folder / f"{name}.log", wait_for=[port]):
        yield port


@contextlib.asynccontextmanager
async def proxies(shop: int, gates: dict[str, Gate], folder: Path) -> AsyncIterator[dict[str, int]]:
    """The ports of both servers, by how they ask."""
    running = {name: proxy(name, shop, gates[name], gates["limits"], folder) for name in ("http", "grpc")}
    with contextlib.ExitStack() as stack:
        yield {name: await asyncio.to_thread(stack.enter_context, each) for name, each in running.items()}
        await asyncio.to_thread(stack.close)


async def soak(grpc_port: int, seen: Seen, after: Seen, folder: Path) -> None:
    """Visit both while the services change."""
    loop = asyncio.get_running_loop()
    async with serving(Auth()) as auth, serving_app(app, lifespan="off") as shop:
        gates = {"http": Gate(auth.origin.port), "grpc": Gate(grpc_port), "limits": Gate(grpc_port)}
        for gate in gates.values():
            await gate.set("well")
        async with proxies(shop, gates, folder) as ports:
            places = [(port, name, who) for name, port in ports.items() for who in VISITORS for _ in range(4)]
            async with changing([gates["http"], gates["grpc"]], 0.7), changing([gates["limits"]], 0.5):
                until = loop.time() + SECONDS
                await asyncio.gather(*(visit(*place, until, seen) for place in places))
            until = loop.time() + 0.5
            await asyncio.gather(*(visit(*place, until, after) for place in places))
        for gate in gates.values():
            await gate.close()


def test_nobody_passes_unasked_and_whoever_may_passes_while_the_services_are_well(tmp_path: Path) -> None:
    seen, after = Seen(), Seen()
    with serving_grpc(answer) as peer:
        run(soak(peer.origin.port, seen, after, tmp_path), SECONDS + 60)
    for name in ("http", "grpc"):
        found = {who: {status for _, whose, status in seen if whose == who} for who in VISITORS}
        assert found["no"] <= {401, 503}
        assert found["yes"] <= {200, 503}
        # While the rate limit service is away, nobody asks too often.
        assert found["over"] <= {200, 429, 503}
        enough = [("no", 401), ("yes", 200), ("yes", 503), ("over", 429), ("over", 200)]
        assert min(seen[name, who, status] for who, status in enough) > 20, seen
        assert after[name, "yes", 200]
        assert after[name, "over", 429]
        assert "Traceback" not in (tmp_path / f"{name}.log").read_text()
