"""Parses and checks the response of an upstream, with the callbacks of httptools (RFC 9112).

Whatever is ambiguous is an error; httptools refuses most of it, and this module the rest.
"""

from httptools import HttpParserError, HttpResponseParser

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamProtocolError
from canary_mw.http.headers import FRAMING_HEADERS, HOP_BY_HOP_HEADERS
from canary_mw.http.messages import NO_BODY_STATUSES, ResponseHead

MAX_HEADER_LINES = 256
# What concerns a message as a whole, or its connection, must not come behind its body (RFC 9110, section 6.5.1).
_NO_TRAILERS = FRAMING_HEADERS | HOP_BY_HOP_HEADERS | {b"host"}
# httptools refuses a trailer that is one of these, and names it in its error.
_REFUSED_TRAILERS = ("Content-Length", "Transfer-Encoding")


class ResponseParser:
    """The current response of a connection, as far as it is parsed.

    An error that a callback raises is the context of the error that `feed_data` raises.

    Args:
        authority: of the origin, for messages.
        max_head: bytes of head, trailers and chunk extensions that may arrive before the next byte of a body.

    Attributes:
        head: None until it is complete; informational responses are skipped.
        complete: the response is complete; also true while none is expected.
    """

    __slots__ = (
        "_authority",
        "_budget",
        "_buffered",
        "_chunked",
        "_chunks",
        "_head_only",
        "_headers",
        "_keep_alive",
        "_max_head",
        "_parser",
        "_until_eof",
        "complete",
        "head",
    )

    def __init__(self, authority: str, max_head: int) -> None:
        self._authority = authority
        self._max_head = max_head
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._head_only = False
        self._start_response(False)
        self.complete = True

    def _start_response(self, head_only: bool) -> None:
        """Reset the state for the next response.

        Args:
            head_only: the response has no body whatever its head says, as for HEAD.
        """
        self.complete = self._chunked = self._until_eof = self._keep_alive = False
        self._head_only = head_only
        self.head: ResponseHead | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._budget = self._max_head

    def _feed(self, data: bytes) -> UpstreamProtocolError | None:
        """Parse received bytes.

        Returns:
            An error after which the connection must be closed, or None. A response that is complete stays valid.
        """
        parser = self._parser
        if self.complete or parser is None:
            # Unrequested bytes could be taken for the response to the next request.
            return self._protocol_error("bytes after the response")
        self._budget -= len(data)
        try:
            parser.feed_data(data)
        except HttpParserError as exc:
            self._keep_alive = False
            if self._is_refused_trailer(exc):
                self.complete = True
                return None
            cause = exc.__context__
            return cause if isinstance(cause, UpstreamProtocolError) else self._protocol_error(f"not HTTP/1.1 ({exc})")
        if self._budget < 0 and not self.complete:
            return self._protocol_error(f"a head or trailer over {self._max_head} bytes")
        return None

    def _is_refused_trailer(self, error: HttpParserError) -> bool:
        """Whether the parser stopped at a trailer of a body that is complete.

        A chunked body is complete with its last chunk (RFC 9112, section 8). From the head of a response to its end,
        only a trailer can have such an error.
        """
        in_chunked_body = self.head is not None and self._chunked and not self.complete
        return in_chunked_body and any(name in str(error) for name in _REFUSED_TRAILERS)

    def _eof_error(self) -> UpstreamError:
        """The error when the connection ends before the response is complete."""
        if self.head is not None or self._budget < self._max_head:
            what = (
                "the connection ended within the head of the response"
                if self.head is None
                else "the response ended early"
            )
            error = self._protocol_error(what)
            error.reason = "reset"
            return error
        return UpstreamConnectError(f"{self._authority}: the connection was lost before a response", sent=True)

    def on_message_begin(self) -> None:
        if self.complete:
            raise self._protocol_error("bytes after the response")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if self.head is not None:
            # A trailer, which is dropped.
            self._keep_alive = self._keep_alive and name not in _NO_TRAILERS
            return
        if name == b"transfer-encoding":
            # Any other coding would have to be decoded here (RFC 9112, section 6.1).
            if self._chunked or value.rstrip().lower() != b"chunked":
                raise self._protocol_error("a Transfer-Encoding other than chunked")
            self._chunked = True
        self._headers.append((name, value.rstrip()))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        status = parser.get_status_code()
        headers = self._headers
        self._check_head(parser.get_http_version(), status, headers)
        if status < 200:
            self._headers = []
            self._chunked = False
            return
        self._keep_alive = parser.should_keep_alive()
        self.head = ResponseHead(status, headers)
        if self._head_only or status in NO_BODY_STATUSES:
            self._keep_alive = self._keep_alive and not self._announces_body(headers)
            self.complete = self._head_only
        elif not self._keep_alive and not self._chunked:
            self._until_eof = not any(name == b"content-length" for name, _ in headers)

    def _announces_body(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether the head of a response without a body says that it has one.

        Upstreams at fault send that body. It may come at any time later, when another request waits on the connection,
        and it may read as a response: so the connection is not used again.
        """
        return self._chunked or any(name == b"content-length" and value.strip(b"0") for name, value in headers)

    def on_body(self, data: bytes) -> None:
        if self.complete:
            raise self._protocol_error("a body in the response to HEAD")
        self._budget = self._max_head
        self._buffered += len(data)
        self._chunks.append(data)

    def on_message_complete(self) -> None:
        # Also called for informational responses.
        if self.head is not None:
            self.complete = True

    def _check_head(self, version: str, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if version != "1.1" and (version != "1.0" or self._chunked):
            raise self._protocol_error(f"HTTP/{version}" + " with Transfer-Encoding" * self._chunked)
        if status == 101 or not 100 <= status <= 599:
            raise self._protocol_error(f"status {status}, which was not requested")
        if len(headers) > MAX_HEADER_LINES:
            raise self._protocol_error(f"{len(headers)} header lines, over {MAX_HEADER_LINES}")
        if self._budget < 0 and sum(len(n) + len(v) + 4 for n, v in headers) > self._max_head:
            raise self._protocol_error(f"a head over {self._max_head} bytes")

    def _protocol_error(self, what: str) -> UpstreamProtocolError:
        return UpstreamProtocolError(f"{self._authority}: {what}", sent=True)
