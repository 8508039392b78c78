"""What to do about a release, in parts: words, code, and the place that is a link."""

import re
from typing import Literal, NamedTuple

from canary_mw.admin.models.releases import Verdict

_CODE = re.compile(r"`([^`]+)`")
# How `admin.releases.advice` says what takes gray back: a command, or the line as it should read.
_TAKE_BACK = re.compile(r"take gray back: (?:run (?P<command>.+)|(?P<line>[^`]+) in .+)", re.DOTALL)


class Part(NamedTuple):
    """A part of the advice."""

    kind: Literal["words", "code", "place"]
    text: str


def todo(verdict: Verdict) -> list[Part]:
    """The advice of a verdict; empty where nothing is to be done. What stands in backquotes is code."""
    text, source = verdict["what_to_do"], verdict["source"]
    if not text:
        return []
    code = roll_back(verdict)
    if code and f"`{code}`" not in text:
        text = text.replace(code, f"`{code}`", 1)
    if source is None:
        return _words(text)
    place = source["file"] if source["line"] is None else f"{source['file']}:{source['line']}"
    before, found, after = text.partition(place)
    if not found:
        return [*_words(text), Part("words", " ("), Part("place", place), Part("words", ")")]
    return [*_words(before), Part("place", place), *_words(after)]


def roll_back(verdict: Verdict) -> str:
    """What takes gray back: a command, or the line as it should read. Empty where it need not be taken back."""
    found = _TAKE_BACK.fullmatch(verdict["what_to_do"].replace("`", ""))
    line = found["line"] or "" if found else ""
    return verdict["command"] or line


def _words(text: str) -> list[Part]:
    parts = []
    for index, piece in enumerate(_CODE.split(text)):
        if piece:
            parts.append(Part("code" if index % 2 else "words", piece))
    return parts
