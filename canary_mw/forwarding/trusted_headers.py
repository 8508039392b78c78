"""Headers that need trust: they are removed from a request unless a trusted peer sent them or a signature is valid.

A rule may match `gray: "true"`, which any client can send. The headers named here are accepted from trusted peers only
or, where keys are set, with a valid signature only. With keys the peer does not matter, because an ingress forwards
headers that clients sent.

A signature is an HMAC-SHA256 (RFC 2104) over name, value and expiry, in a separate header. Rules, wrapped app and
upstream get the plain value, and the next canary-mw in the chain can verify the signature again.
"""

import hmac
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from canary_mw.exceptions import ConfigError
from canary_mw.http.headers import FRAMING_HEADERS, fold_underscores, has_control
from canary_mw.http.messages import RawHeaders

SIGNATURE = b"canary-mw-signature"
# In characters; 32 hexadecimal digits are 128 bits.
MIN_KEY_LENGTH = 32
# Signatures verified per request, so that no client can make verification expensive.
MAX_SIGNATURES = 16

_NONE: frozenset[bytes] = frozenset()
_NAME = re.compile(rb"[!#$%&'*+.^`|~0-9a-z_-]+")
_ENTRY = re.compile(rb"[ \t]*([^ \t;]+)[ \t]*;[ \t]*exp=([0-9]{1,12})[ \t]*;[ \t]*sig=([0-9a-f]{64})[ \t]*")
_COOKIE = re.compile(rb"([^!]+)!([0-9]{1,12})!([0-9a-f]{64})")
# Removing these would change or break the request; loop detection needs `via` from any peer.
_ALWAYS_KEPT = FRAMING_HEADERS | {b"host", b"expect", b"te", b"trailer", b"via"}


@dataclass(frozen=True, slots=True)
class TrustedHeaders:
    """Which headers need trust, and the keys that verify their signatures.

    Attributes:
        names: lower-case.
        keys: a signature by any of them is valid; when empty, the address of the peer decides.
    """

    names: frozenset[bytes]
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    # WSGI cannot distinguish X_Group from X-Group.
    _folded: frozenset[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_folded", frozenset(map(fold_underscores, self.names)))

    @classmethod
    def from_settings(cls, names: Iterable[str], keys: Sequence[bytes] = ()) -> "TrustedHeaders | None":
        """Build from settings; None when no header is named.

        Args:
            names: in any case; one text may hold several names, separated by commas.
            keys: secrets of at least `MIN_KEY_LENGTH` bytes.

        Raises:
            ConfigError: an invalid header name; a header that every request needs; a key that is too short; keys
                without a header.
        """
        found = frozenset(part.strip().lower() for name in names for part in name.split(",") if part.strip())
        if keys and not found:
            raise ConfigError("there are header keys, but no header to verify", hint="name one: trusted_headers")
        short = next((number for number, key in enumerate(keys, 1) if len(key) < MIN_KEY_LENGTH), None)
        if short is not None:
            hint = "make one with: openssl rand -hex 32"
            raise ConfigError(f"header key {short} has fewer than {MIN_KEY_LENGTH} characters", hint=hint)
        return cls(frozenset(map(_name, found)), tuple(keys)) if found else None

    def strip_untrusted(self, headers: RawHeaders, trusted: bool, now: float) -> list[tuple[bytes, bytes]]:
        """The headers of a request without untrusted ones, as a new list.

        Args:
            headers: with lower-case names.
            trusted: whether the peer is trusted; ignored where keys are set.
            now: seconds since the epoch.
        """
        accepted = self._verified(headers, now) if self.keys else self.names if trusted else _NONE
        folded = self._folded
        return [pair for pair in headers if pair[0].replace(b"_", b"-") not in folded or pair[0] in accepted]

    def sign(self, name: str, value: str, expires: int) -> tuple[str, str]:
        """The value and its signature by the first key, for the headers `name` and `SIGNATURE`.

        Args:
            name: in any case.
            expires: seconds since the epoch; from then on the signature is invalid.

        Raises:
            ConfigError: the name or the value is invalid in a header.
        """
        token = _name(name.strip().lower())
        try:
            raw = value.strip(" \t").encode("latin-1")
        except UnicodeEncodeError:
            raise ConfigError(f"the value of {name} cannot stand in a header", hint="use Latin-1") from None
        if has_control(value):
            raise ConfigError(f"the value of {name} holds a control character")
        entry = b"%b;exp=%d;sig=%b" % (token, expires, _mac(self.keys[0], token, raw, expires))
        return raw.decode("latin-1"), entry.decode("ascii")

    def _verified(self, headers: RawHeaders, now: float) -> frozenset[bytes]:
        """Names of the headers with a valid signature; a repeated header is never valid."""
        counts = Counter(name for name, _ in headers if name in self.names)
        if not counts:
            return frozenset()
        entries = _entries(headers)
        single = [(name, value) for name, value in headers if counts[name] == 1 and name in entries]
        return frozenset(name for name, value in single if self._is_valid(name, value, *entries[name], now))

    def _is_valid(self, name: bytes, value: bytes, expires: int, mac: bytes, now: float) -> bool:
        value = value.strip(b" \t")
        return expires > now and any(hmac.compare_digest(_mac(key, name, value, expires), mac) for key in self.keys)


def is_signed(keys: Sequence[bytes], headers: RawHeaders, name: bytes, now: float) -> bool:
    """Whether a header has a valid signature by one of the keys; a repeated header is never valid."""
    values = [value for each, value in headers if each == name]
    entry = _entries(headers).get(name) if keys and len(values) == 1 else None
    if entry is None or entry[0] <= now:
        return False
    value = values[0].strip(b" \t")
    return any(hmac.compare_digest(_mac(key, name, value, entry[0]), entry[1]) for key in keys)


def sign_cookie(key: bytes, name: bytes, value: bytes, expires: int) -> bytes:
    """The value of a cookie with its signature: `VALUE!EXPIRES!MAC`."""
    return b"%b!%d!%b" % (value, expires, _mac(key, b"cookie:" + name, value, expires))


def verify_cookie(keys: Sequence[bytes], name: bytes, signed: bytes, now: float) -> bytes | None:
    """The value of a cookie that `sign_cookie` has signed with one of the keys; None for any other."""
    match = _COOKIE.fullmatch(signed)
    if match is None or int(match[2]) <= now:
        return None
    wanted = [_mac(key, b"cookie:" + name, match[1], int(match[2])) for key in keys]
    return match[1] if any(hmac.compare_digest(each, match[3]) for each in wanted) else None


def _name(text: str) -> bytes:
    name = text.encode("utf-8")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{text!r} is not the name of a header")
    if name in _ALWAYS_KEPT or name == SIGNATURE:
        raise ConfigError(f"the header {text} cannot be left to trusted peers", hint="every request needs it")
    return name


def _entries(headers: RawHeaders) -> dict[bytes, tuple[int, bytes]]:
    """Expiry and HMAC by header name; the last one where a name has several."""
    texts = b",".join(value for name, value in headers if name == SIGNATURE).split(b",", MAX_SIGNATURES)
    found = (_ENTRY.fullmatch(text) for text in texts[:MAX_SIGNATURES])
    return {each[1].lower(): (int(each[2]), each[3]) for each in found if each is not None}


def _mac(key: bytes, name: bytes, value: bytes, expires: int) -> bytes:
    # Neither a name nor a number holds a line break, so two different messages never have the same text.
    text = b"%b\n%b\n%d\n%b" % (SIGNATURE, name, expires, value)
    return hmac.digest(key, text, "sha256").hex().encode("ascii")
