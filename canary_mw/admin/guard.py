"""What stands in front of the admin app: who may ask, and which headers every answer has.

A page of the internet, in the browser of somebody inside, reaches what that browser reaches. It must not read the rules
by a name of its own that points here (DNS rebinding), nor ask in the name of its visitor.
"""

import ipaddress
from collections.abc import Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from canary_mw.admin.errors import error_response

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": CSP.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
# Probes and load balancers ask by any name, and learn no more than a state.
HEALTH = frozenset(("/healthz", "/readyz", "/ambassador/v0/check_alive", "/ambassador/v0/check_ready"))
# Explains change nothing; commands of a release have to show a token, and are answered by their route.
_POSTS = ("/api/v1/explain", "/api/v1/releases/")
_METHODS = ("GET", "HEAD")


class Guard:
    """An ASGI middleware for the admin app.

    Args:
        host_names: names by which it may be asked, besides addresses and localhost; None for any.
    """

    def __init__(self, app: ASGIApp, host_names: Collection[str] | None = None) -> None:
        self._app = app
        self._names = None if host_names is None else frozenset(name.lower().rstrip(".") for name in host_names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or answer it with the headers that all answers have."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                added = [(name, value) for name, value in HEADERS.items() if name not in names]
                message = {**message, "headers": given + added}
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        path = _path(request.scope)
        if request.method not in _METHODS and not (request.method == "POST" and path.startswith(_POSTS)):
            message = "the admin port only reads: use GET, or POST for /api/v1/explain and for commands to releases"
            return error_response(405, "method-not-allowed", message, {"allow": "GET, HEAD"})
        if path in HEALTH:
            return None
        if not self._is_known(request.headers.get("host")):
            message = "this name is not one of this admin port: use an address, or give --admin-host-names NAME"
            return error_response(403, "unknown-host", message)
        if request.headers.get("sec-fetch-site") == "cross-site" and not _follows_link(request):
            return error_response(403, "cross-site", "another site must not read the admin port")
        return None

    def _is_known(self, host: str | None) -> bool:
        """Whether a Host header names this port. Without one no browser asks."""
        if host is None or self._names is None:
            return True
        name = _name_of(host)
        return name == "localhost" or name in self._names or _is_address(name)


def _path(scope: Scope) -> str:
    """The path below the one where the app is mounted."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    return path.removeprefix(root) if root and path.startswith(root + "/") else path


def _follows_link(request: Request) -> bool:
    """Whether a person follows a link to a page: the other site sees nothing of it, as pages may not be framed."""
    headers = request.headers
    page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return page and request.method in _METHODS


def _name_of(host: str) -> str:
    """The name of a Host header, without port, brackets and the last dot, in lower case."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0].rstrip(".") if ":" in name else name.rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
