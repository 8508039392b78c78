"""API: what the pods of a release ask of the API server of their cluster, at rest and during a release."""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compare import Options
from .processes import ROOT, Failed
from .report import Section

if TYPE_CHECKING:
    from cluster_api import Asked
    from pods import Cluster

PODS, MANY = 3, 100
SECONDS = 120
LIMIT_FOLLOWER, LIMIT_LEADER = 40, 90
TITLE = f"calls of {PODS} pods at the API server of their cluster, and what {MANY} pods would be"
NOTES = f"""\
{PODS} pods of `canary-mw serve --state k8s://`, one release, {SECONDS} s each. At rest the release is completed; during
a release it takes a step of 10 s after the other, judged by the evidence of all pods, under some requests a second.
Calls are counted by the API server of the tests, each watch when it is opened. Each pod keeps two watches open, of the
object of the release and of the EndpointSlices of the pods; each further release is one more. {MANY} pods are one
leader, and {MANY - 1} times a follower. A change of the object is sent to each pod: its size times the pods."""
_ANALYSIS = {"margin": "20%", "minimum_keys": 5, "metrics": [{"name": "error_rate"}]}
_STEPS = [step for percent in range(5, 95, 5) for step in ({"setWeight": percent}, {"pause": {"duration": "10s"}})]


def run(_: Options, folder: Path) -> Section:
    """Measure."""
    sys.path.append(str(ROOT / "tests" / "support"))
    section = Section("API", TITLE, [NOTES])
    section.table = [("release", "pod", "get", "watch", "list", "update", "calls a minute")]
    rest = _measured(section, folder / "rest", "at rest", "Completed")
    busy = _measured(section, folder / "busy", "during a release", "Progressing")
    for when, (leader, followers, _) in (("at rest", rest), ("during a release", busy)):
        section.at_most(f"calls of the leader {when}", [leader], LIMIT_LEADER, "a minute")
        section.at_most(f"calls of a follower {when}", followers, LIMIT_FOLLOWER, "a minute")
        many = (leader + (MANY - 1) * sum(followers) / len(followers)) / 60
        section.figure(f"calls of {MANY} pods {when}", [many], "a second")
    section.figure(f"writes of {MANY} pods during a release", [busy[2]["writes"]], "a second", 2)
    section.figure(f"bytes to {MANY} pods by changes of the object during a release", [busy[2]["sent"] * MANY], "KiB/s")
    return section


def _measured(section: Section, folder: Path, when: str, phase: Any) -> tuple[float, list[float], dict[str, float]]:
    """Calls a minute of the leader and of each follower; writes a second, and KiB of the objects written a second."""
    from pods import cluster
    from staged import rules

    folder.mkdir()
    with cluster(folder) as found:
        text = rules("judged", steps=[*_STEPS, {"setWeight": 100}], analysis=_ANALYSIS)
        found.prepare(text, phases={"judged": phase})
        found.start(PODS)
        leader = found.leader.name
        # What a pod does once at its start is no rate.
        time.sleep(5)
        found.api.asked()
        begun = found.api.state("judged").step
        sizes = _used(found, SECONDS, requests=phase == "Progressing")
        asked = found.api.asked()
        if phase == "Progressing" and found.api.state("judged").step < begun + 3:
            raise Failed(f"the release does not go on: {found.leader.rollout('judged')['next']}")
    calls = {each.name: _calls(asked, each.name) for each in found.pods}
    for name, counted in calls.items():
        row = [f"{counted[verb] * 60 / SECONDS:.1f}" for verb in ("get", "watch", "list", "update")]
        role = "leader" if name == leader else "follower"
        section.table.append((when, role, *row, f"{counted.total() * 60 / SECONDS:.1f}"))
    rates = {name: counted.total() * 60 / SECONDS for name, counted in calls.items()}
    writes = sum(counted["update"] for counted in calls.values()) / SECONDS
    followers = [rate for name, rate in rates.items() if name != leader]
    return rates[leader], followers, {"writes": writes, "sent": sum(sizes) / 1024 / SECONDS}


def _calls(asked: "list[Asked]", pod: str) -> Counter[str]:
    return Counter(each.verb for each in asked if each.pod == pod)


def _used(found: "Cluster", seconds: float, *, requests: bool) -> list[int]:
    """Let pods be used for a time; returns the size of each version of the object that was written."""
    sizes: list[int] = []
    last = found.api.config_map("judged")
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        if requests:
            number += 1
            for pod in found.pods:
                pod.ask("judged", *(f"user-{number % 400}-{key}" for key in range(3)))
        time.sleep(0.25)
        item = found.api.config_map("judged")
        if item != last:
            last = item
            sizes.append(len(json.dumps(item)))
    return sizes
