"""Requests as ASGI describes them: scope -> RequestHead."""

from urllib.parse import quote

from canary_mw.http.messages import RequestHead
from canary_mw.http.target import PATH_SAFE
from canary_mw.types import Scope


def request_head(scope: Scope) -> RequestHead:
    """The head that rules are matched against. Its path is the whole path that the client sent, `root_path` included.

    Raises:
        ClientError: see `RequestHead`.
    """
    client, server = scope.get("client"), scope.get("server")
    return RequestHead.from_wire(
        scope["method"],
        scope.get("raw_path") or quote(scope["path"], safe=PATH_SAFE).encode(),
        scope["query_string"],
        scope["headers"],
        client[0] if client else None,
        scope.get("scheme", "http"),
        scope["http_version"],
        client[1] or 0 if client else 0,
        server[1] or 0 if server else 0,
    )


def websocket_request(scope: Scope) -> Scope:
    """The scope of a websocket as that of its upgrade request, a GET, with the defaults of ASGI."""
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    defaults: Scope = {"query_string": b"", "headers": ()}
    return {**defaults, **scope, "method": "GET", "scheme": scheme, "http_version": "1.1"}
