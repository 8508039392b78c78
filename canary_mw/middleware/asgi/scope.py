"""Requests as ASGI describes them: scope -> RequestHead."""

from typing import Any
from urllib.parse import quote, unquote

from canary_mw.http.authority import check_authority, split_absolute, with_host
from canary_mw.http.messages import RequestHead
from canary_mw.http.mount import split_mount
from canary_mw.http.target import PATH_SAFE
from canary_mw.middleware.audience.registry import is_asked
from canary_mw.routing.person import UNASKED, Person
from canary_mw.routing.table import RouteTable
from canary_mw.types import Scope


def request_head(scope: Scope) -> RequestHead:
    """The head that rules are matched against. Its path is the whole path, `root_path` included.

    Raises:
        ClientError: see `RequestHead`; or an absolute-form target names another host than Host.
    """
    client, server = scope.get("client"), scope.get("server")
    return RequestHead.from_wire(
        scope["method"],
        _path(scope),
        scope["query_string"],
        scope["headers"],
        client[0] if client else None,
        scope.get("scheme", "http"),
        scope["http_version"],
        client[1] or 0 if client else 0,
        server[1] or 0 if server else 0,
    )


def mounted_request_head(scope: Scope, added_root: str) -> RequestHead:
    """The head for an app under a root path. Its path is what comes after that.

    Args:
        added_root: what the server has put before the path that the client sent.

    Raises:
        ClientError: see `request_head`.
    """
    mount, path = split_mount(_path(scope), scope["root_path"], added_root)
    head = request_head({**scope, "raw_path": path, "root_path": ""})
    head.mount = mount
    return head


def _path(scope: Scope) -> bytes:
    raw: bytes | None = scope.get("raw_path")
    path = raw or quote(scope["path"], safe=PATH_SAFE).encode()
    if path[:1] != b"/" or b"://" in path:
        return _origin_form(scope, path)
    return path


def _origin_form(scope: Scope, target: bytes) -> bytes:
    """The path of a target that some servers give as it came: uvicorn with h11, and for websockets.

    The scope of an absolute-form target is changed, so that the wrapped app sees the path that an upstream would.
    """
    root: bytes = scope.get("root_path", "").encode()
    absolute = split_absolute(target.removeprefix(root))
    if absolute is None:
        return target
    headers = scope.get("headers", ())
    check_authority(absolute, [value for name, value in headers if name == b"host"])
    scope["headers"] = with_host(headers, absolute.authority)
    path = root + absolute.origin_form
    scope["raw_path"], scope["path"] = path, unquote(path.decode("latin-1"))
    return path


def websocket_request(scope: Scope) -> Scope:
    """The scope of a websocket as that of its upgrade request, a GET, with the defaults of ASGI.

    Raises:
        ClientError: see `request_head`.
    """
    _path(scope)
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    defaults: Scope = {"query_string": b"", "headers": ()}
    return {**defaults, **scope, "method": "GET", "scheme": scheme, "http_version": "1.1"}


def with_user(person: Person, table: RouteTable, scope: Scope) -> Person:
    """The person with the user and session that layers outside have put into the scope, if a release asks for them.

    Where the app has registered a function for the user, that is called when a decision needs it.
    """
    if not table.asks_person:
        return person
    if is_asked(scope):
        return person._replace(user=UNASKED, session=scope.get("session"))
    user = scope.get("user")
    if user is None or not _is_authenticated(user):
        state = scope.get("state")
        user = state.get("user") if isinstance(state, dict) else None
    return person._replace(user=user, session=scope.get("session"))


def _is_authenticated(user: Any) -> bool:
    try:
        return getattr(user, "is_authenticated", True) is not False
    except Exception:  # noqa: BLE001 - it is the code of the app
        return False
