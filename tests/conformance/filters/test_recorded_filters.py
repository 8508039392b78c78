"""What Emissary's Envoy asked AuthService and RateLimitService, and made of their answers, recorded; where we differ.

`requests` say what the services answer, `expected` what arrived where. Differences on purpose:

- a header that only the service may give, and that it did not give, is gone, whatever the client has sent;
- a refusal keeps content-type, retry-after and cache-control of the service;
- `l5d-dst-override` names the service;
- a document in error closes what it guards, and nothing else.
"""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from google.protobuf.json_format import MessageToDict, ParseDict
from grpc_peer import OK, Connection
from grpc_peer import serving as serving_grpc
from servers import Answer, run
from standalone import Noting, Wire, listening, wire_to
from upstream import Peer, serving
from websockets.utils import accept_key

from canary_mw.config.document import Document
from canary_mw.config.parser import parse

Json = dict[str, Any]
Headers = dict[str, list[str]]

CASES = [json.loads(path.read_text("utf-8")) for path in sorted(Path(__file__).parent.glob("*.json"))]
# What every proxy adds in a manner of its own, and what belongs to the connection.
IGNORED = frozenset(
    "connection content-length transfer-encoding te upgrade date server via x-forwarded-for x-forwarded-host"
    " x-request-id accept-encoding x-content-type-options sec-websocket-key sec-websocket-version"
    " sec-websocket-accept".split()
)
BUILT_IN = {"authorization", "location", "proxy-authenticate", "set-cookie", "www-authenticate"}
KEPT = ("content-type", "retry-after", "cache-control")
WHOLE = frozenset(("set-cookie", "location", "x-user", "www-authenticate", "authorization"))
DEFAULT: dict[str, Json] = {
    "auth_http": {"status": 200, "headers": [], "body": ""},
    "upstream": {"status": 200, "headers": [["x-up", "1"]], "body": "ok"},
}


def by_name(pairs: Any) -> Headers:
    """Headers by name; lists and repeated names are the same."""
    found: Headers = {}
    for name, value in pairs:
        low = name.lower()
        if (low not in IGNORED and not low.startswith("x-envoy-")) or low == "x-envoy-auth-partial-body":
            parts = [value] if low in WHOLE else [part.strip() for part in value.replace(";", ",").split(",")]
            found.setdefault(low, []).extend(parts)
    return found


def as_text(body: bytes) -> Any:
    """A body as it is recorded."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}


class Stub:
    """A service that answers as the request under way says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer: Json = {}
        self.seen: list[Json] = []

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            method, target, _ = request.line.decode().split(" ")
            pairs = [line.decode("latin-1").split(": ", 1) for line in request.headers]
            self.seen.append(
                {"method": method, "target": target, "headers": by_name(pairs), "body": as_text(request.body)}
            )
            if self.answer.get("delay"):
                await peer.gone()
                return
            if self.answer.get("reset"):
                peer.reset()
                return
            key = next((value for name, value in pairs if name.lower() == "sec-websocket-key"), None)
            await self._answer(peer, method, key)

    async def _answer(self, peer: Peer, method: str, key: str | None) -> None:
        body = self.answer.get("body", "").encode()
        lines = [b"HTTP/1.1 %d X" % self.answer.get("status", 200)]
        lines += [f"{name}: {value}".encode() for name, value in self.answer.get("headers", [])]
        if key is not None and self.answer.get("status", 200) == 101:
            lines.append(b"sec-websocket-accept: " + accept_key(key).encode())
        else:
            lines.append(b"content-length: %d" % len(body))
        await peer.send(b"\r\n".join([*lines, b"", b"" if method == "HEAD" else body]))

    def taken(self) -> list[Json]:
        """What came since the last time."""
        seen, self.seen = self.seen, []
        return seen


def wire_bytes(request: Json) -> bytes:
    """A request as the recording has sent it."""
    given = request.get("body") or ""
    body = base64.b64decode(given["base64"]) if isinstance(given, dict) else given.encode()
    if isinstance(given, dict):
        body *= given.get("repeat", 1)
    lines = [f"{request['method']} {request['target']} HTTP/1.1", "host: example.com"]
    lines += [f"{name}: {value}" for name, value in request["headers"]]
    if request.get("chunked"):
        lines.append("transfer-encoding: chunked")
        pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    elif body or request["method"] in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Limiter:
    """A RateLimitService that answers as the request under way says."""

    def __init__(self) -> None:
        self.answer: Json = {}
        self.seen: list[Json] = []

    def __call__(self, connection: Connection) -> None:
        while (asked := connection.take()) is not None:
            message = RateLimitRequest.FromString(asked.message)
            self.seen.append(MessageToDict(message, preserving_proto_field_name=True))
            if "grpc_status" in self.answer:
                connection.answer(asked, b"", [("grpc-status", "14")])
            elif "delay" not in self.answer:
                answer = ParseDict(self.answer or {"overall_code": "OK"}, RateLimitResponse())
                connection.answer(asked, answer.SerializeToString(), OK)

    def taken(self) -> list[Json]:
        """What came since the last time."""
        seen, self.seen = self.seen, []
        return seen


class Services(NamedTuple):
    """What stands behind the proxy."""

    auth: Stub
    upstream: Stub
    limiter: Limiter


class Expected:
    """What is to be compared of one recorded request, with our differences."""

    def __init__(self, case: Json, request: Json, recorded: Json) -> None:
        spec = parse([Document(case["rules"], "rules")]).shared.settings.filters.auth
        self.answer = request.get("answers", {}).get("auth_http", {})
        self.recorded = recorded
        self.asked = "auth_http" in recorded
        own = {name.decode() for name in spec.granted_headers} if spec is not None else set()
        said = {name.lower() for name, _ in self.answer.get("headers", [])}
        self.gone = own - BUILT_IN - said if self.asked else set()

    def upstream(self) -> list[Json]:
        """The requests that went on."""
        found = [{**each, "headers": by_name(each["headers"])} for each in self.recorded["upstream"]]
        for each in found:
            each["headers"] = {name: values for name, values in each["headers"].items() if name not in self.gone}
            del each["to"]
        return found

    def calls(self) -> list[Json]:
        """The calls of the service."""
        found = [{**each, "headers": by_name(each["headers"])} for each in self.recorded.get("auth_http", [])]
        for each in found:
            if "l5d-dst-override" in each["headers"]:
                each["headers"]["l5d-dst-override"] = ["authsvc:3000"]
        return found

    def client(self) -> tuple[int, Headers]:
        """Status and headers of the answer."""
        told = by_name(self.recorded["client"]["headers"])
        told.pop("content-type", None)
        refused = self.asked and not self.recorded["upstream"] and self.answer.get("status", 200) < 500
        if refused:
            told |= by_name([pair for pair in self.answer.get("headers", []) if pair[0].lower() in KEPT])
        return self.recorded["client"]["status"], told


async def answer_of(client: Wire, method: str, *, upgraded: bool) -> Answer:
    """The answer, or its head where the connection belongs to another protocol then."""
    if not upgraded:
        return await client.answer(method)
    first, *lines = (await client.reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    pairs = [line.lower().split(b": ", 1) for line in lines]
    return Answer(int(first.split(b" ")[1]), [(name, value) for name, value in pairs], b"", True)


async def compare(case: Json, client: Wire, services: Services, number: int) -> None:
    """Send one request of a case, and compare."""
    auth, upstream, limiter = services
    request, recorded = case["requests"][number], case["expected"][number]
    answers = request.get("answers", {})
    limiter.answer = answers.get("ratelimit", {})
    auth.answer = answers.get("auth_http", DEFAULT["auth_http"])
    upstream.answer = answers.get("upstream", DEFAULT["upstream"])
    await client.ask(wire_bytes(request))
    answer = await answer_of(client, request["method"], upgraded=recorded["client"]["status"] == 101)
    expected = Expected(case, request, recorded)
    what = f"{case['id']} {number} {request['method']} {request['target']}"
    if case["id"] == "auth-misconfigured":
        assert answer.status == (500, 200, 301, 404)[number], what
        return
    status, headers = expected.client()
    got = by_name([(name.decode(), value.decode()) for name, value in answer.headers])
    if "content-type" not in headers:
        got.pop("content-type", None)
    assert answer.status == status, what
    if "skip" in recorded:
        return
    if upstream.seen or auth.seen or answers.get("ratelimit", {}).get("overall_code"):
        assert got == headers, what
    assert limiter.taken() == recorded.get("ratelimit", []), what
    assert upstream.taken() == expected.upstream(), what
    assert auth.taken() == expected.calls(), what


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_a_recorded_case(case: Json, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    # A service that does not answer in time is one that never does.
    rules.write_text(case["rules"].replace("timeout_ms: 300", "timeout_ms: 50"))
    services = Services(Stub("auth"), Stub("upstream"), Limiter())

    async def main(limiter_port: int) -> None:
        async with serving(services.auth) as service, serving(services.upstream) as shop:
            named = {"authsvc": service.origin.port, "dead": 1, "ratelimit": limiter_port}
            app = Noting(rules, shop.origin.port, named=named)
            async with listening(app) as (port, _):
                for number in range(len(case["requests"])):
                    async with wire_to(port) as client:
                        await compare(case, client, services, number)

    with serving_grpc(services.limiter) as limiter:
        run(main(limiter.origin.port))
