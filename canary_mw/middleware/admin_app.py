"""The app of an admin port for a middleware: that of an app, or that of the proxy."""

import os
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Protocol
from weakref import ref

from canary_mw.admin.app import create_admin
from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.store import RuleStore
from canary_mw.middleware.settings import MiddlewareSettings
from canary_mw.middleware.shown_settings import shown_settings
from canary_mw.observability.prometheus import MeteredMiddleware, Metrics
from canary_mw.observability.source_status import SourceStatus
from canary_mw.upstreams.discovery.discovery import Discovery
from canary_mw.upstreams.health import EndpointStatus

if TYPE_CHECKING:
    from starlette.applications import Starlette


class Shown(MeteredMiddleware, Protocol):
    """A middleware that an admin port shows."""

    store: RuleStore

    rollouts: Rollouts

    discovery: Discovery

    def endpoint_statuses(self) -> list[EndpointStatus]:
        """See `MiddlewareBase.endpoint_statuses`."""


def admin_app(
    middleware: Shown,
    metrics: Metrics,
    settings: MiddlewareSettings,
    *,
    token_file: str | os.PathLike[str] | None = None,
    arguments: Collection[str] = (),
    draining: Callable[[], bool] = lambda: False,
) -> "Starlette":
    """Create the admin app of a middleware.

    Args:
        token_file: see `create_admin`.
        arguments: names of the settings that the middleware was given as arguments.
        draining: see `create_admin`.
    """
    return create_admin(
        middleware.store,
        metrics,
        draining,
        host_names=settings.admin_host_names,
        token_file=token_file,
        settings=shown_settings(settings, arguments=arguments),
        endpoints=partial(_endpoints, ref(middleware)),
        sources=partial(_sources, ref(middleware)),
        waiting=partial(_waiting, ref(middleware)),
        folder=lambda: getattr(metrics.figures.open_folder(), "path", None),
    )


def _endpoints(middleware: "ref[Shown]") -> list[EndpointStatus]:
    """Those of a middleware that this does not keep."""
    found = middleware()
    return [] if found is None else found.endpoint_statuses()


def _sources(middleware: "ref[Shown]") -> list[SourceStatus]:
    """The same for what is watched over a network."""
    found = middleware()
    return [] if found is None else found.source_status()


def _waiting(middleware: "ref[Shown]") -> str:
    """What a new process still waits for, "" for nothing."""
    found = middleware()
    if found is None:
        return ""
    return found.discovery.waiting() if found.rollouts.ready else "the states of the releases were not read yet"
