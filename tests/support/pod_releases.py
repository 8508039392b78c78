"""Releases over three pods, for tests of what may happen to pods."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pods import Cluster, Kind, Pod, cluster
from staged import LONG, rules

JUDGED = rules("judged", steps=[{"setWeight": 50}, LONG, {"setWeight": 100}], analysis={})


def by_time(*percents: int, seconds: int) -> list[Any]:
    """Steps with a pause after each but the last one."""
    pause = {"pause": {"duration": f"{seconds}s"}}
    return [step for percent in percents for step in ({"setWeight": percent}, pause)][:-1]


@contextmanager
def judged(folder: Path, kind: Kind = "proxy", *, workers: int = 1) -> Iterator[Cluster]:
    """Three pods, and a release that is at 50 percent in all of them; somebody leads."""
    with cluster(folder, kind=kind, workers=workers) as found:
        found.prepare(JUDGED, phases={"judged": "Progressing"})
        found.start(3)
        assert all(each.share("judged") > 30 for each in found.pods)
        assert found.leader
        yield found


def keys(count: int, *, begin: int = 0) -> list[str]:
    return [f"user-{number}" for number in range(begin, begin + count)]


def is_off(pod: Pod, release: str) -> bool:
    """Whether nobody of some users, who may fail, gets gray from a pod."""
    return "gray" not in pod.ask(release, *keys(60))


def use(pods: Sequence[Pod]) -> bool:
    """Some requests at all pods, none of which fails."""
    for pod in pods:
        pod.ask("judged", *keys(100))
    return True
