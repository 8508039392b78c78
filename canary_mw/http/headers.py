"""Whether names of headers are tokens: asked for every head that comes in or goes out, mostly about the same names."""

import re
from collections.abc import Collection

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LONGEST, _MOST = 40, 1024
# Known to be tokens. Others are added while there is room: clients choose them, and must not crowd these out.
_KNOWN = set(
    b"GET HEAD POST PUT DELETE OPTIONS PATCH host user-agent accept accept-encoding accept-language accept-ranges"
    b" authorization cache-control connection content-encoding content-length content-type cookie date dnt etag expires"
    b" if-modified-since if-none-match last-modified location origin pragma range referer sec-fetch-dest sec-fetch-mode"
    b" sec-fetch-site server set-cookie traceparent transfer-encoding upgrade-insecure-requests vary via"
    b" x-content-type-options x-forwarded-for x-forwarded-host x-forwarded-proto x-request-id".split()
)
# Headers that concern one connection only and are never forwarded (RFC 9110, section 7.6.1).
HOP_BY_HOP_HEADERS = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings"
    b" proxy-authenticate proxy-authorization".split()
)
# Headers that say where a message ends or which protocol the connection speaks.
FRAMING_HEADERS = frozenset((b"connection", b"content-length", b"transfer-encoding", b"upgrade"))


def are_tokens(names: Collection[bytes]) -> bool:
    """Whether all of these can be the name of a header (RFC 9110, section 5.6.2)."""
    if _KNOWN.issuperset(names):
        return True
    if not all(names) or b"".join(names).translate(None, _TOKEN):
        return False
    if len(_KNOWN) < _MOST:
        _KNOWN.update(name for name in names if len(name) <= _LONGEST)
    return True


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def has_control(text: str) -> bool:
    """Whether a text holds a character that may not stand in a header value (RFC 9110, section 5.5); a tab may."""
    return _CONTROL.search(text) is not None


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def is_header_name(text: str) -> bool:
    """Whether a text is a token of RFC 9110, section 5.6.2."""
    return _NAME.fullmatch(text) is not None
