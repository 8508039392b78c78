"""Values without quotes as Go's YAML reads them (goyaml.v2 `resolve.go`, which Kubernetes and Emissary use).

YAML 1.1 and Go differ: Go takes `1e4`, `08` and `0o20` for numbers, and knows no base 60, so `12:30` is a text. JSON
does not distinguish 20.0 and 20, so a number without a fraction is a whole number: Helm writes 1200000 as `1.2e+06`.
"""

import re
from math import isinf

_PREFIX = "tag:yaml.org,2002:"
TEXT, NUMBER, BOOLEAN, NULL = (_PREFIX + name for name in ("str", "float", "bool", "null"))
# `y` and `n`: see PlainWord.
WORD = _PREFIX + "word"

_TRUE = "y Y yes Yes YES true True TRUE on On ON"
_FALSE = "n N no No NO false False FALSE off Off OFF"
BOOLEANS = {**dict.fromkeys(_TRUE.split(), True), **dict.fromkeys(_FALSE.split(), False)}
_TAGS = dict.fromkeys(BOOLEANS, BOOLEAN)
_TAGS |= dict.fromkeys(("y", "Y", "n", "N"), WORD)
_TAGS |= dict.fromkeys(("", "~", "null", "Null", "NULL"), NULL)
# Numbers of YAML that JSON does not have: to read them fails.
_TAGS |= {sign + name: NUMBER for sign in ("", "+", "-") for name in (".inf", ".Inf", ".INF")}
_TAGS |= dict.fromkeys((".nan", ".NaN", ".NAN"), NUMBER)

MAX_DIGITS = 64
_NUMBER_START = frozenset("+-.0123456789")
_WHOLE = re.compile(r"([-+]?)(?:0[bB]([01]+)|0[oO]?([0-7]+)|0[xX]([0-9a-fA-F]+)|(0|[1-9][0-9]*))")
_BASES = (2, 8, 16, 10)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NUMBER = re.compile(f"{_WHOLE.pattern}|{_FLOAT.pattern}")
# Whole numbers have 64 bits in Go. A larger one is read as a float, which no attribute takes.
_WHOLE_LIMIT = 1 << 63


class PlainWord(str):
    """One of `y`, `Y`, `n` and `N` without quotes: a boolean where only a boolean is allowed, elsewhere a text.

    Go reads a boolean everywhere. `headers: {x-beta: n}` would then match every request with this header.
    """

    __slots__ = ()


class OddKey(str):
    """The text of a key without quotes that YAML reads as a number, a boolean or null, and not as a text.

    It is refused where it names something in a rule. Objects of other programs may have such keys.
    """

    __slots__ = ()


def value_of(text: str) -> int | float | bool | str | None:
    """The value of a text without quotes."""
    tag = tag_of(text)
    if tag == NULL:
        return None
    return BOOLEANS[text] if tag == BOOLEAN else read_number(text) if tag == NUMBER else text


def tag_of(text: str) -> str:
    """The tag of a value without quotes."""
    tag = _TAGS.get(text)
    if tag is not None:
        return tag
    if text[0] not in _NUMBER_START or not _NUMBER.fullmatch(_without_underscores(text)):
        return TEXT
    return NUMBER if len(text) > MAX_DIGITS or read_number(text) is not None else TEXT


def _without_underscores(text: str) -> str:
    return text if text.startswith(".") else text.replace("_", "")


def read_number(text: str) -> int | float | None:
    """The number that a text is, None if it is none; also one too large for a float is a text."""
    plain = _without_underscores(text)
    whole = _WHOLE.fullmatch(plain)
    if whole:
        sign, *digits = whole.groups()
        number = next(int(each, base) for base, each in zip(_BASES, digits, strict=True) if each)
        return _as_json(-number if sign == "-" else number)
    value = float(plain) if _FLOAT.fullmatch(plain) else None
    return None if value is None or isinf(value) else _as_json(value)


def _as_json(number: int | float) -> int | float:
    """A whole number as an int if it has 64 bits, any other as a float."""
    return int(number) if number == int(number) and -_WHOLE_LIMIT <= number < _WHOLE_LIMIT else float(number)
