"""Misspelt attributes of a Mapping that would decide who matches, or how much."""

import re
from functools import lru_cache

from canary_mw.config.ambassador.schema import MODELS

# Without one of these a Mapping takes other requests than it is meant to, or more of them.
DECIDING = frozenset(
    "weight headers regex_headers query_parameters regex_query_parameters host hostname host_regex method method_regex"
    " prefix_exact prefix_regex case_sensitive precedence shadow".split()
)
# The attributes of all versions: one of another version is no misspelling.
_KNOWN = frozenset(name for model in MODELS.values() for name in model.model_fields)

# Where a word begins in `regexHeaders`, and what separates words in `regex_headers`, `regex-headers`, `regex headers`.
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+")
# From this length on two letters may be wrong, and from the next on a part of the name may be left out or added, as in
# `query_params`.
_MIDDLE = 6
_LONG = 9
_MOST = 0.65


@lru_cache(maxsize=1024)
def deciding_attribute(version: str, name: str) -> str | None:
    """The attribute of `DECIDING` that an unknown name is a misspelling of; None if another attribute is closer.

    A misspelling differs in case, in what separates its words, in their order, by one letter left out, added, replaced
    or exchanged with the next one, by two in a longer name, and by more in a long one.
    """
    if name in _KNOWN:
        return None
    near = [(d, each not in DECIDING, each) for each in _KNOWN if (d := _distance_if_near(name, each)) is not None]
    _, other, closest = min(near, default=(0, True, ""))
    if closest == "hostname" and closest not in MODELS[version].model_fields:
        return "host"
    return None if other else closest


def _distance_if_near(name: str, known: str) -> int | None:
    found = []
    for one, other in zip(_forms(name), _forms(known), strict=True):
        tolerance = _tolerance(one, other)
        # The lengths first, because a name may be a text of any length.
        if abs(len(one) - len(other)) <= tolerance and (distance := _distance(one, other)) <= tolerance:
            found.append(distance)
    return min(found, default=None)


@lru_cache(maxsize=256)
def _forms(name: str) -> tuple[str, str]:
    """The letters of a name: as they are, and with its words sorted."""
    words = [word.lower() for word in _WORD.split(name) if word]
    return "".join(words), "".join(sorted(words))


def _tolerance(name: str, known: str) -> int:
    """How many letters may be wrong."""
    if len(known) >= _LONG and _is_part(*sorted((name, known), key=len)):
        return len(known)
    same_start = name[:1] == known[:1]
    if len(known) >= _MIDDLE:
        return 2 if same_start and abs(len(name) - len(known)) <= 1 else 1
    # `post` is no misspelling of `host`.
    return 1 if same_start or len(name) != len(known) or sorted(name) == sorted(known) else 0


def _is_part(shorter: str, longer: str) -> bool:
    """Whether the shorter name is the longer one without some of its letters, but most of it."""
    letters = iter(longer)
    return len(shorter) >= _MOST * len(longer) and all(letter in letters for letter in shorter)


def _distance(one: str, other: str) -> int:
    """The number of letters left out, added, replaced, or exchanged with the next one (optimal string alignment)."""
    before_last: list[int] = []
    last: list[int] = [*range(len(other) + 1)]
    for i, letter in enumerate(one, 1):
        row: list[int] = [i]
        for j, wanted in enumerate(other, 1):
            row.append(min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != wanted)))
            if i > 1 and j > 1 and one[i - 2 : i] == other[j - 2 : j][::-1]:
                row[j] = min(row[j], before_last[j - 2] + 1)
        before_last, last = last, row
    return last[-1]
