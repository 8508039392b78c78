"""Which requests are traced (Envoy `ConnectionManagerUtility::mutateTracingRequestHeader`)."""

from collections.abc import Callable

from canary_mw.rules.filters.traces import Sampling


def is_sampled(sampling: Sampling, decided: bool | None, roll: Callable[[], float], *, asked: bool) -> bool:
    """Whether a request is traced.

    Args:
        decided: what the request has brought; it wins over everything.
        roll: draws a percent in [0, 100).
        asked: the request has `x-client-trace-id`.
    """
    if decided is not None:
        return decided
    chosen = (asked and roll() < sampling.client) or roll() < sampling.random
    return chosen and roll() < sampling.overall
