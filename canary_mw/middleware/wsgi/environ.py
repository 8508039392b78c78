"""Requests as WSGI has them (PEP 3333): `environ` -> RequestHead."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import methodcaller
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from canary_mw.http.authority import check_authority, split_absolute
from canary_mw.http.messages import NO_MOUNT, Mount, RawHeaders, RequestHead
from canary_mw.http.mount import escape_root, split_mount
from canary_mw.http.target import METHODS, PATH_SAFE, check_method, check_query, normalize_path
from canary_mw.types import Environ

_CACHE_SIZE = 1024
_PORTS = {"client_port": "REMOTE_PORT", "server_port": "SERVER_PORT"}
# Keys of an environ -> header names, None for other keys. Clients choose the names: it is bounded, and a full one is
# replaced by an empty one, so that names which nobody sends again make room.
_names: dict[str, bytes | None] = {}
_MAX_KEY_LENGTH = 64
# Keys of headers that have no HTTP_ prefix. Some servers set them to "" when there is no such header.
_UNPREFIXED = ("CONTENT_TYPE", "CONTENT_LENGTH")
_encode = methodcaller("encode", "latin-1", "replace")
_strip = methodcaller("strip", b" \t")


class LazyRequestHead(RequestHead):
    """A request head whose headers and ports are read at first use: most rules read the path only."""

    __slots__ = ("_environ", "_pairs", "_unchanged")

    _environ: Environ
    _pairs: RawHeaders | None
    # The same environ while its headers are those of the head; None once they were replaced.
    _unchanged: Environ | None

    @property
    def headers(self) -> RawHeaders:
        """Pairs in the order of the environ; the server has joined repeated headers."""
        if self._pairs is None:
            self._pairs = _headers(self._environ)
        return self._pairs

    @headers.setter
    def headers(self, pairs: RawHeaders) -> None:
        self._pairs = pairs
        self._unchanged = None

    def has(self, name: bytes) -> bool:
        """See `RequestHead`."""
        return self.header(name) is not None

    def header(self, name: bytes) -> bytes | None:
        """See `RequestHead`; looks the header up without reading the others."""
        if self._unchanged is None:
            return super().header(name)
        key = _lookup_key(name)
        value: str | None = self._unchanged.get(key)
        if value is None or (not value and key[:8] == "CONTENT_"):
            return None
        return value.strip(" \t").encode("latin-1", "replace")

    def any_value_matches(self, name: bytes, accepts: Callable[[bytes], Any]) -> bool:
        """See `RequestHead`; fast when the header is missing, as in most requests."""
        if self._unchanged is None:
            return super().any_value_matches(name, accepts)
        if _lookup_key(name) not in self._unchanged:
            return False
        value = self.header(name)
        return value is not None and bool(accepts(value))

    def __getattr__(self, name: str) -> int:
        # Called for slots that are not set.
        key = _PORTS.get(name)
        if key is None:
            raise AttributeError(name)
        return _port(self._environ.get(key))


def request_head(environ: Environ) -> LazyRequestHead:
    """The head that rules are matched against. Its path is what comes after `SCRIPT_NAME`.

    Raises:
        ClientError: see `RequestHead`; or an absolute-form target names another host than Host.
    """
    # Without `from_wire`: in threads its memory caches go cold between requests, so that every call costs more.
    method = environ["REQUEST_METHOD"]
    if method not in METHODS:
        check_method(method)
    path, query = request_target(environ)
    if path[:1] != b"/":
        path = _origin_form(environ, path)
    head = LazyRequestHead.__new__(LazyRequestHead)
    head.mount = NO_MOUNT
    head.trace = None
    if environ.get("SCRIPT_NAME"):
        head.mount, path = _split_script_name(environ, path)
    head.method = method
    head.path = normalize_path(path)
    head.query = check_query(b"?" + query) if query else b""
    head.client = environ.get("REMOTE_ADDR") or None
    head.scheme = environ["wsgi.url_scheme"]
    head.http_version = environ.get("SERVER_PROTOCOL", "HTTP/1.1")[5:]
    head._headers_by_name = head._pairs = None
    head._environ = head._unchanged = environ
    return head


def request_target(environ: Environ) -> tuple[bytes, bytes]:
    """Raw path, or absolute URL, and query.

    Some servers give the target as it was received (gunicorn: RAW_URI; uWSGI, mod_wsgi, waitress: REQUEST_URI). With
    others it is built from PATH_INFO, where `%2F` has become a slash.
    """
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if target:
        # UTF-8, so that characters that a target may not have are refused instead of replaced.
        path, _, query = target.encode("utf-8", "surrogatepass").partition(b"?")
        return path, query
    decoded = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "").encode("utf-8", "surrogatepass")
    if decoded == "*":
        return b"*", query
    return quote(decoded or "/", safe=PATH_SAFE, encoding="latin-1", errors="replace").encode(), query


def _split_script_name(environ: Environ, path: bytes) -> tuple[Mount, bytes]:
    """Take `SCRIPT_NAME` off a path, where it is in it: a layer in between may have set it for links alone."""
    root = _utf8(environ["SCRIPT_NAME"])
    if unquote_to_bytes(path) == environ.get("PATH_INFO", "").encode("latin-1", "replace"):
        return Mount(escape_root(root)), path
    return split_mount(path, root)


def _utf8(text: str) -> str:
    return text.encode("latin-1", "replace").decode("utf-8", "replace")


def _origin_form(environ: Environ, target: bytes) -> bytes:
    """The path of a target that the server gives as it came.

    The environ of an absolute-form target is changed, so that the wrapped app sees what an upstream would.
    """
    absolute = split_absolute(target)
    if absolute is None:
        return target
    host = environ.get("HTTP_HOST")
    check_authority(absolute, [host.encode("latin-1", "replace")] if host else [])
    environ["HTTP_HOST"] = absolute.authority.decode("latin-1")
    if not environ.get("SCRIPT_NAME") and environ.get("PATH_INFO", "/")[:1] != "/":
        environ["PATH_INFO"] = unquote_to_bytes(absolute.origin_form).decode("latin-1")
    return absolute.origin_form


def _port(value: str | int | None) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0


def _headers(environ: Environ) -> list[tuple[bytes, bytes]]:
    # Read once: another thread may replace it.
    names: dict[str, Any] = _names
    if not environ.keys() <= names.keys():
        names = {key: _header_name(key) for key in environ}
    keys = list(filter(names.get, environ))
    for key in _UNPREFIXED:
        if environ.get(key) == "":
            keys.remove(key)
    # `map` of C functions, without Python code for each header: this is a tenth of the cost of forwarding.
    values = map(_strip, map(_encode, map(environ.__getitem__, keys)))
    return list(zip(map(names.__getitem__, keys), values, strict=True))


def _header_name(key: str) -> bytes | None:
    name = None
    if key.startswith("HTTP_"):
        name = key[5:].replace("_", "-").lower().encode("latin-1", "replace")
    elif key in _UNPREFIXED:
        name = key.replace("_", "-").lower().encode()
    if len(key) <= _MAX_KEY_LENGTH:
        _remember(key, name)
    return name


def _remember(key: str, name: bytes | None) -> None:
    global _names
    if len(_names) >= _CACHE_SIZE:
        _names = {}
    _names[key] = name


def without_headers(environ: Environ) -> Environ:
    """A copy without the client's headers."""
    return {key: value for key, value in environ.items() if _header_name(key) is None}


def environ_key(name: bytes) -> str:
    """The key of a header in an environ."""
    text = name.decode("latin-1").upper().replace("-", "_")
    return text if text in _UNPREFIXED else "HTTP_" + text


@lru_cache(_CACHE_SIZE)
def _lookup_key(name: bytes) -> str:
    """As `environ_key`, for a header that rules read; "" for a name with an underscore, which no environ can have."""
    return "" if b"_" in name else environ_key(name)


def with_headers(environ: Environ, headers: Iterable[tuple[bytes, bytes]]) -> Environ:
    """A copy with these headers in place of the client's. Repeated headers are joined (RFC 9110, section 5.3)."""
    copy = without_headers(environ)
    for name, value in headers:
        key, text = environ_key(name), value.decode("latin-1")
        joined = "; " if name == b"cookie" else ", "
        copy[key] = f"{copy[key]}{joined}{text}" if key in copy else text
    return copy
