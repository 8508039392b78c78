"""Sets of endpoints whose addresses an API tells: what a change leaves as it is, and what is left without one."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from upstream import ON_BOTH_LOOPS, Run, until

from canary_mw.exceptions import ConfigError, UpstreamConnectError, UpstreamTimeout
from canary_mw.rules.upstream import EndpointOptions, KubernetesService, LoadBalancing, Origin, OutlierDetection
from canary_mw.upstreams.discovery.answer import Answer
from canary_mw.upstreams.discovery.cluster_endpoints import ClusterEndpoints
from canary_mw.upstreams.discovery.service_resolver import ServiceResolver
from canary_mw.upstreams.discovery.watched_endpoints import Publish, Watch
from canary_mw.upstreams.endpoints import EndpointSet
from canary_mw.upstreams.environment import Environment
from canary_mw.upstreams.health_checks import HealthChecker

pytestmark = ON_BOTH_LOOPS

GRAY = KubernetesService("gray", "shop", 80)
ORIGIN = Origin("http", "gray.shop", 80)


class ToldCluster(ClusterEndpoints):
    """Says what the test says."""

    def __init__(self) -> None:
        super().__init__(_no_connection, "by DNS")
        self.ensured: list[KubernetesService] = []

    def ensure(self, service: KubernetesService) -> None:
        self.ensured.append(service)

    def says(self, *addresses: str, reason: str = "", known: bool = True) -> None:
        found = tuple((address, 8080) for address in addresses)
        self._publish({GRAY: Answer(found if known else None, reason)})


def _no_connection(publish: Publish[KubernetesService]) -> Watch[KubernetesService]:
    raise ConfigError("none")


class Setting:
    """A set of endpoints; names are looked up as `names` says, and pauses of the set never end by themselves."""

    def __init__(self, **options: object) -> None:
        self.cluster = ToldCluster()
        self.names: dict[str, Sequence[str]] = {}
        environment = Environment(HealthChecker(), self._resolve, 60.0, lambda: 1000.0, Random(5).random, self._sleep)
        resolver = ServiceResolver(GRAY, ORIGIN, self.cluster, self._resolve)
        self.set = EndpointSet([ORIGIN], EndpointOptions(**options), environment, resolver=resolver)  # type: ignore[arg-type]

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        if host not in self.names:
            raise OSError("unknown name")
        return self.names[host]

    async def _sleep(self, seconds: float) -> None:
        await asyncio.get_running_loop().create_future()

    async def shows(self, *addresses: str) -> None:
        await until(lambda: [each.origin.address for each in self.set.endpoints] == [*addresses])

    async def turns(self, count: int = 12) -> Counter[str | None]:
        found: Counter[str | None] = Counter()
        for _ in range(count):
            with await self.set.lease(None, math.inf, 30.0) as lease:
                found[lease.origin.endpoint] += 1
        return found

    async def owners(self, keys: int = 200) -> dict[int, str]:
        step = (1 << 64) // keys
        return {key: (await self.set.lease(key * step, math.inf, 30.0)).origin.endpoint for key in range(keys)}


def test_endpoints_are_the_addresses_and_ports_of_the_pods_under_the_name_of_the_service(run: Run) -> None:
    async def main() -> None:
        given = Setting()
        given.cluster.says("10.1.0.1", "10.1.0.2")
        assert await given.turns() == {"10.1.0.1:8080": 6, "10.1.0.2:8080": 6}
        # TLS verifies the name, not the address.
        assert {each.origin.host for each in given.set.endpoints} == {"gray.shop"}
        given.cluster.says("10.1.0.3")
        await given.shows("10.1.0.3")
        only = given.set.only_endpoint()
        assert only is not None
        assert only.endpoint == "10.1.0.3:8080"
        assert set(given.cluster.ensured) == {GRAY}
        await given.set.aclose()

    run(main)


def test_a_request_waits_for_the_first_answer(run: Run) -> None:
    async def main() -> None:
        given = Setting()
        waiting = asyncio.create_task(given.turns(1))
        await until(lambda: given.cluster._waiters)
        given.cluster.says("10.1.0.1")
        assert await waiting == {"10.1.0.1:8080": 1}
        await given.set.aclose()

    run(main)


def test_what_stays_keeps_its_ejection_and_its_requests_in_flight(run: Run) -> None:
    async def main() -> None:
        given = Setting(
            outlier_detection=OutlierDetection(consecutive_5xx=2), load_balancer=LoadBalancing("least_request")
        )
        given.cluster.says("10.1.0.1", "10.1.0.2", "10.1.0.3")
        await given.turns(1)
        first, second, third = given.set.endpoints
        for _ in range(2):
            given.set.record(first, 503)
        given.set.record(second, 503)
        assert given.set.ejections == 1
        second.in_flight = 3
        given.cluster.says("10.1.0.1", "10.1.0.2", "10.1.0.4")
        await given.shows("10.1.0.1", "10.1.0.2", "10.1.0.4")
        assert given.set.endpoints[:2] == [first, second]
        assert first.ejected_until > 1000.0
        assert second.in_flight == 3
        # One more failure in a row ejects it: the first one is not forgotten. Two of three may be.
        assert "10.1.0.1:8080" not in await given.turns()
        assert third not in given.set.endpoints
        await given.set.aclose()

    run(main)


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_a_change_moves_few_keys_between_those_that_stay(policy: str, run: Run) -> None:
    async def main() -> None:
        given = Setting(load_balancer=LoadBalancing(policy, header=b"x-user"))  # type: ignore[arg-type]
        given.cluster.says("10.1.0.1", "10.1.0.2", "10.1.0.3")
        before = await given.owners()
        given.cluster.says("10.1.0.1", "10.1.0.2")
        await given.shows("10.1.0.1", "10.1.0.2")
        after = await given.owners()
        moved = [key for key, owner in before.items() if owner != after[key] and owner != "10.1.0.3:8080"]
        assert len(moved) <= (0 if policy == "ring_hash" else 40)
        await given.set.aclose()

    run(main)


@pytest.mark.parametrize("policy", ["round_robin", "least_request", "ring_hash", "maglev"])
def test_without_any_endpoint_requests_fail_with_the_reason_until_there_is_one(policy: str, run: Run) -> None:
    async def main() -> None:
        header = b"x-user" if policy in ("ring_hash", "maglev") else None
        given = Setting(load_balancer=LoadBalancing(policy, header=header))  # type: ignore[arg-type]
        given.names = {"gray.shop": ["10.9.0.1"]}
        given.cluster.says("10.1.0.1", "10.1.0.2")
        await given.turns(1)
        given.cluster.says(reason="gray.shop: none of its 2 endpoints is ready")
        await given.shows()
        for _ in range(2):
            with pytest.raises(UpstreamConnectError, match="none of its 2 endpoints is ready"):
                await given.turns(1)
        assert given.set.lease_nowait(None) is None
        assert given.set.next_untried([]) is None
        assert given.set.only_endpoint() is None
        given.cluster.says("10.1.0.2")
        await given.shows("10.1.0.2")
        assert await given.turns(1) == {"10.1.0.2:8080": 1}
        await given.set.aclose()

    run(main)


def test_what_the_api_does_not_know_is_looked_up_by_dns(run: Run) -> None:
    async def main() -> None:
        given = Setting()
        given.cluster.says(known=False, reason="gray.shop: there is no such Service")
        with pytest.raises(
            UpstreamConnectError, match=r"there is no such Service; gray\.shop: no address: unknown name"
        ):
            await given.turns(1)
        given.names = {"gray.shop": ["10.9.0.1"]}
        given.cluster.says(known=False, reason="gray.shop: port 80 is not among its TCP ports (81)")
        await given.shows("10.9.0.1")
        assert await given.turns(1) == {"10.9.0.1:80": 1}
        given.cluster.says("10.1.0.1")
        await given.shows("10.1.0.1")
        assert await given.turns(1) == {"10.1.0.1:8080": 1}
        # What the API had named does not stay, when the Service is gone and its name too.
        given.names = {}
        given.cluster.says(known=False, reason="gray.shop: there is no such Service")
        await given.shows()
        with pytest.raises(UpstreamConnectError, match="there is no such Service"):
            await given.turns(1)
        await given.set.aclose()

    run(main)


def test_a_request_whose_deadline_passes_meanwhile_is_told_so(run: Run) -> None:
    async def main() -> None:
        given = Setting()
        deadline = asyncio.get_running_loop().time() + 0.01
        with pytest.raises(UpstreamTimeout, match="the API has not answered yet: the deadline passed"):
            await given.set.lease(None, deadline, 30.0)
        await given.set.aclose()

    run(main)
