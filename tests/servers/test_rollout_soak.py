"""A release over three pods for long: users, an API server that comes and goes, pods that die, people who command.

No request fails, and no pod ever gives more of gray than the state in the cluster says. CANARY_MW_SOAK is in seconds.
"""

import asyncio
import os
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from random import Random
from time import monotonic

import pytest
from pod_load import Balancer, Users, exceeding
from pods import Cluster, Kind, Pod, cluster
from servers import run
from staged import DEADLINE, rules

SECONDS = float(os.environ.get("CANARY_MW_SOAK", "45"))
# One after the other, for as long in sum.
KINDS: list[Kind] = ["proxy"] if SECONDS < 300 else ["proxy", "app"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 180)]

NAME = "long"
STEPS = [step for percent in (5, 10, 25, 50, 75) for step in ({"setWeight": percent}, {"pause": {"duration": "1s"}})]
# So wide that some hundred requests are enough.
ANALYSIS = {"margin": "20%", "minimum_keys": 5, "metrics": [{"name": "error_rate"}]}
_PROBE, _VISIT = 0.02, 0.04


class Soak:
    """What happens to a cluster.

    Attributes:
        weights: since when pods may give how much: raised with the state, lowered as soon as all pods know.
        happened: what was done, each with its name.
    """

    def __init__(self, found: Cluster) -> None:
        self.cluster, self.balancer = found, Balancer()
        self.users = Users(self.balancer, NAME, found.port)
        self.weights = [(0.0, 0.0)]
        self.happened: list[str] = []
        self._random = Random(1)
        self._over = asyncio.Event()
        self._api_is_up, self._pods_stay = asyncio.Lock(), asyncio.Lock()
        self._read = 0

    def weight(self) -> float:
        """The most that a pod may give now."""
        writes = self.cluster.api.writes(NAME)
        for each in writes[self._read :]:
            if each.state.weight > self.weights[-1][1]:
                self.weights.append((each.at, each.state.weight))
        self._read = len(writes)
        return self.weights[-1][1]

    async def last(self, seconds: float) -> None:
        """Let everything happen at once."""
        self.balancer.ready += self.cluster.pods
        users = [self.users.visit(_VISIT), self.users.visit(_VISIT), self.users.probe(self.weight, _PROBE)]
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(each) for each in users]
            done = [group.create_task(each) for each in (self._harm_api(), self._harm_pods(), self._command())]
            await asyncio.sleep(seconds)
            self._over.set()
            await asyncio.gather(*done)
            self.users.over = True
            await asyncio.gather(*asked)
        self.weight()

    async def _passed(self, seconds: float) -> bool:
        """Wait, or until it is over; whether it is not."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return not self._over.is_set()

    async def _harm_api(self) -> None:
        api = self.cluster.api
        for harm in cycle(("killed", "frozen", "compacted")):
            if not await self._passed(self._random.uniform(2, 5)):
                return
            async with self._api_is_up:
                if harm == "killed":
                    api.kill()
                    await self._passed(self._random.uniform(0, 3))
                    await asyncio.to_thread(api.start)
                elif harm == "frozen":
                    api.freeze()
                    await self._passed(self._random.uniform(0, 2))
                    api.thaw()
                else:
                    await asyncio.to_thread(api.compact)
            self.happened.append(f"the API was {harm}")

    async def _harm_pods(self) -> None:
        for harm in cycle(("follower", "leader", "follower", "frozen")):
            if not await self._passed(self._random.uniform(4, 7)):
                return
            async with self._pods_stay:
                pod = self._one(leads=harm == "leader")
                if harm == "frozen":
                    pod.freeze()
                    await self._passed(self._random.uniform(0, 2))
                    pod.thaw()
                else:
                    await self._replace(pod)
            self.happened.append(f"pod: {harm}")

    def _one(self, *, leads: bool) -> Pod:
        """A pod that leads, or one that does not, if there is one."""
        leader = self.cluster.api.leader
        found = [each for each in self.cluster.pods if (each.name == leader) is leads]
        return self._random.choice(found or self.cluster.pods)

    async def _replace(self, pod: Pod) -> None:
        """Kill a pod without a word, but for requests that it has; another one takes its name."""
        await self.balancer.remove(pod)
        pod.kill()
        await self._passed(self._random.uniform(0, 1))
        if self._random.random() < 0.5:
            pod.empty()
        pod.start()
        async with self._api_is_up:
            await asyncio.to_thread(self.cluster.publish)
        await asyncio.to_thread(pod.wait_until_ready)
        self.balancer.ready.append(pod)

    async def _command(self) -> None:
        """Lower it now and then, and go on when all pods know."""
        for number in cycle(range(3)):
            if not await self._passed(self._random.uniform(5, 8)):
                return
            state = self.cluster.api.state(NAME)
            assert state.phase != "RolledBack", state.reason
            async with self._pods_stay:
                if state.phase == "Completed" or number == 2:
                    await self._lower("abort", 0, "Aborted")
                    await self._give("retry")
                elif state.weight > 10:
                    await self._lower("set-weight?weight=10", 10, "Paused")
                    await self._give("resume")

    async def _lower(self, command: str, weight: float, phase: str) -> None:
        await self._give(command)
        for pod in self.cluster.pods:
            while (await asyncio.to_thread(pod.rollout, NAME))["phase"] != phase:  # noqa: ASYNC110 - a pod does not tell
                await asyncio.sleep(0.02)
        self.weight()
        self.weights.append((monotonic(), weight))
        self.happened.append(f"command: {command}")

    async def _give(self, command: str) -> None:
        """Give a command until it is done: the store may be away, and an answer may be lost."""
        end = monotonic() + DEADLINE
        while (status := await self._answer(command)) not in (200, 409):
            assert monotonic() < end, (command, status)
            await asyncio.sleep(0.1)

    async def _answer(self, command: str) -> int:
        try:
            return await asyncio.to_thread(self._random.choice(self.balancer.ready).give, NAME, command)
        except OSError:
            return 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_fails_and_no_pod_gives_more_than_the_state_says(tmp_path: Path, kind: Kind) -> None:
    with cluster(tmp_path, kind=kind) as found:
        text = rules(NAME, steps=[*STEPS, {"setWeight": 100}], analysis=ANALYSIS).replace("600s", "1s")
        found.prepare(text, phases={NAME: "Progressing"})
        found.start(3)
        soak = Soak(found)
        run(soak.last(SECONDS / len(KINDS)), SECONDS + 150)
        seen, api = soak.users.seen, found.api
        print(len(seen), soak.happened, [(each.state.phase, each.state.weight) for each in api.writes(NAME)])
        assert soak.users.failed == []
        assert exceeding(seen, soak.weights) == []
        assert {each.pod for each in seen if each.gray} == {each.name for each in found.pods}
        numbers = [each.number for each in api.writes(NAME)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        done = {each.partition(":")[0] for each in soak.happened}
        assert done == {"the API was killed", "the API was frozen", "the API was compacted", "pod", "command"}
        assert max(weight for _, weight in soak.weights) > 25
        assert not any("Traceback" in each.output for each in found.pods)
