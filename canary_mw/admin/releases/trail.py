"""How the evidence about releases grew: what was seen of it at each look, thinned so that a whole attempt fits."""

from math import inf
from typing import NamedTuple

from canary_mw.admin.models.rollout import Phase, Rollout, RolloutMetric
from canary_mw.locks import new_lock

# Looks that are kept of an attempt, and the seconds between two of them at first. A trail that is full drops every
# second look, and takes half as many from then on.
MOST = 240
_PAUSE = 1.0
# No evidence comes any more.
_ENDS: tuple[Phase, ...] = ("Completed", "RolledBack", "Aborted")


class Metric(NamedTuple):
    """What is looked at."""

    variant: str
    title: str


class Look(NamedTuple):
    """The evidence of a moment.

    Attributes:
        time: in seconds since 1970.
        ln_e: logarithm of the evidence that gray is worse, and `ln_needed` where the release is rolled back.
    """

    time: float
    ln_e: float
    ln_needed: float


class Trail:
    """The looks at one attempt of a release."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._ended = False
        self._looks: list[dict[Metric, Look]] = []
        self._last, self._pause = -inf, _PAUSE

    def note(self, metrics: list[RolloutMetric], now: float, ended: bool = False) -> None:
        """Keep a look, unless the last one was a moment ago; of one that has ended the first one."""
        if self._ended or (ended and not self._looks) or (not ended and now - self._last < self._pause):
            return
        self._ended = ended
        known = ((_metric(each), each["ln_e"], each["ln_needed"]) for each in metrics)
        found = {of: Look(now, ln_e, needed) for of, ln_e, needed in known if ln_e is not None and needed is not None}
        if found:
            self._looks.append(found)
            self._last = now
        if len(self._looks) > MOST:
            self._looks, self._pause = self._looks[::2], 2 * self._pause

    def shown(self) -> dict[Metric, list[Look]]:
        """The looks at each metric, the oldest first."""
        metrics = dict.fromkeys(metric for found in self._looks for metric in found)
        return {metric: [found[metric] for found in self._looks if metric in found] for metric in metrics}


def _metric(shown: RolloutMetric) -> Metric:
    return Metric(shown["variant"], shown["title"])


class Trails:
    """The trails of all releases, of the newest attempt of each; any thread may look."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._trails: dict[str, Trail] = {}

    def look(self, release: str, rollout: Rollout, now: float) -> dict[Metric, list[Look]]:
        """All looks at a release, this one included."""
        with self._lock:
            trail = self._trails.get(release)
            if trail is None or trail.attempt != rollout["attempt"]:
                trail = self._trails[release] = Trail(rollout["attempt"])
            trail.note(rollout["metrics"], now, rollout["phase"] in _ENDS)
            return trail.shown()

    def keep(self, names: set[str]) -> None:
        """Forget releases that are no more."""
        with self._lock:
            self._trails = {name: each for name, each in self._trails.items() if name in names}
