"""A line of the access log, as JSON or as text. What all requests of a decision share is written once, and kept."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted

from canary_mw.observability.events import Finished

# What is kept for each decision; rules in force have few of them, but variants may come and go.
_MOST_KEPT = 4096
# C0, DEL and C1, and what turns the direction of a text: a terminal would obey them.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"\\]')

# The fields of a JSON line, in their order, and what they say.
FIELDS = {
    "time": "UTC, when the last byte was sent",
    "method": "of the request",
    "path": "the normalised path, without the query",
    "status": "of the answer; null where the client left before there was one",
    "seconds": "from the head of the request to the end of the answer",
    "mapping": "the Mapping that was chosen; null where none matched",
    "service": "its service",
    "variant": "`stable`, or the gray variant",
    "release": "that has decided, or the stable Mapping of a group with a gray one",
    "reason": "why the proxy itself answered, as `client left`; null for a relayed answer",
    "first_byte": "seconds from the head of the request to the head of the answer",
    "client": "address of the peer",
    "upstream": "address and port that was asked last",
    "tries": "how often the request was sent to upstreams, retries and other endpoints included",
    "request_id": "the `x-request-id` that the upstream got",
    "bytes_in": "of the body of the request; left out where it came in chunks",
    "bytes_out": "of the body of the answer",
    "sent": "true where another canary-mw had decided",
    "answered_by": "`stable`, where it was asked in place of a gray variant",
    "fallback": "how gray had failed then",
    "auth": "what an AuthService has said: `allowed`, `denied`, `error` or `failed_open`",
    "auth_seconds": "how long it took",
    "rate_limit": "what a RateLimitService has said: `ok`, `over_limit` or `error`",
    "rate_limit_seconds": "how long it took",
}

Formatter = Callable[[Finished, float], str]
_Shared = tuple[str | None, str | None, str | None, str | None]
_json_parts: dict[_Shared, str] = {}
_text_parts: dict[_Shared, str] = {}
_second: tuple[int, str] = (-1, "")
_MILLISECONDS = [f".{number:03d}" for number in range(1000)]


def json_line(record: Finished, now: float) -> str:
    """One JSON object; fields that say nothing are left out, but for those that every line has.

    Args:
        now: seconds since 1970.
    """
    shared = record.mapping, record.service, record.variant, record.release
    part = _json_parts.get(shared) or _keep(_json_parts, shared, _json_part(*shared))
    status = "null" if record.status is None else record.status
    reason = "null" if record.reason is None else quoted(record.reason)
    seconds, first_byte = record.seconds, record.first_byte
    took = f"{seconds:.6f}"
    line = (
        f'{{"time": "{timestamp(now)}+00:00", "method": {quoted(record.method)}, "path": {quoted(record.path)},'
        f' "status": {status}, "seconds": {took}, {part}, "reason": {reason}'
    )
    if first_byte is not None:
        # They are one where a whole answer has come at once.
        line += f', "first_byte": {took if first_byte is seconds else f"{first_byte:.6f}"}'
    if record.client is not None:
        line += f', "client": {quoted(record.client)}'
    if record.upstream is not None:
        line += f', "upstream": {quoted(record.upstream)}, "tries": {record.tries}'
    if record.request_id is not None:
        line += f', "request_id": {quoted(record.request_id)}'
    if record.bytes_in is not None:
        line += f', "bytes_in": {record.bytes_in}'
    rare = record.sent or record.answered_by or record.fallback or record.auth or record.rate_limit
    return f'{line}, "bytes_out": {record.bytes_out}{_rare(record) if rare else ""}}}'


def _rare(record: Finished) -> str:
    """The fields that most lines do not have."""
    fields: dict[str, object] = {
        "sent": record.sent,
        "answered_by": record.answered_by,
        "fallback": record.fallback,
        "auth": record.auth,
        "auth_seconds": record.auth_seconds and round(record.auth_seconds, 6),
        "rate_limit": record.rate_limit,
        "rate_limit_seconds": record.rate_limit_seconds and round(record.rate_limit_seconds, 6),
    }
    return "".join(f', "{name}": {json.dumps(value)}' for name, value in fields.items() if value)


def _json_part(mapping: str | None, service: str | None, variant: str | None, release: str | None) -> str:
    fields = {"mapping": mapping, "service": service, "variant": variant}
    if release is not None:
        fields["release"] = release
    return json.dumps(fields)[1:-1]


def text_line(record: Finished, now: float) -> str:
    """The same for people: time, client, request, status, seconds, variant, Mapping, upstream, bytes, tries, id.

    Args:
        now: seconds since 1970.
    """
    shared = record.mapping, record.service, record.variant, record.release
    part = _text_parts.get(shared) or _keep(_text_parts, shared, " ".join(safe(each or "-") for each in shared))
    status = "-" if record.status is None else record.status
    bytes_in = "-" if record.bytes_in is None else record.bytes_in
    line = (
        f'{timestamp(now)}Z {safe(record.client or "-")} "{safe(record.method)} {safe(record.path)}" {status}'
        f" {record.seconds:.6f} {part} {safe(record.upstream or '-')} {bytes_in} {record.bytes_out} {record.tries}"
        f" {safe(record.request_id or '-')}"
    )
    auth = f"auth: {record.auth}" if record.auth not in (None, "allowed") else None
    limit = f"rate_limit: {record.rate_limit}" if record.rate_limit not in (None, "ok") else None
    fallback = record.fallback and f"fallback: {record.fallback}"
    said = [text for text in (record.reason, fallback, auth, limit) if text]
    return f'{line} "{safe("; ".join(said))}"' if said else line


def safe(text: str) -> str:
    """A text without what a terminal obeys, or what ends a quoted text."""
    return _UNSAFE.sub(_escaped, text) if _UNSAFE.search(text) else text


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character in '"\\':
        return f"\\{character}"
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def timestamp(now: float) -> str:
    """UTC as ISO 8601 with milliseconds."""
    global _second
    whole = int(now)
    known, text = _second
    if known != whole:
        text = datetime.fromtimestamp(whole, UTC).isoformat()[:19]
        _second = whole, text
    return text + _MILLISECONDS[int((now - whole) * 1000)]


def _keep(parts: dict[_Shared, str], shared: _Shared, part: str) -> str:
    if len(parts) >= _MOST_KEPT:
        parts.clear()
    parts[shared] = part
    return part


FORMATS: dict[str, Formatter] = {"json": json_line, "text": text_line}
