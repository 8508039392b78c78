"""A release with steps, and one without, as rules; a clock that stands still, and evidence as a test says it."""

from collections.abc import Collection
from collections.abc import Mapping as Dict

from canary_mw.control.rollouts.inputs import Given
from canary_mw.control.store import RuleStore
from canary_mw.rollout.evidence import ReleaseEvidence
from canary_mw.rollout.state import ReleaseState
from canary_mw.rules.release import GrayRelease

RULES = """
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: svc}
spec: {hostname: '*', prefix: /, service: stable}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: svc-gray}
spec: {hostname: '*', prefix: /, service: gray, weight: 0}
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: svc-r
salt: s
revision: "1"
stable: svc
gray: [svc-gray]
sticky: [{header: x-user}]
steps:
- setWeight: 5
- pause: {duration: 30s}
- setWeight: 50
- pause: {duration: 30s}
- setWeight: 100
bake: {duration: 30s}
"""
MANUAL = RULES[: RULES.index("steps:")].replace("gray: [svc-gray]", "gray: {svc-gray: 20}")


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Evidence:
    """Evidence as a test says it."""

    def __init__(self) -> None:
        self.found: ReleaseEvidence | None = None
        self.restored: list[bytes] = []
        self.limits: dict[str, float] = {}
        self.settled: list[Dict[str, float]] = []
        self.looks = 0

    def of(self, document: GrayRelease, state: ReleaseState) -> ReleaseEvidence | None:
        self.looks += 1
        return self.found

    def tick(self, rules: RuleStore) -> None:
        pass

    def thresholds(self, document: GrayRelease, state: ReleaseState) -> Dict[str, float]:
        return {name: limit for name, limit in self.limits.items() if name not in state.limits}

    def settle(self, state: ReleaseState) -> None:
        self.settled.append(state.limits)

    def give(self, names: Collection[str], cursor: str) -> Given:
        return Given("cursor", None if cursor == "cursor" else b"evidence")

    def take(self, data: bytes) -> bool:
        return False

    def newest_attempt(self, name: str) -> int:
        return 0

    def exported(self, name: str, attempt: int) -> bytes:
        return b"evidence of %d" % attempt

    def restore(self, data: bytes) -> bool:
        self.restored.append(data)
        return True
