"""Slices as servers of 1.20 to 1.36 send them, and what else may stand in them."""

from typing import Any

import pytest

from canary_mw.upstreams.discovery.endpoint_slices import count_endpoints, ports_of, slice_of, usable_addresses

Json = dict[str, Any]
HTTP = [{"name": "http", "protocol": "TCP", "port": 8080}]


def made(*endpoints: Json, ports: Any = HTTP, **more: Any) -> Json:
    """A slice of the Service `gray`."""
    labels = {"kubernetes.io/service-name": "gray"}
    metadata = {"name": "gray-1", "namespace": "shop", "labels": labels, "resourceVersion": "325"}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": [*endpoints], "ports": ports, **more}


def pod(address: str, **conditions: Any) -> Json:
    return {"addresses": [address], "conditions": conditions}


def near(address: str, *zones: str) -> Json:
    return {**pod(address, ready=True), "hints": {"forZones": [{"name": zone} for zone in zones]}}


def addresses(*items: Json, port: str = "http", zone: str = "") -> list[str]:
    """Where requests go."""
    slices = [found for item in items if (found := slice_of(item)) is not None]
    return [f"{address}:{number}" for address, number in usable_addresses(slices, port, zone)]


@pytest.mark.parametrize(
    ("conditions", "used"),
    [
        ({"ready": True}, True),
        ({}, True),
        ({"ready": None, "serving": None, "terminating": None}, True),
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": False, "serving": False, "terminating": True}, False),
        # A Service that publishes what is not ready calls everything ready.
        ({"ready": True, "serving": True, "terminating": True}, False),
    ],
)
def test_only_what_is_ready_gets_requests_while_something_is(conditions: Json, used: bool) -> None:
    found = addresses(made(pod("10.1.0.1", ready=True), pod("10.1.0.2", **conditions)))
    assert found == ["10.1.0.1:8080", "10.1.0.2:8080"][: 1 + used]


@pytest.mark.parametrize(
    ("conditions", "used"),
    [
        ({"ready": False, "serving": True, "terminating": True}, True),
        ({"ready": True, "terminating": True}, True),
        ({"ready": False, "serving": False, "terminating": True}, False),
        # A server that knows of no `serving` says nothing of it.
        ({"ready": False, "terminating": True}, False),
        ({"ready": False, "serving": True, "terminating": False}, False),
        ({"ready": False}, False),
    ],
)
def test_without_any_that_is_ready_those_that_end_and_serve_get_requests(conditions: Json, used: bool) -> None:
    assert addresses(made(pod("10.1.0.1", **conditions))) == (["10.1.0.1:8080"] if used else [])


@pytest.mark.parametrize("endpoints", [[], None])
def test_no_endpoint_is_none(endpoints: Any) -> None:
    assert addresses(made(ports=None) | {"endpoints": endpoints}) == []


def test_an_endpoint_in_two_slices_counts_once() -> None:
    one, other = made(pod("10.1.0.1"), pod("10.1.0.2")), made(pod("10.1.0.2"), pod("10.1.0.3"))
    assert addresses(one, other) == [f"10.1.0.{number}:8080" for number in (1, 2, 3)]
    # While it moves, an older copy may say less.
    assert addresses(made(pod("10.1.0.1", ready=False)), made(pod("10.1.0.1"))) == ["10.1.0.1:8080"]
    assert count_endpoints([found for each in (one, other) if (found := slice_of(each))]) == 3


def test_a_port_is_found_by_its_name_in_each_slice() -> None:
    """Pods of one Service may number a named port differently, each in a slice of its own."""
    many = [{"name": "http", "port": 8080}, {"name": "admin", "port": 9000}]
    one = made(pod("10.1.0.1"), ports=many)
    other = made(pod("10.1.0.2"), ports=[{"name": "http", "port": 80}])
    assert addresses(one, other) == ["10.1.0.1:8080", "10.1.0.2:80"]
    assert addresses(one, other, port="admin") == ["10.1.0.1:9000"]
    assert addresses(one, other, port="") == []


@pytest.mark.parametrize("name", ["", None])
def test_a_port_without_a_name_is_the_empty_one(name: str | None) -> None:
    assert addresses(made(pod("10.1.0.1"), ports=[{"name": name, "port": 8080}]), port="") == ["10.1.0.1:8080"]
    assert ports_of({"spec": {"ports": [{"port": 80}]}}) == {80: ""}


def test_ipv6_counts_only_where_there_is_no_ipv4() -> None:
    six = made(pod("fd00::1"), addressType="IPv6")
    assert addresses(six) == ["fd00::1:8080"]
    assert addresses(six, made(pod("10.1.0.1"))) == ["10.1.0.1:8080"]
    # The same pods are in both, and one of the slices may be older.
    assert addresses(six, made(pod("10.1.0.1", ready=False))) == []
    assert addresses(six, made()) == ["fd00::1:8080"]


def test_names_are_no_addresses_and_a_slice_of_no_service_is_nobodys() -> None:
    assert slice_of(made(pod("db.example.com"), addressType="FQDN")) is None
    nobodys = made(pod("10.1.0.1"))
    nobodys["metadata"] = {"name": "x", "namespace": "shop"}
    assert slice_of(nobodys) is None


@pytest.mark.parametrize(
    ("endpoints", "zone", "found"),
    [
        ([near("10.1.0.1", "a"), near("10.1.0.2", "b")], "a", ["10.1.0.1:8080"]),
        ([near("10.1.0.1", "a", "b"), near("10.1.0.2", "b")], "b", ["10.1.0.1:8080", "10.1.0.2:8080"]),
        # Not known, or not in a hint.
        ([near("10.1.0.1", "a"), near("10.1.0.2", "b")], "", ["10.1.0.1:8080", "10.1.0.2:8080"]),
        ([near("10.1.0.1", "a"), near("10.1.0.2", "b")], "c", ["10.1.0.1:8080", "10.1.0.2:8080"]),
        # One has no hint: the server is about to change them.
        ([near("10.1.0.1", "a"), pod("10.1.0.2")], "a", ["10.1.0.1:8080", "10.1.0.2:8080"]),
        # Hints of what is not ready do not count.
        ([near("10.1.0.1", "a"), pod("10.1.0.2", ready=False)], "a", ["10.1.0.1:8080"]),
        ([pod("10.1.0.1"), near("10.1.0.2", "a") | {"conditions": {"ready": False}}], "a", ["10.1.0.1:8080"]),
    ],
)
def test_hints_for_zones_count_where_all_that_is_ready_has_one(
    endpoints: list[Json], zone: str, found: list[str]
) -> None:
    assert addresses(made(*endpoints), zone=zone) == found


def test_every_address_of_an_endpoint_is_used() -> None:
    assert addresses(made({"addresses": ["10.1.0.2", "10.1.0.1"]})) == ["10.1.0.1:8080", "10.1.0.2:8080"]


def test_only_ports_for_tcp_count() -> None:
    dns = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    assert ports_of({"spec": {"ports": dns}}) == {53: "dns-tcp"}
    assert addresses(made(pod("10.1.0.1"), ports=[{"name": "http", "port": 8080, "protocol": "UDP"}])) == []
    # A port without a number stands for any; kube-proxy takes none of it.
    assert addresses(made(pod("10.1.0.1"), ports=[{"name": "http", "port": None}])) == []


def test_a_service_that_stands_for_a_name_has_no_ports_of_its_own() -> None:
    spec = {"type": "ExternalName", "externalName": "shop.example.com", "ports": [{"port": 80}]}
    assert ports_of({"spec": spec}) == {}


@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [None], [1], ["x"], [[]], [{}]])
def test_whatever_stands_in_an_object_is_read_without_an_error(value: Any) -> None:
    assert ports_of({"spec": value}) == ports_of({"spec": {"ports": value}}) == {}
    assert addresses(made(ports=value)) == addresses(made(pod("10.1.0.1"), ports=value)) == []
    assert addresses(made() | {"endpoints": value}) == []
    assert addresses(made({"addresses": value})) == []
    assert addresses(made({"addresses": ["10.1.0.1"], "conditions": value, "hints": value})) == ["10.1.0.1:8080"]
    of_odd_port = addresses(made(pod("10.1.0.1"), ports=[{"name": "http", "port": value}, {"name": value, "port": 1}]))
    assert of_odd_port in ([], ["10.1.0.1:1"])
    slice_of({"metadata": value})
