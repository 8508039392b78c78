"""Header names and values: what they may hold, and sets of names with a common role."""

import re
from collections.abc import Collection, Iterable

_TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MAX_CACHED_LENGTH, _MAX_CACHED = 40, 1024
_COMMON_TOKENS = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS PATCH host user-agent accept accept-encoding accept-language accept-ranges"
    b" authorization cache-control connection content-encoding content-length content-type cookie date dnt etag expires"
    b" if-modified-since if-none-match last-modified location origin pragma range referer sec-fetch-dest sec-fetch-mode"
    b" sec-fetch-site server set-cookie traceparent transfer-encoding upgrade-insecure-requests vary via"
    b" x-content-type-options x-forwarded-for x-forwarded-host x-forwarded-proto x-request-id".split()
)
# Names known to be tokens. Clients choose what is added: a full set starts again with the common ones.
_known_tokens = set(_COMMON_TOKENS)
# Headers that concern one connection only and are never forwarded (RFC 9110, section 7.6.1).
HOP_BY_HOP_HEADERS = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings"
    b" proxy-authenticate proxy-authorization".split()
)
# Headers that say where a message ends or which protocol the connection speaks.
FRAMING_HEADERS = frozenset((b"connection", b"content-length", b"transfer-encoding", b"upgrade"))
# Headers by which proxies tell of the client and of what it has asked for.
FORWARDED_HEADERS = frozenset(
    b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-server"
    b" x-forwarded-scheme x-forwarded-ssl x-forwarded-by forwarded x-real-ip".split()
)


def fold_underscores(name: bytes) -> bytes:
    """A name with hyphens for underscores; CGI and WSGI take equal ones for one name (RFC 3875, section 4.1.18)."""
    return name.replace(b"_", b"-")


def are_tokens(names: Collection[bytes]) -> bool:
    """Whether all names are tokens (RFC 9110, section 5.6.2); runs for every request and response head."""
    if _known_tokens.issuperset(names):
        return True
    if not all(names) or b"".join(names).translate(None, _TOKEN):
        return False
    _remember(name for name in names if len(name) <= _MAX_CACHED_LENGTH)
    return True


def _remember(names: Iterable[bytes]) -> None:
    global _known_tokens
    if len(_known_tokens) >= _MAX_CACHED:
        _known_tokens = set(_COMMON_TOKENS)
    _known_tokens.update(names)


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def has_control(text: str) -> bool:
    """Whether a text holds a control character other than a tab; no header value may (RFC 9110, section 5.5)."""
    return _CONTROL.search(text) is not None


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def is_header_name(text: str) -> bool:
    """Whether a text is a token of RFC 9110, section 5.6.2."""
    return _NAME.fullmatch(text) is not None
