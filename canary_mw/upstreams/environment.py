"""What endpoint sets call that has side effects."""

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from canary_mw.rules.upstream import HealthCheck, Origin
from canary_mw.upstreams.discovery.dns import DNS_INTERVAL, Resolve, resolve

if TYPE_CHECKING:
    from canary_mw.upstreams.discovery.discovery import Discovery


class Environment(NamedTuple):
    """The functions with side effects that endpoint sets call; tests replace them.

    Attributes:
        check_health: sends one health check; see `HealthChecker`.
        resolve: see the function of that name, also for its errors.
        dns_interval: seconds between two look-ups of a name.
        clock: monotonic seconds.
        random: in [0, 1).
        discovery: what knows the endpoints of services; None where all are looked up by DNS.
    """

    check_health: Callable[[Origin, HealthCheck], Awaitable[int]]
    resolve: Resolve = resolve
    dns_interval: float = DNS_INTERVAL
    clock: Callable[[], float] = monotonic
    random: Callable[[], float] = random
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    discovery: "Discovery | None" = None
