"""Numbers as people read them: `3.1 %`, `127 ms`, `12,480`."""

from collections.abc import Callable, Sequence
from math import ceil

# Decimals of a percent: as many tell rates apart, and at most as many a rate from 0.
_ENOUGH, _MOST = 2, 4
MINUS = "\N{MINUS SIGN}"


def count(number: int) -> str:
    """A number with commas between thousands."""
    return f"{number:,}"


def percents(*rates: float) -> tuple[str, ...]:
    """Rates in [0, 1] as percents, with one decimal, or as many more as it takes to tell them apart and from 0."""
    return tuple(f"{each} %" for each in _apart([100 * rate for rate in rates], "{:.{}f}".format))


def points(*differences: float) -> tuple[str, ...]:
    """Differences of rates as percentage points with their signs, with the decimals of `percents`."""
    texts = _apart([100 * difference + 0.0 for difference in differences], "{:+.{}f}".format)
    return tuple(text.replace("-", MINUS) for text in texts)


def share(percent: float) -> str:
    """A percent of 0 to 100 without needless decimals: `20 %`, `0.5 %`."""
    return f"{round(percent, 4):g} %"


def duration(seconds: float) -> str:
    """A duration: `2.1 ms`, `212 ms`, `1.9 s`, `45 s`."""
    milliseconds = seconds * 1000
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"


def waiting_time(seconds: float) -> str:
    """A time that is not known well: `1 minute`, `9 minutes`, `3 hours`, `4 days`."""
    minutes = max(round(seconds / 60), 1)
    unit, name = (1, "minute") if minutes < 120 else (60, "hour") if minutes < 48 * 60 else (24 * 60, "day")
    number = round(minutes / unit)
    return f"{count(number)} {name}{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """A time that is written or counted: `45 seconds`, `10 minutes`, `6 hours`."""
    if seconds >= 120:
        return waiting_time(seconds)
    number = max(ceil(seconds), 1)
    return f"{number} second{'' if number == 1 else 's'}"


def _apart(values: Sequence[float], write: Callable[[float, int], str]) -> list[str]:
    for decimals in range(1, _MOST + 1):
        texts = [write(value, decimals) for value in values]
        told = len(set(texts)) == len(set(values))
        zeros = any(float(text) == 0 and value != 0 for text, value in zip(texts, values, strict=True))
        if (told or decimals >= _ENOUGH) and not zeros:
            return texts
    return [write(value, _ENOUGH) for value in values]
