"""Conditions on the result of a query: the part of Argo Rollouts' expressions that says yes or no about numbers.

`result` is the list of values; where there is one value, also that value. There are comparisons, `+ - * /`, `&&`, `||`
and `!` (or `and`, `or`, `not`), `result[0]`, `len(result)`, and `all`, `any` and `none` of `result` with a predicate
about `#`. What has no answer raises `NoData`: it is neither success nor failure.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import isnan
from operator import add, eq, ge, gt, le, lt, mul, ne, sub
from typing import NamedTuple

MOST_CHARACTERS = 500
_MOST_NESTED = 20
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+"
_TOKEN = re.compile(rf"\s*({_NUMBER}|[A-Za-z_]\w*|&&|\|\||[<>=!]=|[-+*/<>!()\[\]{{}},#])", re.ASCII)
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge, "==": eq, "!=": ne}
_WORDS = {"and": "&&", "or": "||", "not": "!"}
_NO_DATA = "what is missing or no number is waited for, and never judged"
_FOREIGN = {"default": _NO_DATA, "isNaN": _NO_DATA, "isNil": _NO_DATA}


class NoData(Exception):
    """A result that says nothing; the text says why."""


class _Given(NamedTuple):
    """What a condition is about: all values, and the one that is `#`."""

    result: Sequence[float]
    item: float | None = None


_Number = Callable[[_Given], float]
_Truth = Callable[[_Given], bool]


class _Parsed(NamedTuple):
    """A part of a condition: a number or a truth."""

    number: _Number | None = None
    truth: _Truth | None = None


def holds(condition: str, result: Sequence[float]) -> bool:
    """Whether a condition holds; raises NoData where the result does not say it."""
    if not result or any(isnan(each) for each in result):
        raise NoData("there is no data" if not result else "a value is no number")
    return _compiled(condition)(_Given(result))


def check(condition: str) -> None:
    """Raise ValueError where a condition cannot be read; the text says why."""
    _compiled(condition)


@lru_cache(256)
def _compiled(text: str) -> _Truth:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has more than {MOST_CHARACTERS} characters")
    reading = _Reading(_tokens(text))
    found = reading.either()
    if reading.tokens:
        raise ValueError(f"{reading.tokens[0]!r} is not expected there")
    return _truth(found)


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise ValueError(f"{text[place:].strip()[:10]!r} is not expected there")
        found.append(_WORDS.get(token[1], token[1]))
        place = token.end()
    return found


def _truth(part: _Parsed) -> _Truth:
    if part.truth is None:
        raise ValueError("it is a number and no condition: write result[0] < 0.5")
    return part.truth


def _number(part: _Parsed) -> _Number:
    if part.number is None:
        raise ValueError("a condition stands where a number is expected")
    return part.number


def _checked(value: float) -> float:
    if isnan(value):
        raise NoData("a value is no number")
    return value


class _Reading:
    """The tokens of a condition that are still to be read.

    Attributes:
        in_predicate: whether `#` means something.
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.in_predicate = False
        self._nested = 0

    def _take(self, *wanted: str) -> str:
        """The next token if it is one of these, else ""."""
        return self.tokens.pop(0) if self.tokens and self.tokens[0] in wanted else ""

    def _expect(self, wanted: str) -> None:
        if not self._take(wanted):
            there = repr(self.tokens[0]) if self.tokens else "the end"
            raise ValueError(f"{wanted!r} is expected in place of {there}")

    def either(self) -> _Parsed:
        """Conditions of which one has to hold."""
        left = self._both()
        while self._take("||"):
            left = _either_of(_truth(left), _truth(self._both()))
        return left

    def _both(self) -> _Parsed:
        left = self._negated()
        while self._take("&&"):
            left = _both_of(_truth(left), _truth(self._negated()))
        return left

    def _negated(self) -> _Parsed:
        if not self._take("!"):
            return self._compared()
        self._enter()
        inner = _truth(self._negated())
        self._nested -= 1
        return _Parsed(truth=lambda given: not inner(given))

    def _compared(self) -> _Parsed:
        left = self._sum()
        if not (sign := self._take(*_COMPARISONS)):
            return left
        compare, one, other = _COMPARISONS[sign], _number(left), _number(self._sum())
        return _Parsed(truth=lambda given: compare(_checked(one(given)), _checked(other(given))))

    def _sum(self) -> _Parsed:
        left = self._product()
        while sign := self._take("+", "-"):
            left = _combined(add if sign == "+" else sub, left, self._product())
        return left

    def _product(self) -> _Parsed:
        left = self._signed()
        while sign := self._take("*", "/"):
            left = _combined(mul if sign == "*" else _divided, left, self._signed())
        return left

    def _signed(self) -> _Parsed:
        if not self._take("-"):
            return self._atom()
        self._enter()
        inner = _number(self._signed())
        self._nested -= 1
        return _Parsed(number=lambda given: -inner(given))

    def _enter(self) -> None:
        self._nested += 1
        if self._nested > _MOST_NESTED:
            raise ValueError(f"more than {_MOST_NESTED} brackets or signs stand in each other")

    def _atom(self) -> _Parsed:
        if self._take("("):
            self._enter()
            inner = self.either()
            self._nested -= 1
            self._expect(")")
            return inner
        if not self.tokens:
            raise ValueError("it ends too early")
        token = self.tokens.pop(0)
        if token[0].isdigit() or token[0] == ".":
            value = float(token)
            return _Parsed(number=lambda given: value)
        if token in ("true", "false"):
            return _Parsed(truth=lambda given: token == "true")
        return self._named(token)

    def _named(self, token: str) -> _Parsed:
        if token == "#" and self.in_predicate:
            return _Parsed(number=lambda given: given.item or 0.0)
        if token == "result":
            return self._indexed() if self._take("[") else _Parsed(number=_only)
        if token == "len":
            self._expect("(")
            self._expect("result")
            self._expect(")")
            return _Parsed(number=lambda given: float(len(given.result)))
        if token in ("all", "any", "none"):
            return self._quantified(token)
        known = "known are result, result[0], len(result), and all, any or none (result, # < 0.5)"
        raise ValueError(f"{token!r} is not known: {_FOREIGN.get(token, known)}")

    def _indexed(self) -> _Parsed:
        token = self.tokens.pop(0) if self.tokens else ""
        if not token.isdigit() or len(token) > 6:
            raise ValueError("a number of a value is expected, as result[0]")
        self._expect("]")
        place = int(token)
        return _Parsed(number=lambda given: _at(given, place))

    def _quantified(self, token: str) -> _Parsed:
        if self.in_predicate:
            raise ValueError(f"{token!r} stands in another predicate")
        self._expect("(")
        self._expect("result")
        self._expect(",")
        brace = self._take("{")
        self.in_predicate = True
        inner = _truth(self.either())
        self.in_predicate = False
        if brace:
            self._expect("}")
        self._expect(")")
        return _quantified(token, inner)


def _either_of(one: _Truth, other: _Truth) -> _Parsed:
    return _Parsed(truth=lambda given: one(given) or other(given))


def _both_of(one: _Truth, other: _Truth) -> _Parsed:
    return _Parsed(truth=lambda given: one(given) and other(given))


def _quantified(word: str, predicate: _Truth) -> _Parsed:
    def truth(given: _Given) -> bool:
        found = [predicate(_Given(given.result, each)) for each in given.result]
        return all(found) if word == "all" else any(found) == (word == "any")

    return _Parsed(truth=truth)


def _combined(work: Callable[[float, float], float], left: _Parsed, right: _Parsed) -> _Parsed:
    one, other = _number(left), _number(right)
    return _Parsed(number=lambda given: work(one(given), other(given)))


def _divided(one: float, other: float) -> float:
    if not other:
        raise NoData("a value is divided by 0")
    return one / other


def _only(given: _Given) -> float:
    if len(given.result) != 1:
        raise NoData(f"there are {len(given.result)} values: the condition has to say result[0], or any(result, ...)")
    return given.result[0]


def _at(given: _Given, place: int) -> float:
    if place >= len(given.result):
        raise NoData(f"there are {len(given.result)} values, and no result[{place}]")
    return given.result[place]
