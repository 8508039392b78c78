"""RateLimitService: the call about a request, and what its answer means (Envoy's ratelimit filter)."""

import re
from collections.abc import Mapping as Dict
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes

from canary_mw.forwarding.filters.calls import AskGrpc
from canary_mw.forwarding.messages import Reply
from canary_mw.http.framing import well_formed
from canary_mw.http.messages import RequestHead
from canary_mw.rules.filters.auth import NEVER_SET
from canary_mw.rules.filters.limits import Entry, RateLimitPolicy

Headers = tuple[tuple[bytes, bytes], ...]

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
_OVER_LIMIT = 2
# Not `application/grpc-web`, whose clients read the status of HTTP.
_GRPC = re.compile(rb"application/grpc(?:[+; ]|$)", re.I)
# What stands in `grpc-message` as it is: printable ASCII but "%".
_PLAIN = bytes(each for each in range(0x20, 0x7F) if each != 0x25)
# Statuses of gRPC: UNAVAILABLE, RESOURCE_EXHAUSTED.
_UNAVAILABLE, _EXHAUSTED = b"14", b"8"


class LimitAnswer(NamedTuple):
    """What the service has said.

    Attributes:
        reply: to the client, None where the request goes on.
        request_headers: added to the request.
        response_headers: added to its answer.
    """

    reply: Reply | None
    request_headers: Headers = ()
    response_headers: Headers = ()


def ask(policy: RateLimitPolicy, descriptors: list[tuple[Entry, ...]]) -> AskGrpc:
    """The call about a request."""
    entries = [{"entries": [{"key": key, "value": value} for key, value in each]} for each in descriptors]
    return AskGrpc(
        policy.service.text,
        f"RateLimitService {policy.name}",
        METHOD,
        {"domain": policy.domain, "descriptors": entries},
        policy.timeout,
        policy.connect_timeout,
        policy.options,
    )


def answer_of(policy: RateLimitPolicy, head: RequestHead, answer: Dict[str, Any]) -> LimitAnswer:
    """What an answer means for a request; a code that says nothing lets it through."""
    response_headers = _headers(answer.get("response_headers_to_add"))
    if answer.get("overall_code") == _OVER_LIMIT:
        return LimitAnswer(_over_limit(policy, head, answer, response_headers))
    return LimitAnswer(None, _headers(answer.get("request_headers_to_add")), response_headers)


def _over_limit(policy: RateLimitPolicy, head: RequestHead, answer: Dict[str, Any], added: Headers) -> Reply:
    headers = [(b"x-envoy-ratelimited", b"true"), *added]
    body: bytes = answer.get("raw_body") or b""
    if _GRPC.match(head.header(b"content-type") or b""):
        status = _EXHAUSTED if policy.resource_exhausted else _UNAVAILABLE
        grpc = [(b"content-type", b"application/grpc"), (b"grpc-status", status), (b"content-length", b"0")]
        if body:
            # Clients of gRPC read no body; the text is that of the status.
            grpc.append((b"grpc-message", quote_from_bytes(body, safe=_PLAIN).encode()))
        return Reply(200, b"", [*headers, *grpc])
    if body and not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"text/plain"))
    return Reply(429, body, [*headers, (b"content-length", b"%d" % len(body))])


def failure_reply(policy: RateLimitPolicy) -> Reply | None:
    """The reply where the service has failed; None where the request goes on."""
    return Reply(500, b"", [(b"content-length", b"0")]) if policy.failure_mode_deny else None


def _headers(given: Any) -> Headers:
    """Headers of an answer; those that are none, and those that frame a message, are left out."""
    found = []
    for each in given or ():
        name = str(each.get("key", "")).lower().encode("utf-8", "replace")
        raw = each.get("raw_value") or each.get("value") or b""
        value = raw if isinstance(raw, bytes) else str(raw).encode()
        if name not in NEVER_SET and well_formed((name,), (value,)):
            found.append((name, value.strip(b" \t")))
    return tuple(found)
