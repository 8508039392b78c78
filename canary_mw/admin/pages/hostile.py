"""Text of others on a page: what would change how other text is shown becomes visible.

Control, format and separator characters (Cc, Cf, Zl, Zp) are replaced by their code points: a name that holds
U+202E would turn the text after it around.
"""

import re
import unicodedata
from typing import NamedTuple

# Characters of a text that are shown.
LONGEST = 200
_SHOWN_AS_BOXES = ("Cc", "Cf", "Zl", "Zp", "Cs")
# Printable ASCII, and letters and marks of any script: the usual case, without a look-up for each character.
_HARMLESS = re.compile(r"[ -~]*\Z")


class Piece(NamedTuple):
    """A part of a text."""

    boxed: bool
    text: str


def pieces(value: object, longest: int = LONGEST) -> list[Piece]:
    """A text in pieces: those to show as they are, and boxes with a code point. The rest of a long text is cut."""
    text = str(value)
    if len(text) > longest:
        text = text[:longest] + "…"
    if _HARMLESS.match(text):
        return [Piece(False, text)]
    found: list[Piece] = []
    for character in text:
        boxed = unicodedata.category(character) in _SHOWN_AS_BOXES
        if boxed:
            found.append(Piece(True, f"U+{ord(character):04X}"))
        elif found and not found[-1].boxed:
            found[-1] = Piece(False, found[-1].text + character)
        else:
            found.append(Piece(False, character))
    return found


def visible(value: object) -> object:
    """What a template prints where it says nothing else: texts with code points in place of such characters."""
    if not isinstance(value, str) or isinstance(value, Typed) or hasattr(value, "__html__") or _HARMLESS.match(value):
        return value
    return "".join(text for _, text in pieces(value, len(value)))


class Typed(str):
    """A text that goes back to whoever wrote it, such as the value of a field: escaped, and else as it is."""

    __slots__ = ()
