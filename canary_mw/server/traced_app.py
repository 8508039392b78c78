"""The server span of a request to the standalone proxy."""

from typing import Any

from canary_mw.observability.opentelemetry import OpenTelemetry, redacted
from canary_mw.types import ASGIApp, Message, Receive, Scope, Send


async def serve_traced(tracer: OpenTelemetry, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one HTTP request within a span."""

    async def noting_send(message: Message) -> None:
        if message["type"] == "http.response.start":
            served.answered(message["status"])
        await send(message)

    with tracer.serving(scope["method"], scope["headers"], _attributes(scope)) as served:
        await app(scope, receive, noting_send)


def _attributes(scope: Scope) -> dict[str, Any]:
    path, _, query = redacted(scope["raw_path"] + b"?" + scope["query_string"]).partition("?")
    found: dict[str, Any] = {
        "url.path": path,
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
    }
    if query:
        found["url.query"] = query
    if scope.get("client"):
        found["client.address"] = scope["client"][0]
    if scope.get("server"):
        found["server.address"], found["server.port"] = scope["server"]
    agents = [value for name, value in scope["headers"] if name == b"user-agent"]
    if agents:
        found["user_agent.original"] = agents[0].decode("latin-1")
    return found
