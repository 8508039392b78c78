"""A request to an upstream as a gRPC call, and the answer to the call as a response (grpc PROTOCOL-HTTP2.md)."""

import math
from urllib.parse import quote

from canary_mw.client.extra import GRPC_PROTOCOLS
from canary_mw.client.grpc.call import Answer
from canary_mw.exceptions import UpstreamConnectError, UpstreamError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.http.messages import ResponseHead
from canary_mw.rules.upstream import Origin

# The protocol has room for 8 digits.
_MAX_DIGITS = 99_999_999


def call_headers(origin: Origin, request: UpstreamRequest, remaining: float) -> list[tuple[bytes, bytes]]:
    """The headers of a call: its method is the target of the request, its metadata are the headers but `host`.

    Args:
        remaining: seconds until the deadline, `math.inf` for none.
    """
    headers = [
        (b":method", b"POST"),
        (b":scheme", origin.scheme.encode()),
        (b":path", request.target),
        (b":authority", origin.authority.encode()),
        (b"te", b"trailers"),
    ]
    if remaining != math.inf:
        headers.append((b"grpc-timeout", _timeout(remaining)))
    headers.append((b"content-type", b"application/grpc"))
    return headers + [pair for pair in request.headers if pair[0] != b"host"]


def _timeout(seconds: float) -> bytes:
    milliseconds = math.ceil(max(seconds, 0.0) * 1000)
    if milliseconds <= _MAX_DIGITS:
        return b"%dm" % milliseconds
    return b"%dS" % min(math.ceil(seconds), _MAX_DIGITS)


def response_head(answer: Answer) -> ResponseHead:
    """The status of a call as trailers have it; the message is the body of the response."""
    headers = [(b"grpc-status", b"%d" % answer.status)]
    if answer.text:
        headers.append((b"grpc-message", quote(answer.text, safe=" ").encode()))
    return ResponseHead(200, headers)


def may_repeat(error: UpstreamError, *, was_reused: bool) -> bool:
    """Whether a call may be made once more: the server cannot have begun it, or closed an idle connection meanwhile."""
    if not isinstance(error, UpstreamConnectError):
        return False
    return was_reused or not error.sent


def check_protocol(origin: Origin, selected: str | None) -> None:
    """Check what a server has chosen in the TLS handshake; one that chooses nothing is tried.

    Raises:
        UpstreamConnectError: it speaks another protocol.
    """
    if selected not in (None, *GRPC_PROTOCOLS):
        raise UpstreamConnectError(f"{origin.authority}: speaks {selected} over TLS, not HTTP/2 as gRPC needs")


def message_of(body: object) -> bytes:
    """The message of a call, which is known whole."""
    assert isinstance(body, bytes | None)
    return body or b""
