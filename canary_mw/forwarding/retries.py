"""Which answers and failures are tried again (`retry_policy`, as Envoy does)."""

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.rules.mapping import Retry

_RETRIED = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset((502, 503, 504)),
    "retriable-4xx": frozenset((409,)),
}


def should_retry_status(policy: Retry | None, status: int) -> bool:
    """Whether an answer is tried again; `refused-stream` and `retriable-status-codes` never fire on HTTP/1.1."""
    return policy is not None and status in _RETRIED.get(policy.on, ())


def should_retry_error(policy: Retry | None, exc: UpstreamError) -> bool:
    """Whether a failure is tried again, as Envoy does: 5xx and gateway-error cover resets and the timeout of a try."""
    if policy is None or isinstance(exc, UpstreamOverloaded):
        return False
    if isinstance(exc, UpstreamTimeout) and exc.whole:
        return False
    if policy.on == "connect-failure":
        return isinstance(exc, UpstreamConnectError) and not exc.sent
    return policy.on in ("5xx", "gateway-error")
