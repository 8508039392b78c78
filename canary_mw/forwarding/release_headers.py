"""What a release adds to the answers of its groups: the variant, and the cookies by which users stay in it.

The anonymous cookie holds the key and never the variant: weights can change, and a rollback needs no cookie deleted.
"""

from collections.abc import Callable
from typing import NamedTuple

from canary_mw.http.messages import RawHeaders, RequestHead
from canary_mw.routing.assignment import Assigned, drain_cookie
from canary_mw.routing.keys import first_cookie
from canary_mw.rules.release import STABLE, GrayRelease

# A cookie is issued again, with its id, after this many days.
REISSUE_AFTER = 180
DAY = 86_400
_DIGITS = b"0123456789abcdefghijklmnopqrstuvwxyz"

# Gives a cookie of a name and a value the text that is sent: signed, where there are keys.
SignCookie = Callable[[bytes, bytes, float], bytes]


class ReleaseHeaders(NamedTuple):
    """What is added to the answer of one request.

    Attributes:
        secure: whether the client came by https.
        now: seconds since the epoch.
    """

    release: GrayRelease
    assigned: Assigned
    head: RequestHead
    secure: bool
    now: float
    sign: SignCookie

    def add(self, status: int, headers: RawHeaders) -> list[tuple[bytes, bytes]]:
        """The headers of an answer with those of the release; an informational answer gets no cookie."""
        name = self.release.response_header
        added = [pair for pair in headers if pair[0].lower() != name]
        if name is not None:
            added.append((name, (self.assigned.variant or STABLE).encode()))
        # A shared cache would give one id to everybody.
        if status >= 200 and may_get_cookie(self.release, self.assigned) and not _is_shared(headers):
            added += [(b"set-cookie", cookie) for cookie in (self._anonymous(), self._drain()) if cookie]
        return added

    def _anonymous(self) -> bytes | None:
        """The cookie with a new id, or with an old one that is due to be issued again."""
        key, issued, today = self.assigned.anonymous_id, self.assigned.issued, int(self.now // DAY)
        if key is None or (issued is not None and today - issued <= REISSUE_AFTER):
            return None
        cookie = self.release.cookie
        domain = f"; Domain={cookie.domain}" if cookie.domain else ""
        text = f"; Path={cookie.path}; Max-Age={cookie.max_age}; HttpOnly; SameSite={cookie.same_site}"
        value = b"%b=%b.%b" % (cookie.name.encode(), key, base36(today))
        return value + text.encode() + self._secure() + domain.encode()

    def _drain(self) -> bytes | None:
        """The cookie that keeps a session in its variant; it is removed when the session is in another one."""
        if not self.release.drain or self.assigned.reason == "sent":
            return None
        name, variant = drain_cookie(self.release.name), self.assigned.variant or STABLE
        present = first_cookie(self.head, name)
        if variant == STABLE:
            return b"%b=; Path=/; Max-Age=0" % name if present else None
        if present is not None and present.partition(b"!")[0] == variant.encode():
            return None
        value = self.sign(name, variant.encode(), self.now)
        return b"%b=%b; Path=/; HttpOnly; SameSite=Lax" % (name, value) + self._secure()

    def _secure(self) -> bytes:
        return b"; Secure" if self.secure else b""


def may_get_cookie(release: GrayRelease, assigned: Assigned) -> bool:
    """Whether a cookie may be added to an answer of a release."""
    return assigned.anonymous_id is not None or release.drain


def with_variant(release: GrayRelease, assigned: Assigned, lines: list[bytes]) -> list[bytes]:
    """As `ReleaseHeaders.add`, for the lines of an answer that gets no cookie; names are in lower case."""
    if release.response_header is None:
        return lines
    start = release.response_header + b": "
    if start in b"\n".join(lines):
        lines = [line for line in lines if not line.startswith(start)]
    return [*lines, start + (assigned.variant or STABLE).encode()]


def _is_shared(headers: RawHeaders) -> bool:
    """Whether a shared cache may keep an answer."""
    for name, value in headers:
        if name.lower() == b"cache-control":
            directives = {part.split(b"=")[0].strip() for part in value.lower().split(b",")}
            if directives & {b"public", b"s-maxage"}:
                return True
    return False


def base36(number: int) -> bytes:
    """A number in base 36."""
    digits = bytearray()
    while number or not digits:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return bytes(reversed(digits))
