"""Text of others on a terminal: it moves no cursor, turns nothing around, and fits into its column."""

import unicodedata

from canary_mw.admin.pages.hostile import pieces

_WIDE = ("W", "F")


def visible(text: str, longest: int = 10_000) -> str:
    """A text on one line, with code points in place of characters that a terminal would act on."""
    return "".join(shown for _, shown in pieces(text, longest))


def width(text: str) -> int:
    """The columns that a text takes."""
    return sum(_columns(each) for each in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1


def fitted(text: str, columns: int, *, right: bool = False) -> str:
    """A text that takes exactly as many columns: cut with an ellipsis, or filled up with blanks."""
    if width(text) > columns:
        kept = ""
        for each in text:
            if width(kept) + _columns(each) > columns - 1:
                break
            kept += each
        text = kept + "…"
    blanks = " " * (columns - width(text))
    return blanks + text if right else text + blanks
