"""The attempts of releases, with their numbers and thresholds: one file for all workers, changed under the lock.

An attempt of a release begins where what is released changes, or where gray rises from 0. Each worker notices it when
it reads the rules, and whoever is first gives it its number. The attempts of a release with steps are those of its
state: there it begins with the number that the state has, and an older one is dropped.
"""

import json
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Dict
from contextlib import suppress
from typing import Any, NamedTuple

from canary_mw.observability.figures.files import folder_lock, read_text, write_text_file
from canary_mw.rollout.statistics import nearest_rank
from canary_mw.rules.epoch import Epoch
from canary_mw.rules.release import STABLE

NAME = "figures.attempts.2"
MIN_TIMES = 2000
# Releases that are remembered: those that began last.
_MAX_RELEASES = 256
_PATIENCE = 0.5


class Attempt(NamedTuple):
    """An attempt of a release.

    Attributes:
        subject: of its epochs.
        on: whether gray had a weight when it was looked at last.
        since: when it began, in seconds since 1970.
        limits: seconds beyond which an answer is slow, by the name of the measure, where they were found.
        stored: number of the attempt in the state of the release, 0 where it has none.
    """

    number: int
    subject: str
    on: bool
    since: float
    limits: Dict[str, float] = {}
    stored: int = 0

    @property
    def shown(self) -> int:
        """The number that people know."""
        return self.stored or self.number


Attempts = dict[str, Attempt]


def next_attempts(known: Attempts, epochs: Dict[str, Epoch], now: float) -> Attempts:
    """The attempts once rules with these epochs are in force; what they do not name stays."""
    found = dict(known)
    for name, epoch in epochs.items():
        before, on = found.get(name), is_on(epoch)
        if before is None:
            found[name] = Attempt(1, epoch.subject, on, now, stored=epoch.attempt)
        elif _begins(before, epoch, on=on):
            found[name] = Attempt(before.number + 1, epoch.subject, on, now, stored=epoch.attempt)
        elif before.on != on and before.stored == epoch.attempt:
            found[name] = before._replace(on=on)
    newest = sorted(found, key=lambda name: (name in epochs, found[name].since))[-_MAX_RELEASES:]
    return {name: found[name] for name in newest}


def _begins(before: Attempt, epoch: Epoch, *, on: bool) -> bool:
    if epoch.attempt and before.stored:
        return epoch.attempt > before.stored
    if before.stored and not on:
        # A worker that starts has read its rules, and not the state yet.
        return False
    return epoch.attempt != before.stored or before.subject != epoch.subject or (on and not before.on)


def is_on(epoch: Epoch) -> bool:
    """Whether gray has a weight."""
    weights: dict[str, float] = json.loads(epoch.weights)
    return any(percent > 0 for name, percent in weights.items() if name != STABLE)


def settled(known: Attempts, name: str, stored: int, limits: Dict[str, float]) -> Attempts:
    """The attempts with thresholds of one, where its state has this number."""
    attempt = known.get(name)
    if attempt is None or attempt.stored != stored:
        return known
    return {**known, name: attempt._replace(limits={**attempt.limits, **limits})}


def limit_of(seconds: Sequence[float], quantile: float) -> float | None:
    """The threshold by nearest rank; none of too few answers."""
    return nearest_rank(seconds, quantile) if len(seconds) >= MIN_TIMES else None


def change(folder: int, step: Callable[[Attempts], Attempts]) -> Attempts:
    """Change the attempts of all workers; returns them as they are now.

    Args:
        folder: the descriptor of the run folder.
        step: gives the attempts that follow.

    Raises:
        OSError: they cannot be written.
    """
    with folder_lock(folder, exclusive=True, patience=_PATIENCE) as locked:
        known = read(folder)
        found = step(known)
        if found != known and locked:
            text = json.dumps({name: list(each) for name, each in found.items()})
            write_text_file(folder, NAME, text.encode())
    return found


def read(folder: int) -> Attempts:
    """The attempts of all workers."""
    with suppress(OSError, ValueError, TypeError):
        found: dict[str, list[Any]] = json.loads(read_text(folder, NAME) or b"{}")
        return {name: _attempt(*values) for name, values in found.items()}
    return {}


def _attempt(number: int, subject: str, on: Any, since: float, limits: dict[str, float], stored: int) -> Attempt:
    return Attempt(number, subject, bool(on), since, limits, stored)
