"""The endpoints of Services, as the API of a cluster has them."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from canary_mw.host import HostLogger
from canary_mw.rules.upstream import KubernetesService
from canary_mw.upstreams.discovery.watched_endpoints import Publish, Watch, WatchedEndpoints

if TYPE_CHECKING:
    from canary_mw.kubernetes.credentials import Connection

logger = HostLogger(logging.getLogger("canary_mw.endpoints"))

ClusterEndpoints = WatchedEndpoints[KubernetesService]


def watch_cluster(connect: "Callable[[], Connection]", zone: str = "") -> ClusterEndpoints:
    """The endpoints of the Services that rules ask for.

    Args:
        connect: gives the way to the API, at the first Service; it may raise ConfigError or OSError.
        zone: that of the node that this process runs on, empty where it is not known.
    """

    def open_watch(publish: Publish[KubernetesService]) -> Watch[KubernetesService]:
        connection = connect()
        # Whoever names an API has loaded it.
        from canary_mw.upstreams.discovery.cluster_watch import ClusterWatch

        logger.info("endpoints of Services are watched at %s", connection.server)
        return ClusterWatch(connection, zone, publish)

    return WatchedEndpoints(open_watch, "services are looked up by DNS")
