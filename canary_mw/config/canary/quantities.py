"""Durations and rates of a GrayRelease: each function returns a number, or raises `FieldError`."""

import re
from decimal import Decimal
from math import isfinite

from canary_mw.config.canary.fields import FieldError, shown
from canary_mw.config.wording import in_words

# The units of Go's durations, in seconds.
_UNITS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_PART = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"(?:{_PART})+")
_PARTS = re.compile(_PART)
_SECONDS = re.compile(r"[0-9]+")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
# A hundred years: more is a slip of the keyboard.
_MOST = 100 * 365 * 86_400
_DURATION_HINT = "write a duration as 90s, 10m or 1h30m, or a number of seconds"


def duration(written: str | int | float, attribute: str, *, above: float | None = None) -> float:
    """The seconds of a Go duration, or of a number of seconds as Argo Rollouts reads it.

    Args:
        above: what it must be more than.
    """
    seconds = _seconds(written)
    if seconds is None or not 0 <= seconds <= _MOST:
        message = f"{shown(attribute)}: {in_words(written)} is no duration"
        raise FieldError("bad-value", attribute, message, _DURATION_HINT)
    if above is not None and seconds <= above:
        raise FieldError("bad-value", attribute, f"{shown(attribute)} must be more than {above:g} s", _DURATION_HINT)
    return seconds


def _seconds(written: str | int | float) -> float | None:
    if not isinstance(written, str):
        return float(written) if isfinite(written) else None
    if len(written) > 64:
        return None
    if _SECONDS.fullmatch(written):
        return float(written)
    if not _DURATION.fullmatch(written):
        return None
    return float(sum(Decimal(number) * _UNITS[unit] for number, unit in _PARTS.findall(written)))


def rate(
    written: str | int | float, attribute: str, *, most: float = 100, with_zero: bool = False, with_most: bool = True
) -> float:
    """The share, in [0, 1], of a percent: 1% or 1.

    Args:
        most: the largest percent.
        with_zero, with_most: whether the ends count.
    """
    found = _RATE.fullmatch(written) if isinstance(written, str) else None
    percent = Decimal(found[1]) if found else None
    if not isinstance(written, str) and isfinite(written):
        percent = Decimal(str(written))
    if percent is None or not (
        _inside(percent, most) or (with_zero and not percent) or (with_most and percent == most)
    ):
        low = "from 0" if with_zero else "above 0"
        high = f"up to {most:g}" if with_most else f"below {most:g}"
        hint = f"write a percent {low} and {high}, as 1% or 0.5%"
        message = f"{shown(attribute)}: {in_words(written)} is no percent {low} and {high}"
        raise FieldError("bad-value", attribute, message, hint)
    return float(percent / 100)


def _inside(percent: Decimal, most: float) -> bool:
    return 0 < percent < most


def number(written: float, attribute: str, *, least: float, above: bool = False) -> float:
    """A number from `least` on, or above it."""
    if not isfinite(written) or written < least or (above and written == least):
        wanted = f"more than {least:g}" if above else f"{least:g} or more"
        message = f"{shown(attribute)} is {written:g}"
        raise FieldError("bad-value", attribute, message, f"write a number that is {wanted}")
    return written
