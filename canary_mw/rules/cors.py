"""CORS as in Envoy's CORS filter: preflight responses and response headers (Fetch standard, section 3.2)."""

from collections.abc import Iterable
from dataclasses import dataclass

from canary_mw.http.messages import RequestHead

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """The `cors` of a Mapping, with its headers encoded.

    Attributes:
        origins: exact origins that are allowed; b"*" allows all.
        simple: headers of every response to an allowed origin, without allow-origin.
        preflight: headers of the response to a preflight, without allow-origin.
    """

    origins: frozenset[bytes]
    simple: tuple[tuple[bytes, bytes], ...]
    preflight: tuple[tuple[bytes, bytes], ...]

    def allows(self, origin: bytes | None) -> bool:
        """Whether an Origin header is allowed; origins compare byte for byte."""
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
    """Make the policy of a Mapping; an empty argument adds no header."""
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
    return CorsPolicy(frozenset(origin.encode() for origin in origins), _encoded(simple), _encoded(preflight))


def _encoded(headers: list[tuple[bytes, str]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name, value.encode()) for name, value in headers if value)


def preflight_headers(policy: CorsPolicy, head: RequestHead) -> Headers | None:
    """Headers of the response to a preflight; None for other requests and for origins that are not allowed.

    The requested method is not checked: the browser checks it against the response.
    """
    origin = head.header(b"origin")
    if head.method != "OPTIONS" or not policy.allows(origin) or not head.header(b"access-control-request-method"):
        return None
    return [(b"access-control-allow-origin", origin or b""), *policy.preflight]


def with_cors_headers(policy: CorsPolicy, head: RequestHead, headers: Headers) -> Headers:
    """The response headers; for an allowed origin the CORS headers replace those of the upstream."""
    origin = head.header(b"origin")
    if not policy.allows(origin):
        return headers
    own = [(b"access-control-allow-origin", origin or b""), *policy.simple]
    names = {name for name, _ in own}
    return [pair for pair in headers if pair[0] not in names] + own
