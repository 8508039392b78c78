"""The endpoints that rules ask an API for: those of a cluster, and those of Consul."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from canary_mw.observability.source_status import SourceStatus
from canary_mw.rules.upstream import EndpointOptions, Origin
from canary_mw.upstreams.discovery.cluster_endpoints import ClusterEndpoints
from canary_mw.upstreams.discovery.consul_watch import ConsulEndpoints
from canary_mw.upstreams.discovery.dns import Resolve
from canary_mw.upstreams.discovery.interface import Resolver
from canary_mw.upstreams.discovery.service_resolver import ServiceResolver

# Seconds that a new process waits for Consul. After that only requests to what it does not know fail.
_FIRST_ANSWERS = 5.0


class Discovery(NamedTuple):
    """What knows endpoints, each for the whole process."""

    cluster: ClusterEndpoints
    consul: ConsulEndpoints

    def resolver(self, options: EndpointOptions, origin: Origin, resolve: Resolve) -> Resolver | None:
        """What finds the endpoints of a service; None for one that is looked up by DNS."""
        if options.consul_service is not None:
            return ServiceResolver(options.consul_service, origin, self.consul, None)
        if options.kubernetes_service is not None:
            return ServiceResolver(options.kubernetes_service, origin, self.cluster, resolve)
        return None

    def follow(self, asked: Callable[[], Collection[EndpointOptions]]) -> None:
        """Watch the services of these options from now on, and no others.

        Args:
            asked: says which; see `WatchedEndpoints.follow`.
        """
        self.cluster.follow(lambda: {each.kubernetes_service for each in asked() if each.kubernetes_service})
        self.consul.follow(lambda: {each.consul_service for each in asked() if each.consul_service})

    def waiting(self) -> str:
        """What a new process waits for before it is ready, 5 seconds at most; "" for nothing."""
        missing = self.consul.missing_at_start(_FIRST_ANSWERS)
        names = ", ".join(sorted(each.name for each in missing))
        return f"Consul has not answered yet about {names}" if missing else ""

    def status(self) -> list[SourceStatus]:
        """How it goes with what is watched."""
        return [*self.cluster.status(), *self.consul.status()]

    def stop(self) -> None:
        """End all watches; the next service starts them again."""
        self.cluster.stop()
        self.consul.stop()
