"""The endpoints of a Service, from its ports and its EndpointSlices. No I/O: `cluster_watch.py` follows the objects.

A slice has the ports of the pods under the names of the ports of the Service (discovery.k8s.io/v1, and v1beta1 before).
Objects are those of an API server, and may hold anything.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, NamedTuple

SERVICE_NAME = "kubernetes.io/service-name"

# An address, and the port of the pod.
Address = tuple[str, int]


class SliceEndpoint(NamedTuple):
    """One of the `endpoints` of a slice.

    Attributes:
        addresses: of one pod; any of them may be used.
        ready: also where the condition is missing.
        serving: whether it still answers, although it ends.
        zones: those that its hints name.
    """

    addresses: tuple[str, ...]
    ready: bool
    serving: bool
    terminating: bool
    zones: frozenset[str]


class Slice(NamedTuple):
    """The part of an EndpointSlice that counts.

    Attributes:
        ports: those for TCP, with their names.
    """

    service: str
    family: str
    ports: tuple[tuple[str, int], ...]
    endpoints: tuple[SliceEndpoint, ...]


class _Target(NamedTuple):
    address: Address
    endpoint: SliceEndpoint


def ports_of(service: dict[str, Any]) -> dict[int, str]:
    """The names of the TCP ports of a Service, by number; none of a Service that stands for a name in DNS."""
    spec = _map(service.get("spec"))
    if spec.get("type") == "ExternalName":
        return {}
    return {number: name for name, number in _ports(spec.get("ports"))}


def slice_of(item: dict[str, Any]) -> Slice | None:
    """A slice of the addresses of a Service; None for one without a Service, or of names."""
    service = _map(_map(item.get("metadata")).get("labels")).get(SERVICE_NAME)
    family = item.get("addressType")
    if not isinstance(service, str) or family not in ("IPv4", "IPv6"):
        return None
    endpoints = tuple(_endpoint(each) for each in _maps(item.get("endpoints")))
    return Slice(service, family, tuple(_ports(item.get("ports"))), endpoints)


def usable_addresses(slices: Iterable[Slice], port_name: str, zone: str = "") -> tuple[Address, ...]:
    """Where new requests to a port of a Service may go, each address once, sorted.

    Those that are ready get requests. Where none is, those that end but still serve do, as with kube-proxy. IPv6 counts
    only where there is no endpoint of IPv4: the same pods are in both.

    Args:
        zone: that of this process, empty where it is not known.
    """
    slices = tuple(slices)
    found = _targets(slices, port_name, "IPv4") or _targets(slices, port_name, "IPv6")
    # A copy that is not ready yet may stand in another slice while an endpoint moves.
    ready = {each.address: each for each in found if each.endpoint.ready and not each.endpoint.terminating}
    if ready:
        return tuple(sorted(each.address for each in _near(list(ready.values()), zone)))
    return tuple(sorted({each.address for each in found if _ends_and_serves(each.endpoint)}))


def count_endpoints(slices: Iterable[Slice]) -> int:
    """How many endpoints there are, usable or not."""
    places = {(address, each.ports) for each in slices for endpoint in each.endpoints for address in endpoint.addresses}
    return len(places)


def _targets(slices: tuple[Slice, ...], port_name: str, family: str) -> list[_Target]:
    return [
        _Target((address, number), endpoint)
        for each in slices
        if each.family == family
        for name, number in each.ports
        if name == port_name
        for endpoint in each.endpoints
        for address in endpoint.addresses
    ]


def _near(ready: list[_Target], zone: str) -> list[_Target]:
    """Those that the hints give to a zone: all of them, unless each has a hint and one is for the zone."""
    near = [each for each in ready if zone in each.endpoint.zones]
    return near if zone and near and all(each.endpoint.zones for each in ready) else ready


def _ends_and_serves(endpoint: SliceEndpoint) -> bool:
    return endpoint.terminating and (endpoint.serving or endpoint.ready)


def _endpoint(given: dict[str, Any]) -> SliceEndpoint:
    conditions = _map(given.get("conditions"))
    ready = conditions.get("ready") is not False
    serving = conditions.get("serving")
    hints = _maps(_map(given.get("hints")).get("forZones"))
    return SliceEndpoint(
        tuple(_addresses(given.get("addresses"))),
        ready,
        ready if serving is None else serving is True,
        conditions.get("terminating") is True,
        frozenset(str(zone.get("name")) for zone in hints),
    )


def _addresses(given: Any) -> Iterator[str]:
    for text in given if isinstance(given, list) else ():
        with suppress(ValueError):
            yield str(ip_address(str(text)))


def _ports(given: Any) -> Iterator[tuple[str, int]]:
    """Name and number of each TCP port; one that a slice does not number is none, as for kube-proxy."""
    for port in _maps(given):
        name, number = port.get("name") or "", port.get("port")
        is_tcp = (port.get("protocol") or "TCP") == "TCP"
        if is_tcp and isinstance(name, str) and isinstance(number, int) and 0 < number < 65536:
            yield name, number


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
