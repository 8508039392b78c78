"""The anonymous id of a request without another key: 128 random bits in a cookie."""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256

from canary_mw.http.messages import RequestHead
from canary_mw.routing.keys import first_cookie

# The id, and the day of issue in base 36.
_ANONYMOUS = re.compile(rb"([A-Za-z0-9_-]{22})(?:\.([0-9a-z]{1,4}))?")
_ID_LENGTH = 22


def anonymous_cookie(head: RequestHead, name: bytes) -> tuple[int | None, bytes] | None:
    """Day of issue and id of a valid anonymous cookie."""
    value = first_cookie(head, name)
    match = _ANONYMOUS.fullmatch(value) if value else None
    return None if match is None else (int(match[2], 36) if match[2] else None, match[1])


def id_of(roll: float) -> bytes:
    """An anonymous id that follows from a roll, where no other random source is given."""
    return urlsafe_b64encode(sha256(repr(roll).encode()).digest())[:_ID_LENGTH]
