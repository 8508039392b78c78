"""Headers that not everybody may send: what is neither from a trusted peer nor signed is removed before it is read.

A rule's `gray: "true"` is data that any client can send. Headers named here are believed from trusted peers only or,
where there are keys, with a signature only, whoever sends it: an ingress hands on what outsiders sent.

A signature is an HMAC-SHA256 (RFC 2104) over name, value and expiry in a header of its own: rules, wrapped app and
upstream see the bare value, and the next canary-mw on the way can verify it again.
"""

import hmac
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from canary_mw.exceptions import ConfigError
from canary_mw.http.headers import FRAMING_HEADERS, has_control
from canary_mw.http.messages import RawHeaders

SIGNATURE = b"canary-mw-signature"
# Characters of a key as it is written; 32 hexadecimal ones are 128 bits.
MIN_KEY = 32
# Signatures of one request that are looked at: verifying is to stay cheap whatever a client sends.
MAX_SIGNATURES = 16

_NONE: frozenset[bytes] = frozenset()
_NAME = re.compile(rb"[!#$%&'*+.^`|~0-9a-z_-]+")
_ENTRY = re.compile(rb"[ \t]*([^ \t;]+)[ \t]*;[ \t]*exp=([0-9]{1,12})[ \t]*;[ \t]*sig=([0-9a-f]{64})[ \t]*")
# Without them a request is another one, or none; loops are found by `via`, whoever adds to it.
_NEEDED = FRAMING_HEADERS | {b"host", b"expect", b"te", b"trailer", b"via"}


@dataclass(frozen=True, slots=True)
class TrustedHeaders:
    """Which headers need trust, and how it is shown.

    Attributes:
        names: lower-case.
        keys: each of them verifies; empty: the peer's address decides.
    """

    names: frozenset[bytes]
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    # WSGI cannot tell X_Group from X-Group.
    _folded: frozenset[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_folded", frozenset(map(_fold, self.names)))

    @classmethod
    def of(cls, names: Iterable[str], keys: Sequence[bytes] = ()) -> "TrustedHeaders | None":
        """From settings; None when no header is named.

        Args:
            names: in any case; one text may hold several, joined by commas.
            keys: secrets of at least `MIN_KEY` bytes.

        Raises:
            ConfigError: a name that is none, or that no request can do without; a key that is too short, or is for no
                header.
        """
        found = frozenset(part.strip().lower() for name in names for part in name.split(",") if part.strip())
        if keys and not found:
            raise ConfigError("there are header keys, but no header to verify", hint="name one: trusted_headers")
        short = next((number for number, key in enumerate(keys, 1) if len(key) < MIN_KEY), None)
        if short is not None:
            hint = "make one with: openssl rand -hex 32"
            raise ConfigError(f"header key {short} has fewer than {MIN_KEY} characters", hint=hint)
        return cls(frozenset(map(_name, found)), tuple(keys)) if found else None

    def strip_untrusted(self, headers: RawHeaders, trusted: bool, now: float) -> list[tuple[bytes, bytes]]:
        """The headers of a request without those that are not to be believed, in a new list.

        Args:
            headers: lower-case names.
            trusted: whether the peer is; it does not matter where there are keys.
            now: seconds since the epoch.
        """
        proven = self._proven(headers, now) if self.keys else self.names if trusted else _NONE
        folded = self._folded
        return [pair for pair in headers if pair[0].replace(b"_", b"-") not in folded or pair[0] in proven]

    def sign(self, name: str, value: str, expires: int) -> tuple[str, str]:
        """The bare value and its signature by the first key, to be sent in the headers `name` and `SIGNATURE`.

        Args:
            name: in any case.
            expires: seconds since the epoch, from when on it counts no more.

        Raises:
            ConfigError: the name or the value cannot stand in a header.
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

    def _proven(self, headers: RawHeaders, now: float) -> frozenset[bytes]:
        """Names of the headers with a signature that holds; one that is repeated has none."""
        counts = Counter(name for name, _ in headers if name in self.names)
        if not counts:
            return frozenset()
        entries = _entries(headers)
        single = [(name, value) for name, value in headers if counts[name] == 1 and name in entries]
        return frozenset(name for name, value in single if self._holds(name, value, *entries[name], now))

    def _holds(self, name: bytes, value: bytes, expires: int, mac: bytes, now: float) -> bool:
        value = value.strip(b" \t")
        return expires > now and any(hmac.compare_digest(_mac(key, name, value, expires), mac) for key in self.keys)


def _name(text: str) -> bytes:
    name = text.encode("utf-8")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{text!r} is not the name of a header")
    if name in _NEEDED or name == SIGNATURE:
        raise ConfigError(f"the header {text} cannot be left to trusted peers", hint="every request needs it")
    return name


def _fold(name: bytes) -> bytes:
    return name.replace(b"_", b"-")


def _entries(headers: RawHeaders) -> dict[bytes, tuple[int, bytes]]:
    """Expiry and code by header name; of several for one name the last."""
    texts = b",".join(value for name, value in headers if name == SIGNATURE).split(b",", MAX_SIGNATURES)
    found = (_ENTRY.fullmatch(text) for text in texts[:MAX_SIGNATURES])
    return {each[1].lower(): (int(each[2]), each[3]) for each in found if each is not None}


def _mac(key: bytes, name: bytes, value: bytes, expires: int) -> bytes:
    # A name and a number hold no line break, so no two messages are the same text.
    text = b"%b\n%b\n%d\n%b" % (SIGNATURE, name, expires, value)
    return hmac.digest(key, text, "sha256").hex().encode("ascii")
