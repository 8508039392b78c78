"""Heads of requests and responses as values.

Header names are lower-case bytes, values are bytes without surrounding blanks, and lists keep the received order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from canary_mw.http.authority import split_absolute, with_host
from canary_mw.http.target import METHODS, PLAIN_PATH, check_method, check_query, normalize_path

RawHeaders = Sequence[tuple[bytes, bytes]]
HeaderInput = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]

# Responses that never have a body, besides the informational ones and those to HEAD (RFC 9112, section 6.3).
NO_BODY_STATUSES = frozenset((204, 304))


class Mount(NamedTuple):
    """Where the app is mounted: a part of the path that the rules do not see.

    Attributes:
        root: the root path, escaped, as it stands before every path that clients know.
        sent: the part of it that the request holds; it is in front of the path that is forwarded, too.
        added: what the server has put in front of the path that it received.
    """

    root: bytes = b""
    sent: bytes = b""
    added: bytes = b""


NO_MOUNT = Mount()


class RequestHead:
    """A request as the rules see it; treat it as immutable.

    Args:
        method: as received; the case is kept.
        target: the raw request target, path and query; of absolute-form, the authority takes the place of Host.
        headers: a mapping, or pairs where a name may repeat.
        client: address of the client, None where the server does not know it.
        scheme: "http" or "https".
        http_version: "1.0" or "1.1".
        client_port: port of the client, 0 where the server does not know it.
        server_port: port that received the request, 0 where the server does not know it.

    Attributes:
        path: the normalised path that is matched *and* sent (see `normalize_path`); "*" only for `OPTIONS *`.
        query: the query with its "?", byte for byte as received, or empty.
        mount: the root path that was in front of the path.
        forwarded: the request to an upstream that was made of it, for who tells of it; unset before.
        answered: the headers of the answer, likewise; unset where no LogService is told.
        failed: why an upstream has not answered at last, by the reason of the error and whether it may have been sent.
        trace: the trace of the request, see `forwarding.tracing`; None where it is not traced.
        asked: what services of filters were asked about it, and have answered; unset where there are no filters.

    Raises:
        BadTarget: the target holds a fragment, control or non-ASCII bytes, or an escaped NUL.
        ClientError: the method is not in `METHODS` (Envoy answers 400).
    """

    __slots__ = (
        "_headers_by_name",
        "answered",
        "asked",
        "client",
        "client_port",
        "failed",
        "forwarded",
        "headers",
        "http_version",
        "method",
        "mount",
        "path",
        "query",
        "scheme",
        "server_port",
        "trace",
    )

    forwarded: Any
    answered: Any
    failed: Any
    asked: Any
    trace: Any

    def __init__(
        self,
        method: str,
        target: str | bytes = "/",
        headers: HeaderInput = (),
        *,
        client: str | None = "127.0.0.1",
        scheme: str = "http",
        http_version: str = "1.1",
        client_port: int = 0,
        server_port: int = 0,
    ) -> None:
        check_method(method)
        # UTF-8: a character outside Latin-1 would become "?", and is refused below instead.
        raw = target if isinstance(target, bytes) else target.encode("utf-8", "surrogatepass")
        path, separator, query = raw.partition(b"?")
        self.method = method
        self.path = normalize_path(path)
        self.query = check_query(separator + query)
        self.headers: RawHeaders = raw_headers(headers)
        self.client = client
        self.client_port = client_port
        self.server_port = server_port
        self.scheme = scheme
        self.http_version = http_version
        self.mount = NO_MOUNT
        self.trace = None
        self._headers_by_name: dict[bytes, bytes] | None = None
        if (absolute := split_absolute(raw)) is not None:
            self.headers = with_host(self.headers, absolute.authority)

    @classmethod
    def from_wire(
        cls,
        method: str,
        path: bytes,
        query: bytes,
        headers: RawHeaders,
        client: str | None,
        scheme: str,
        version: str,
        client_port: int = 0,
        server_port: int = 0,
        headers_by_name: dict[bytes, bytes] | None = None,
    ) -> Self:
        """Build a head from what a server has parsed; most paths need only one `translate`.

        Args:
            path: raw path without query, in origin-form: the caller has the authority of another form in the headers.
            query: without "?", empty for none.
            headers: pairs of lower-case name and value.
            headers_by_name: see `headers_by_name`, None to make it when needed.
        """
        self = cls.__new__(cls)
        if method not in METHODS:
            check_method(method)
        self.method = method
        self.path = path if path[:1] == b"/" and not path.translate(None, PLAIN_PATH) else normalize_path(path)
        self.query = check_query(b"?" + query) if query else b""
        self.headers = headers
        self.client = client
        self.client_port = client_port
        self.server_port = server_port
        self.scheme = scheme
        self.http_version = version
        self.mount = NO_MOUNT
        self.trace = None
        self._headers_by_name = headers_by_name
        return self

    @classmethod
    def from_fields(
        cls,
        method: str,
        path: bytes,
        query: bytes,
        fields: dict[bytes, bytes],
        peer: tuple[str | None, str, str, int, int],
    ) -> Self:
        """Build a head whose parts are checked, and have the form of the attributes.

        Args:
            fields: the headers, none of which is repeated.
            peer: client, scheme, version and ports, as `from_wire` takes them.
        """
        self = cls.__new__(cls)
        self.method = method
        self.path = path
        self.query = query
        self.headers = list(fields.items())
        self.client, self.scheme, self.http_version, self.client_port, self.server_port = peer
        self.mount = NO_MOUNT
        self.trace = None
        self._headers_by_name = fields
        return self

    def replace(self, *, path: bytes | None = None, headers: RawHeaders | None = None) -> "RequestHead":
        """A copy with another path, already normalised, or other headers."""
        other = copy(self)
        other.path = self.path if path is None else path
        if headers is not None:
            other.headers = headers
            other._headers_by_name = None
        return other

    def look_up_often(self) -> None:
        """Make look-ups of headers cheap, where several of them will be made."""
        if self._headers_by_name is None:
            self._headers_by_name = dict(reversed(self.headers))

    @property
    def headers_by_name(self) -> dict[bytes, bytes]:
        """The headers by name; the first value of a repeated name."""
        if self._headers_by_name is None:
            self._headers_by_name = dict(reversed(self.headers))
        return self._headers_by_name

    @property
    def host(self) -> bytes | None:
        """Value of the Host header, or None."""
        return self.header(b"host")

    def has(self, name: bytes) -> bool:
        """Whether there is such a header."""
        if self._headers_by_name is not None:
            return name in self._headers_by_name
        for key, _ in self.headers:  # noqa: SIM110 - hot path, a generator costs twice as much
            if key == name:
                return True
        return False

    def header(self, name: bytes) -> bytes | None:
        """First value of a header, or None."""
        if self._headers_by_name is not None and name not in self._headers_by_name:
            return None
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def any_value_matches(self, name: bytes, accepts: Callable[[bytes], Any]) -> bool:
        """Whether `accepts` is true for at least one value of a header."""
        for key, value in self.headers:  # noqa: SIM110 - hot path, a generator costs twice as much
            if key == name and accepts(value.strip(b" \t")):
                return True
        return False

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r}, {(self.path + self.query).decode('latin-1')!r})"


def raw_headers(headers: HeaderInput) -> list[tuple[bytes, bytes]]:
    """Convert headers to pairs of bytes: names in lower case, values without surrounding blanks."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(_bytes(name).lower(), _bytes(value).strip(b" \t")) for name, value in pairs]


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1", "replace")


class BodyFraming(NamedTuple):
    """Framing of a request body: `length` bytes, or chunked when `length` is None."""

    length: int | None


@dataclass(slots=True)
class ResponseHead:
    """Status in [100, 599] and headers of a response; names in lower case."""

    status: int
    headers: list[tuple[bytes, bytes]]
