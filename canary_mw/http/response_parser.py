"""One answer of an upstream as its bytes come in: the checks and the state behind httptools' callbacks (RFC 9112).

Whatever is ambiguous in it is an error; httptools refuses most of that, and the rest is refused here.
"""

from httptools import HttpParserError, HttpResponseParser

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamProtocolError
from canary_mw.http.messages import NO_BODY_STATUSES, ResponseHead

MAX_HEADER_LINES = 256


class ResponseParser:
    """What was parsed of the current answer.

    What a callback raises comes back out of `feed_data` as the context of the parser's own error.

    Args:
        authority: of the origin, for messages.
        max_head: bytes that may come without any of them being body: heads, trailers, chunk extensions.

    Attributes:
        head: once it is there; informational heads are skipped.
        complete: nothing is missing; also while no answer is expected.
    """

    __slots__ = (
        "_authority",
        "_budget",
        "_chunked",
        "_head_only",
        "_headers",
        "_keep_alive",
        "_max_head",
        "_parser",
        "_pieces",
        "_unread",
        "_until_eof",
        "complete",
        "head",
    )

    def __init__(self, authority: str, max_head: int) -> None:
        self._authority = authority
        self._max_head = max_head
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._unread = 0
        self._head_only = False
        self._expect(False)
        self.complete = True

    def _expect(self, head_only: bool) -> None:
        """Begin anew.

        Args:
            head_only: the answer has no body whatever its head says, as to HEAD.
        """
        if self._head_only:
            # It still waits for the body that the answer to the HEAD request before announced.
            self._parser = HttpResponseParser(self)
        self.complete = self._chunked = self._until_eof = self._keep_alive = False
        self._head_only = head_only
        self.head: ResponseHead | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._budget = self._max_head

    def _feed(self, data: bytes) -> UpstreamProtocolError | None:
        """Take a segment in; the error that is returned spoils the connection, and the answer unless it is complete."""
        parser = self._parser
        if self.complete or parser is None:
            # Nobody asked for this: an answer planted for the next request.
            return self._bad("bytes beyond the answer")
        self._budget -= len(data)
        try:
            parser.feed_data(data)
        except HttpParserError as exc:
            self._keep_alive = False
            cause = exc.__context__
            return cause if isinstance(cause, UpstreamProtocolError) else self._bad(f"not HTTP/1.1 ({exc})")
        return self._check_segment(data)

    def _check_segment(self, data: bytes) -> UpstreamProtocolError | None:
        if not self.complete:
            return self._bad(f"a head or trailer over {self._max_head} bytes") if self._budget < 0 else None
        if self._head_only and data.find(b"\r\n\r\n") != len(data) - 4:
            # Something follows the head, or the head was split and that cannot be told cheaply.
            self._keep_alive = False
        return None

    def _early_end(self) -> UpstreamError:
        """What it means that nothing more will come."""
        if self.head is not None:
            return self._bad("the answer ended early")
        if self._budget < self._max_head:
            return self._bad("the connection ended within the head of the answer")
        return UpstreamConnectError(f"{self._authority}: the connection was lost before an answer", sent=True)

    def on_message_begin(self) -> None:
        if self.complete:
            raise self._bad("bytes beyond the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is not None:
            return
        name = name.lower()
        if name == b"transfer-encoding":
            # Other codings than chunked would have to be undone here (RFC 9112, section 6.1).
            if self._chunked or value.rstrip().lower() != b"chunked":
                raise self._bad("a Transfer-Encoding other than chunked")
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
        if self._head_only:
            self.complete = True
        elif not self._keep_alive and not self._chunked and status not in NO_BODY_STATUSES:
            self._until_eof = not any(name == b"content-length" for name, _ in headers)

    def on_body(self, data: bytes) -> None:
        if self.complete:
            raise self._bad("a body in the answer to HEAD")
        self._budget = self._max_head
        self._unread += len(data)
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        # An informational answer completes too.
        if self.head is not None:
            self.complete = True

    def _check_head(self, version: str, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if version != "1.1" and (version != "1.0" or self._chunked):
            raise self._bad(f"HTTP/{version}" + " with Transfer-Encoding" * self._chunked)
        if status == 101 or not 100 <= status <= 599:
            raise self._bad(f"status {status}, which was not asked for")
        if len(headers) > MAX_HEADER_LINES:
            raise self._bad(f"{len(headers)} header lines, over {MAX_HEADER_LINES}")
        if self._budget < 0 and sum(len(n) + len(v) + 4 for n, v in headers) > self._max_head:
            raise self._bad(f"a head over {self._max_head} bytes")

    def _bad(self, what: str) -> UpstreamProtocolError:
        return UpstreamProtocolError(f"{self._authority}: {what}", sent=True)
