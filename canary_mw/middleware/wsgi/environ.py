"""Requests as WSGI has them (PEP 3333): `environ` -> RequestHead, and the body behind `wsgi.input`."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from operator import methodcaller
from typing import Any
from urllib.parse import quote

from canary_mw.exceptions import ClientDisconnected, LengthRequired
from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.http.target import METHODS, PATH_SAFE, check_method, check_query, normalize_path
from canary_mw.types import Environ
from canary_mw.upstreams.body_buffer import SyncReplayBuffer

# Bytes of a body that are asked for at once: servers return when all of them are there, or the body ends.
CHUNK_SIZE = 65536
_REMEMBERED = 1024
_PORTS = {"client_port": "REMOTE_PORT", "server_port": "SERVER_PORT"}
# Keys of an environ -> header names, None for what is no header. Bounded: the names are the client's to choose.
_names: dict[str, bytes | None] = {}
# Of headers, but without HTTP_; empty where there is none.
_UNPREFIXED = ("CONTENT_TYPE", "CONTENT_LENGTH")
_encoded = methodcaller("encode", "latin-1", "replace")
_stripped = methodcaller("strip", b" \t")


class LazyRequestHead(RequestHead):
    """A request whose headers and ports are read when somebody asks: most rules look at the path only."""

    __slots__ = ("_environ", "_pairs", "_sent")

    _environ: Environ
    _pairs: RawHeaders | None
    # The same environ for as long as it tells what the headers are.
    _sent: Environ | None

    @property
    def headers(self) -> RawHeaders:
        """Pairs in the order of the environ; the server has joined repeated ones."""
        if self._pairs is None:
            self._pairs = _headers(self._environ)
        return self._pairs

    @headers.setter
    def headers(self, pairs: RawHeaders) -> None:
        self._pairs = pairs
        self._sent = None

    def header(self, name: bytes) -> bytes | None:
        """See `RequestHead`; looked up, without reading the others."""
        if self._sent is None:
            return super().header(name)
        key = _key_sent(name)
        value: str | None = self._sent.get(key)
        if value is None or (not value and key[:8] == "CONTENT_"):
            return None
        return value.strip(" \t").encode("latin-1", "replace")

    def any_value_matches(self, name: bytes, accepts: Callable[[bytes], Any]) -> bool:
        """See `RequestHead`; most requests lack what rules ask for."""
        if self._sent is None:
            return super().any_value_matches(name, accepts)
        if _key_sent(name) not in self._sent:
            return False
        value = self.header(name)
        return value is not None and bool(accepts(value))

    def __getattr__(self, name: str) -> int:
        # Slots that nothing was put into.
        key = _PORTS.get(name)
        if key is None:
            raise AttributeError(name)
        return _port(self._environ.get(key))


def request_head(environ: Environ) -> LazyRequestHead:
    """The request as the rules see it: the whole path that the client sent, whatever `SCRIPT_NAME` says.

    Raises:
        ClientError: see `RequestHead`.
    """
    # Not by `from_wire`: between the requests of a thread its caches go cold, and each call costs what it does first.
    method = environ["REQUEST_METHOD"]
    if method not in METHODS:
        check_method(method)
    path, query = request_target(environ)
    head = LazyRequestHead.__new__(LazyRequestHead)
    head.method = method
    head.path = normalize_path(path)
    head.query = check_query(b"?" + query) if query else b""
    head.client = environ.get("REMOTE_ADDR") or None
    head.scheme = environ["wsgi.url_scheme"]
    head.http_version = environ.get("SERVER_PROTOCOL", "HTTP/1.1")[5:]
    head._headers_by_name = head._pairs = None
    head._environ = head._sent = environ
    return head


def request_target(environ: Environ) -> tuple[bytes, bytes]:
    """Raw path, or absolute URL, and query.

    Some servers tell the target as it came (gunicorn: RAW_URI; uWSGI, mod_wsgi, waitress: REQUEST_URI). From others'
    PATH_INFO it is built anew, and `%2F` has become a slash.
    """
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if target:
        # UTF-8, so that what may not stand in a target is refused instead of turned into something else.
        path, _, query = target.encode("utf-8", "surrogatepass").partition(b"?")
        return path, query
    decoded = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "").encode("utf-8", "surrogatepass")
    if decoded == "*":
        return b"*", query
    return quote(decoded or "/", safe=PATH_SAFE, encoding="latin-1", errors="replace").encode(), query


def _port(value: str | int | None) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0


def _headers(environ: Environ) -> list[tuple[bytes, bytes]]:
    names: dict[str, Any] = _names if environ.keys() <= _names.keys() else {key: _header_name(key) for key in environ}
    keys = list(filter(names.get, environ))
    for key in _UNPREFIXED:
        if environ.get(key) == "":
            keys.remove(key)
    # No function of Python's own for each: this is a tenth of what forwarding costs.
    values = map(_stripped, map(_encoded, map(environ.__getitem__, keys)))
    return list(zip(map(names.__getitem__, keys), values, strict=True))


def _header_name(key: str) -> bytes | None:
    name = None
    if key.startswith("HTTP_"):
        name = key[5:].replace("_", "-").lower().encode("latin-1", "replace")
    elif key in _UNPREFIXED:
        name = key.replace("_", "-").lower().encode()
    if len(_names) < _REMEMBERED:
        _names[key] = name
    return name


def without_headers(environ: Environ) -> Environ:
    """A copy that tells nothing of the client's headers."""
    return {key: value for key, value in environ.items() if _header_name(key) is None}


def environ_key(name: bytes) -> str:
    """Under which key a header stands."""
    text = name.decode("latin-1").upper().replace("-", "_")
    return text if text in _UNPREFIXED else "HTTP_" + text


@lru_cache(_REMEMBERED)
def _key_sent(name: bytes) -> str:
    """The same for a header that rules ask for; an underscore is in none of the names that are made of an environ."""
    return "" if b"_" in name else environ_key(name)


def with_headers(environ: Environ, headers: Iterable[tuple[bytes, bytes]]) -> Environ:
    """A copy with these headers in place of the client's; repeated ones are joined (RFC 9110, section 5.3)."""
    copy = without_headers(environ)
    for name, value in headers:
        key, text = environ_key(name), value.decode("latin-1")
        joined = "; " if name == b"cookie" else ", "
        copy[key] = f"{copy[key]}{joined}{text}" if key in copy else text
    return copy


class RequestBody:
    """The body of a request in pieces: as many bytes as Content-Length says, or up to the end of a terminated input.

    Args:
        length: None for one that the server ends.

    Raises:
        LengthRequired: such a body, from a server that does not end it.
    """

    def __init__(self, environ: Environ, length: int | None) -> None:
        if length is None and not environ.get("wsgi.input_terminated"):
            raise LengthRequired("a body without length, and the server does not say where it ends")
        self._read = environ["wsgi.input"].read
        self._left = length

    def open(self) -> "bytes | RequestBody":
        """The body: as bytes when it is one piece.

        Raises:
            ClientDisconnected: the client left before the body was complete; iterating raises it too.
        """
        if self._left is None or self._left > CHUNK_SIZE:
            return self
        return b"".join(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._left == 0:
            raise StopIteration
        piece = self._piece(CHUNK_SIZE if self._left is None else min(CHUNK_SIZE, self._left))
        if self._left is not None:
            self._left -= len(piece)
        elif not piece:
            self._left = 0
            raise StopIteration
        return piece

    def _piece(self, size: int) -> bytes:
        try:
            piece: bytes = self._read(size)
        except OSError as exc:
            raise ClientDisconnected("the client left before its body was complete") from exc
        if self._left is not None and not piece:
            raise ClientDisconnected("the client left before its body was complete")
        return piece


class RecordingInput:
    """A `wsgi.input` that tells a tee what the app reads."""

    def __init__(self, source: Any, tee: SyncReplayBuffer, length: int | None) -> None:
        self._source = source
        self._tee = tee
        self._left = length

    def read(self, size: int = -1) -> bytes:
        """See PEP 3333, also for the methods."""
        return self._noted(self._source.read() if size is None or size < 0 else self._source.read(size), size == 0)

    def readline(self, size: int = -1) -> bytes:
        line = self._source.readline() if size is None or size < 0 else self._source.readline(size)
        return self._noted(line, size == 0)

    def readlines(self, hint: int = -1) -> list[bytes]:
        lines: list[bytes] = []
        while (hint < 1 or sum(map(len, lines)) < hint) and (line := self.readline()):
            lines.append(line)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __getattr__(self, name: str) -> Any:
        # Whoever reads in ways of one server only reads past us: there is no copy then.
        self._tee.close()
        return getattr(self._source, name)

    def _noted(self, piece: bytes, asked_for_nothing: bool) -> bytes:
        if self._left is not None:
            self._left -= len(piece)
        ended = not piece and not asked_for_nothing
        self._tee.feed(piece, last=ended if self._left is None else self._left == 0)
        return piece
