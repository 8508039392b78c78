"""The thread that drives releases: one at a time, and none after the end."""

from collections.abc import Collection
from collections.abc import Mapping as Dict
from pathlib import Path

from admin_client import GOOD, Changing

from canary_mw.control.rollouts.inputs import Given
from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.rollouts.settings import surroundings
from canary_mw.control.store import RuleStore
from canary_mw.forking import SystemThread, running_threads
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import GrayRelease


class NoEvidence:
    """Where nothing is counted."""

    def of(self, document: GrayRelease, state: ReleaseState) -> ReleaseEvidence | None:
        return None

    def tick(self, rules: RuleStore) -> None:
        pass

    def thresholds(self, document: GrayRelease, state: ReleaseState) -> Dict[str, float]:
        return {}

    def settle(self, state: ReleaseState) -> None:
        pass

    def give(self, names: Collection[str], cursor: str) -> Given:
        return Given("", None)

    def take(self, data: bytes) -> bool:
        return False

    def newest_attempt(self, name: str) -> int:
        return 0

    def exported(self, name: str, attempt: int) -> bytes:
        return b""

    def restore(self, data: bytes) -> bool:
        return True


STEPS = GOOD.replace("gray: {gray: 20}", "gray: [gray]\nsteps: [{setWeight: 20}, {pause: {}}]")


def driving(before: list[SystemThread]) -> list[SystemThread]:
    return [each for each in running_threads() if each not in before]


def test_a_release_is_driven_by_one_thread_until_the_end(tmp_path: Path) -> None:
    source = Changing(STEPS)
    store = RuleStore(source)
    store.reload()
    before = running_threads()
    rollouts = Rollouts(store, str(tmp_path / "state"), lambda: None, NoEvidence, surroundings({}))
    # What is put in force with it is a table, too.
    rollouts.start()
    assert len(driving(before)) == 1
    rollouts.stop()
    assert driving(before) == []
    source.change(STEPS.replace("setWeight: 20", "setWeight: 30"))
    store.reload()
    assert driving(before) == [], "a table that comes late begins nothing"
    rollouts.start()
    assert len(driving(before)) == 1
    rollouts.stop()
    assert driving(before) == []
