"""Which responses and errors are retried (`retry_policy`, as in Envoy)."""

from canary_mw.exceptions import UpstreamConnectError, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from canary_mw.rules.mapping import Retry

_RETRIED_STATUSES = {
    "5xx": frozenset(range(500, 600)),
    "gateway-error": frozenset((502, 503, 504)),
    "retriable-4xx": frozenset((409,)),
}


def should_retry_status(policy: Retry | None, status: int) -> bool:
    """Whether a response is retried; `refused-stream` and `retriable-status-codes` never apply to HTTP/1.1."""
    return policy is not None and status in _RETRIED_STATUSES.get(policy.retry_on, ())


def should_retry_error(policy: Retry | None, exc: UpstreamError) -> bool:
    """Whether an error is retried, as in Envoy: 5xx and gateway-error include resets and per-try timeouts."""
    if policy is None or isinstance(exc, UpstreamOverloaded):
        return False
    if isinstance(exc, UpstreamTimeout) and exc.deadline_exceeded:
        return False
    if policy.retry_on == "connect-failure":
        return isinstance(exc, UpstreamConnectError) and not exc.sent
    return policy.retry_on in ("5xx", "gateway-error")
