"""What is told of the addresses of services."""

from collections.abc import Sequence
from time import monotonic

from canary_mw.client.held import Held
from canary_mw.rules.upstream import EndpointOptions, HealthCheck, Origin, OutlierDetection
from canary_mw.upstreams.endpoints import EndpointSet
from canary_mw.upstreams.environment import Environment
from canary_mw.upstreams.health import EndpointStatus
from canary_mw.upstreams.loop_states import statuses_of


async def healthy(origin: Origin, check: HealthCheck) -> int:
    return 200


def endpoints(*hosts: str, options: EndpointOptions = EndpointOptions()) -> EndpointSet:  # noqa: B008 - immutable
    return EndpointSet([Origin("http", host, 80) for host in hosts], options, Environment(healthy))


def statuses(found: EndpointSet) -> Sequence[EndpointStatus]:
    held = {Origin("http", "10.0.0.2", 80): Held(3, 1)}
    return list(statuses_of({"shop": (None, found), ("cart", None, None): (None, endpoints("10.0.0.9"))}, held))


def test_addresses_that_get_requests_are_healthy() -> None:
    shown = statuses(endpoints("10.0.0.1", "10.0.0.2"))
    assert [(each.service, each.address, each.state) for each in shown] == [
        ("shop", "10.0.0.1:80", "healthy"),
        ("shop", "10.0.0.2:80", "healthy"),
        ("cart", "10.0.0.9:80", "healthy"),
    ]
    assert [each.held for each in shown] == [None, (3, 1), None]


def test_an_ejected_address_tells_when_it_is_back() -> None:
    found = endpoints("10.0.0.1", "10.0.0.2", options=EndpointOptions(outlier_detection=OutlierDetection()))
    found.endpoints[0].eject(monotonic(), OutlierDetection())
    first, second, _ = statuses(found)
    assert (first.state, second.state) == ("ejected", "healthy")
    assert first.back_in is not None
    assert 0 < first.back_in <= OutlierDetection().base_ejection_time


def test_an_address_that_does_not_pass_its_health_check_is_unhealthy() -> None:
    found = endpoints("10.0.0.1", options=EndpointOptions(health_checks=(HealthCheck(path=b"/"),)))
    found._update_endpoints()
    found.endpoints[0].health_states[0].healthy = False
    assert statuses(found)[0].state == "unhealthy"


def test_a_name_without_addresses_is_told() -> None:
    shown = statuses(endpoints("shop.example"))
    assert (shown[0].address, shown[0].state) == ("", "unresolved")
