"""Cross-origin requests, answered and marked as Envoy's CORS filter does (Fetch standard, section 3.2)."""

from collections.abc import Iterable
from dataclasses import dataclass

from canary_mw.http.messages import RequestHead

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """The `cors` of a Mapping with its headers ready to send.

    Attributes:
        origins: exact origins that are allowed; b"*" among them allows all.
        simple: headers of every answer to an allowed origin, without allow-origin.
        preflight: headers of the answer to a preflight, without allow-origin.
    """

    origins: frozenset[bytes]
    simple: tuple[tuple[bytes, bytes], ...]
    preflight: tuple[tuple[bytes, bytes], ...]

    def allows(self, origin: bytes | None) -> bool:
        """Whether an Origin header is one of ours; origins compare byte for byte."""
        return origin is not None and (origin in self.origins or b"*" in self.origins)


def cors_policy(
    *,
    origins: Iterable[str],
    methods: Iterable[str] = (),
    headers: Iterable[str] = (),
    exposed_headers: Iterable[str] = (),
    credentials: bool = False,
    max_age: str | None = None,
) -> CorsPolicy:
    """Make the policy of a Mapping; what is empty sends no header."""
    simple = [
        (b"access-control-allow-credentials", "true" if credentials else ""),
        (b"access-control-expose-headers", ", ".join(exposed_headers)),
    ]
    preflight = [
        *simple,
        (b"access-control-allow-methods", ", ".join(methods)),
        (b"access-control-allow-headers", ", ".join(headers)),
        (b"access-control-max-age", max_age or ""),
    ]
    return CorsPolicy(frozenset(origin.encode() for origin in origins), _given(simple), _given(preflight))


def _given(headers: list[tuple[bytes, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name, value.encode()) for name, value in headers if value)


def preflight_headers(policy: CorsPolicy, head: RequestHead) -> Headers | None:
    """Headers of our own answer to a preflight; None for any other request, and for a foreign origin's.

    The requested method is not checked: the browser does, against the answer.
    """
    origin = head.header(b"origin")
    if head.method != "OPTIONS" or not policy.allows(origin) or not head.header(b"access-control-request-method"):
        return None
    return [(b"access-control-allow-origin", origin or b""), *policy.preflight]


def with_cors_headers(policy: CorsPolicy, head: RequestHead, headers: Headers) -> Headers:
    """An answer's headers with those for an allowed origin, in place of what the upstream said about it."""
    origin = head.header(b"origin")
    if not policy.allows(origin):
        return headers
    own = [(b"access-control-allow-origin", origin or b""), *policy.simple]
    names = {name for name, _ in own}
    return [pair for pair in headers if pair[0] not in names] + own
