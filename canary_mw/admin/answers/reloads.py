"""The answer about changes of the rules."""

import os
from collections.abc import Collection, Iterable, Sequence

from canary_mw.admin.answers.effects import effect_of
from canary_mw.admin.answers.frame import answer_frame, clock_time, iso, workers_of
from canary_mw.admin.models.operations import Reload, ReloadsAnswer
from canary_mw.admin.releases.views import views_of
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures, ReloadRecord

MOST = 50


def reloads_answer(subject: Subject, figures: Figures) -> ReloadsAnswer:
    """The last changes, newest first. Workers read the rules each by itself: what they read is told by its content."""
    pids = {each.pid for each in workers_of(subject, figures)}
    joined = _joined(figures.reloads)
    newest = max(joined, key=_first_time, default=[])
    frame = answer_frame(subject, figures)
    shown = sorted(joined, key=_first_time, reverse=True)[:MOST]
    views = views_of(subject)
    changed = [_first_time(each) for each in joined if _is_change(each[0])]
    effects = [effect_of(figures, views, each[0], changed) if _is_change(each[0]) else None for each in shown]
    return {
        **frame,
        "finding": _finding(frame["rules"]["generation"], newest, pids),
        "summary": _summary(subject, newest, pids),
        "reloads": [_reload(subject, each, pids, effect) for each, effect in zip(shown, effects, strict=True)],
    }


def _joined(records: Iterable[ReloadRecord]) -> list[list[ReloadRecord]]:
    """Records of one change: of the same content and error, each worker once. A content may come back later."""
    found: list[list[ReloadRecord]] = []
    last: dict[tuple[str, str], list[ReloadRecord]] = {}
    for record in sorted(records, key=lambda each: each.time):
        key = record.content, record.error
        known = last.get(key)
        if known is None or any(each.pid == record.pid for each in known):
            known = last[key] = []
            found.append(known)
        known.append(record)
    return found


def _first_time(records: Sequence[ReloadRecord]) -> float:
    return records[0].time


def _is_change(record: ReloadRecord) -> bool:
    """Whether something else is in force since then."""
    return any(record.counts) or bool(record.lines)


def _reload(subject: Subject, records: Sequence[ReloadRecord], pids: Collection[int], effect: str | None) -> Reload:
    first, live = records[0], _live(records, pids)
    mine = next((each for each in records if each.pid == os.getpid()), None)
    added, removed, changed = first.counts
    return {
        "generation": max(each.generation for each in records),
        "read_at": iso(first.time),
        "live_at": iso(max(each.time for each in records)) if len(live) == len(pids) else None,
        "live_on": len(live),
        "workers": len(pids),
        "rules": first.mappings,
        "added": added,
        "changed": changed,
        "removed": removed,
        "title": _title(first, max(each.generation for each in records)),
        "text": _text(first),
        "lines": list(first.lines),
        "diff": list(subject.differences(mine.generation)) if mine else [],
        "error": first.error or None,
        "effect": effect,
    }


def _live(records: Iterable[ReloadRecord], pids: Collection[int]) -> set[int]:
    """The workers that have read a change, of those that run."""
    return {each.pid for each in records} & set(pids)


def _title(record: ReloadRecord, generation: int) -> str:
    if not record.error:
        return f"Rules {generation}"
    if any(record.counts):
        return f"Rules {generation}: a part of the change was refused"
    return f"Rules {generation} stay: a change was refused"


def _text(record: ReloadRecord) -> str:
    """What changed, in words."""
    if record.error:
        return record.error
    added, removed, changed = record.counts
    if not any(record.counts) and record.lines:
        return record.lines[0] if len(record.lines) == 1 else f"{len(record.lines)} changes besides those of rules."
    parts = [(added, "added"), (removed, "removed"), (changed, "changed")]
    words = [f"{count} {'rule' if count == 1 else 'rules'} {verb}" for count, verb in parts if count]
    return f"{', '.join(words)}; {record.mappings} in all." if words else "No rule changed, only what is around them."


def _finding(generation: int, newest: Sequence[ReloadRecord], pids: Collection[int]) -> str:
    if not generation:
        return "No rules are in force."
    if newest and len(_live(newest, pids)) < len(pids):
        return f"Rules {generation} are live on {len(_live(newest, pids))} of {len(pids)} workers."
    return f"Rules {generation} are live everywhere."


def _summary(subject: Subject, newest: Sequence[ReloadRecord], pids: Collection[int]) -> str:
    source = f"Read from {subject.store.source_name}."
    if not newest:
        return source
    times = [each.time for each in newest]
    took = round((max(times) - min(times)) * 1000)
    spread = f"; from the first worker to the last {took} ms" if len(times) > 1 else ""
    live = len(_live(newest, pids))
    return f"On {live} of {len(pids)} workers since {clock_time(max(times))}{spread}. {source}"
