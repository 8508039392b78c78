"""What every answer says: of when and of whom it is, and which rules are in force."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime

from canary_mw import __version__
from canary_mw.admin.answers.problems import findings_of
from canary_mw.admin.models.common import Answer, Frame, InForce, ListingAnswer, Scope
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures, Worker

# Seconds without a heartbeat after which a worker is called silent; one is due every 5 seconds.
SILENT_AFTER = 15.0


def iso(seconds: float) -> str:
    """A time in ISO 8601, UTC, with milliseconds."""
    return datetime.fromtimestamp(round(seconds, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_time(seconds: float) -> str:
    """The time of day in UTC, as sentences have it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M")


def iso_or_none(seconds: float) -> str | None:
    """The same; None for 0, which stands for never."""
    return iso(seconds) if seconds else None


def workers_of(subject: Subject, figures: Figures) -> Sequence[Worker]:
    """The workers that run; without figures of several it is this process."""
    if figures.workers:
        return figures.workers
    store, now = subject.store, subject.clock()
    return [Worker(os.getpid(), subject.started, now, store.generation, store.since, "", store.error is None)]


def newest_content(workers: Sequence[Worker]) -> str:
    """The content of the rules that came into force last, in any worker."""
    return max(workers, key=lambda each: each.since).content


def is_silent(worker: Worker, now: float) -> bool:
    """Whether a worker has not reported for a while."""
    return now - worker.heartbeat > SILENT_AFTER


def frame(subject: Subject, figures: Figures) -> Frame:
    """What every answer begins with."""
    return {"now": iso(subject.clock()), "version": __version__, "scope": _scope(subject, figures)}


def answer_frame(subject: Subject, figures: Figures) -> Answer:
    """The frame of an answer that lists no rules."""
    return {**frame(subject, figures), "rules": in_force(subject, figures)}


def listing_frame(subject: Subject, figures: Figures) -> ListingAnswer:
    """The frame of an answer whose `rules` are a list."""
    return {**frame(subject, figures), "in_force": in_force(subject, figures)}


def in_force(subject: Subject, figures: Figures) -> InForce:
    """The rules in force."""
    store, workers = subject.store, workers_of(subject, figures)
    newest = newest_content(workers)
    live = [each for each in workers if each.content == newest and each.generation > 0]
    return {
        # Each worker counts its own tables, and any of them may answer: all say the same.
        "generation": max((each.generation for each in live), default=store.generation),
        "since": iso_or_none(max((each.since for each in live), default=store.since)),
        "workers_on_it": len(live),
        "problems": sum(each["severity"] != "notice" for each in findings_of(store).problems),
        "error": None if store.error is None else str(store.error),
    }


def _scope(subject: Subject, figures: Figures) -> Scope:
    workers, now = workers_of(subject, figures), subject.clock()
    newest = newest_content(workers)
    silent = [each.pid for each in workers if is_silent(each, now)]
    return {
        "pod": subject.pod,
        "workers": len(workers),
        "reporting": len(workers) - len(silent),
        "complete": not silent and not figures.skipped,
        "shared": figures.shared,
        "silent": silent,
        "behind": [each.pid for each in workers if each.content != newest],
    }
