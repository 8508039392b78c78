"""What an admin app shows: the rules of a process, its figures, and what else the process says about itself."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Protocol

from canary_mw.admin.models.operations import SettingInForce
from canary_mw.control.store import RuleStore
from canary_mw.observability.figures.values import Figures
from canary_mw.upstreams.health import EndpointStatus


class MetricsRenderer(Protocol):
    """Source of the metrics page."""

    def expose(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the format that an `Accept` header asks for, and their media type."""


def no_figures() -> Figures:
    """The figures of a process that counts nothing."""
    return Figures(now=time())


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an admin app shows.

    Attributes:
        draining: returns whether the process shuts down and takes no new requests.
        read_figures: reads the figures of all workers of the pod; it may take a while.
        endpoints: the addresses of all services that this process knows; in any thread.
        settings: those in force, without secrets.
        folder: where the workers keep their figures, None for the memory of this process.
        pod: name of the pod or host.
        started: seconds since 1970.
        clock: the same.
    """

    store: RuleStore
    metrics: MetricsRenderer
    draining: Callable[[], bool] = _never
    read_figures: Callable[[], Figures] = no_figures
    endpoints: Callable[[], Sequence[EndpointStatus]] = tuple
    settings: Sequence[SettingInForce] = ()
    folder: str | None = None
    pod: str = field(default_factory=socket.gethostname)
    started: float = field(default_factory=time)
    clock: Callable[[], float] = time
