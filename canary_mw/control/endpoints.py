"""Which APIs know the endpoints that rules ask for, and which services those are of."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.sources.kubernetes_url import KubernetesURL
from canary_mw.exceptions import ConfigError
from canary_mw.routing.table import RouteTable
from canary_mw.rules.service import Service
from canary_mw.rules.upstream import EndpointOptions
from canary_mw.upstreams.discovery.cluster_endpoints import watch_cluster

if TYPE_CHECKING:
    from canary_mw.kubernetes.credentials import Connection
    from canary_mw.upstreams.discovery.discovery import Discovery


def discovery_of(source: ConfigSource, address: str | None, zone: str, *, may_exec: bool) -> "Discovery":
    """What knows endpoints: the cluster at an address, by default the one that rules come from; and Consul.

    Args:
        address: as `parse_endpoints_url` takes it.
        may_exec: whether a kubeconfig may have a command run, if its address allows that.
    """
    # Settings, which a command reads before it looks for its libraries, import this module.
    from canary_mw.upstreams.discovery.consul_watch import watch_consul
    from canary_mw.upstreams.discovery.discovery import Discovery

    connections = [each.connection for each in getattr(source, "sources", (source,)) if hasattr(each, "connection")]
    if address or connections:
        # Here, and not at the first Service: a server may fork while another thread imports, and a child would wait
        # for the lock of the module. Without an API nothing of it is loaded: httpx takes long.
        for name in ("control.sources.kubernetes", "upstreams.discovery.cluster_watch"):
            import_module(f"canary_mw.{name}")

    def connect() -> "Connection":
        if address:
            from canary_mw.control.sources.kubernetes import connect

            return connect(parse_endpoints_url(address), may_exec)
        if not connections:
            hint = "set --endpoints or CANARY_MW_ENDPOINTS, for example to k8s://"
            raise ConfigError("the rules come from no API, and none is named", hint=hint)
        first: Connection = connections[0]
        return first

    return Discovery(watch_cluster(connect, zone), watch_consul())


def parse_endpoints_url(text: str) -> KubernetesURL:
    """Read the address of an API; its Services are named by the rules.

    Raises:
        ConfigError: it is none, or says more than how the API is reached.
    """
    if not text.startswith("k8s://"):
        raise ConfigError(f"{text!r} is no address of an API", hint="write k8s:// or k8s://?kubeconfig=FILE")
    url = KubernetesURL.parse(text)
    if url.namespaces or url.selector or url.kinds_named or url.keep_last:
        hint = "leave all but kubeconfig, context and exec out: the rules name the Services"
        raise ConfigError(f"{text} says more than how the API is reached", hint=hint)
    return url


def endpoints_to_find(
    table: RouteTable, *, wraps: bool, is_replaced: Callable[[Service], bool]
) -> set[EndpointOptions]:
    """The options of the Mappings of a table whose endpoints an API is asked for.

    Args:
        wraps: whether the wrapped app answers for the local service.
        is_replaced: whether requests to a service go elsewhere.
    """
    found = set()
    for mapping in table.mappings:
        options = mapping.options.endpoints
        if options is None or (options.kubernetes_service is None and options.consul_service is None):
            continue
        is_app = wraps and not table.local.isdisjoint(mapping.service.names)
        if not is_app and not is_replaced(mapping.service):
            found.add(options)
    return found
