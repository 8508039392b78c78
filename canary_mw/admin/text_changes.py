"""What changed in the texts of the rules, line by line."""

from collections import deque
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Literal, NamedTuple
from weakref import ref

from canary_mw.admin.answers.problems import without_secret
from canary_mw.admin.models.operations import DiffLine, FileDiff
from canary_mw.control.store import RuleStore
from canary_mw.observability.events import Reloaded
from canary_mw.observability.observers import Observer

_MOST_RELOADS = 50
# Characters of changed texts that are kept of one reload, and lines that are compared and shown.
_MOST_CHARACTERS = 262_144
_MOST_COMPARED = 2_000
_MOST_LINES = 60
_AROUND = 1


class _Change(NamedTuple):
    """The texts of the files that a reload changed; None where they are too long to keep."""

    generation: int
    texts: tuple[tuple[str, str, str], ...] | None


class TextChanges(Observer):
    """Keeps the texts that the last reloads changed; they are compared where somebody asks."""

    def __init__(self, store: RuleStore) -> None:
        # The store keeps its observers.
        self._store = ref(store)
        self._texts = _texts(store)
        self._changes: deque[_Change] = deque(maxlen=_MOST_RELOADS)

    def reloaded(self, record: Reloaded) -> None:
        """Keep what differs from the texts before."""
        before, after = self._texts, _texts(self._store())
        self._texts = after
        names = [*after, *(name for name in before if name not in after)]
        texts = [(name, before.get(name, ""), after.get(name, "")) for name in names]
        changed = [each for each in texts if each[1] != each[2]]
        long = sum(len(old) + len(new) for _, old, new in changed) > _MOST_CHARACTERS
        if changed and before:
            self._changes.append(_Change(record.generation, None if long else tuple(changed)))

    def differences(self, generation: int) -> Sequence[FileDiff]:
        """What the last reload changed after which a table was in force; empty where that is not known."""
        for change in reversed(self._changes):
            if change.generation == generation and change.texts is not None:
                return [{"file": name, "lines": [*_diff(old, new)][:_MOST_LINES]} for name, old, new in change.texts]
        return []


def _texts(store: RuleStore | None) -> dict[str, str]:
    files = store.rules.files if store is not None and store.rules else {}
    return {name: file.document.text for name, file in files.items()}


def _diff(old: str, new: str) -> Iterator[DiffLine]:
    """The lines that changed, with a line around them."""
    before, after = old.splitlines(), new.splitlines()
    start = _same_at_start(before, after)
    end = _same_at_start(before[start:][::-1], after[start:][::-1])
    first, behind = max(start - _AROUND, 0), max(end - _AROUND, 0)
    before, after = before[first : len(before) - behind], after[first : len(after) - behind]
    if max(len(before), len(after)) > _MOST_COMPARED:
        return
    for group in SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(_AROUND):
        for tag, low, high, start_new, end_new in group:
            if tag != "equal":
                yield from _lines("-", before[low:high], first + low)
            yield from _lines(" " if tag == "equal" else "+", after[start_new:end_new], first + start_new)


def _same_at_start(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _lines(sign: Literal["-", "+", " "], texts: Sequence[str], start: int) -> Iterator[DiffLine]:
    for number, text in enumerate(texts, start + 1):
        yield {"sign": sign, "line": number, "text": without_secret(text)}
