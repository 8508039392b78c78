"""Requests as WSGI has them (PEP 3333): `environ` -> RequestHead, and the body behind `wsgi.input`."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from operator import methodcaller
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from canary_mw.exceptions import ClientDisconnected, LengthRequired
from canary_mw.http.authority import check_authority, split_absolute
from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.http.target import METHODS, PATH_SAFE, check_method, check_query, normalize_path
from canary_mw.types import Environ
from canary_mw.upstreams.body_buffer import SyncReplayBuffer

# Bytes of a body that are read at once. Servers return when they have all of them, or the body ends.
CHUNK_SIZE = 65536
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
    """The head that rules are matched against. Its path is the whole path that the client sent, `SCRIPT_NAME` included.

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


class RequestBody:
    """The body of a request as an iterator over its chunks.

    Args:
        length: bytes, by Content-Length; None for a body whose end the server reports (`wsgi.input_terminated`).

    Raises:
        LengthRequired: the length is None, and the server does not report the end.
    """

    def __init__(self, environ: Environ, length: int | None) -> None:
        if length is None and not environ.get("wsgi.input_terminated"):
            raise LengthRequired("a body without length, and the server does not say where it ends")
        self._read = environ["wsgi.input"].read
        self._left = length

    def open(self) -> "bytes | RequestBody":
        """The body, as bytes when it is one chunk.

        Raises:
            ClientDisconnected: the client disconnected before the body was complete; iterating raises it too.
        """
        if self._left is None or self._left > CHUNK_SIZE:
            return self
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._left == 0:
            raise StopIteration
        chunk = self._read_chunk(CHUNK_SIZE if self._left is None else min(CHUNK_SIZE, self._left))
        if self._left is not None:
            self._left -= len(chunk)
        elif not chunk:
            self._left = 0
            raise StopIteration
        return chunk

    def _read_chunk(self, size: int) -> bytes:
        try:
            chunk: bytes = self._read(size)
        except OSError as exc:
            raise ClientDisconnected("the client left before its body was complete") from exc
        if self._left is not None and not chunk:
            raise ClientDisconnected("the client left before its body was complete")
        return chunk


class RecordingInput:
    """A `wsgi.input` that feeds what the app reads to a buffer.

    Args:
        length: bytes of the body; None for one whose end the server reports.
    """

    def __init__(self, source: Any, buffer: SyncReplayBuffer, length: int | None) -> None:
        self._source = source
        self._buffer = buffer
        self._left = length

    def read(self, size: int = -1) -> bytes:
        """See PEP 3333, also for the methods."""
        return self._feed(self._source.read() if size is None or size < 0 else self._source.read(size), size == 0)

    def readline(self, size: int = -1) -> bytes:
        line = self._source.readline() if size is None or size < 0 else self._source.readline(size)
        return self._feed(line, size == 0)

    def readlines(self, hint: int = -1) -> list[bytes]:
        lines: list[bytes] = []
        while (hint < 1 or sum(map(len, lines)) < hint) and (line := self.readline()):
            lines.append(line)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __getattr__(self, name: str) -> Any:
        # The app may read by a method that only this server has. Such reads are not recorded, so there is no copy.
        self._buffer.close()
        return getattr(self._source, name)

    def _feed(self, chunk: bytes, empty_read: bool) -> bytes:
        if self._left is not None:
            self._left -= len(chunk)
        ended = not chunk and not empty_read
        self._buffer.feed(chunk, last=ended if self._left is None else self._left == 0)
        return chunk
