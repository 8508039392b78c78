"""Figures and times as people read them."""

from datetime import UTC, datetime
from urllib.parse import quote, urlencode

WINDOWS = {"1m": "last minute", "5m": "last 5 minutes", "15m": "last 15 minutes", "1h": "last hour"}
WINDOW_LINKS = {"1m": "1 min", "5m": "5 min", "15m": "15 min", "1h": "1 h"}
NOTHING = "–"


def count(number: float | None) -> str:
    """A whole number with commas between thousands."""
    return NOTHING if number is None else f"{number:,.0f}"


def rate(number: float | None) -> str:
    """A number a second, with three digits at most below 1,000."""
    if number is None:
        return NOTHING
    if number >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 0.095 or number == 0 else f"{number:.2f}"


def share(fraction: float | None, digits: int = 2) -> str:
    """A fraction of 1 as a number of percent, without the sign."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f}"


def percent(number: float | None, digits: int = 1) -> str:
    """Percent with its sign, and always with these digits."""
    return NOTHING if number is None else f"{number:.{digits}f} %"


def weight(number: float | None) -> str:
    """Percent as somebody writes them in a rule: without zeros at the end."""
    return NOTHING if number is None else f"{round(number, 4):g} %"


def milliseconds(number: float | None) -> str:
    """A time with its unit: ms below a second, else s."""
    return NOTHING if number is None else " ".join(time_parts(number))


def time_parts(number: float) -> tuple[str, str]:
    """A number of milliseconds as digits and unit."""
    if number >= 9995:
        return f"{number / 1000:,.1f}", "s"
    if number >= 999.5:
        return f"{number / 1000:.2f}", "s"
    return (f"{number:.0f}", "ms") if number >= 9.95 or number == 0 else (f"{number:.1f}", "ms")


def size(number: int) -> str:
    """Bytes with a unit."""
    if number < 1024:
        return f"{number} bytes"
    return f"{number / 1024:,.0f} KiB" if number < 1024 * 1024 else f"{number / 1024 / 1024:,.1f} MiB"


def moment(text: str) -> datetime:
    """A time in ISO 8601, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC)


def clock(text: str | None, now: str, digits: int = 0) -> str:
    """The time of day; with the date before it, if that is another day than now's.

    Args:
        digits: of a second: 0, or 3 for milliseconds.
    """
    if text is None:
        return NOTHING
    at = moment(text)
    day = "" if at.date() == moment(now).date() else f"{at:%Y-%m-%d} "
    return f"{day}{at:%H:%M:%S}" + (f".{at.microsecond // 1000:03d}" if digits else "")


def ago(text: str | None, now: str) -> str:
    """How long ago something was, in one unit."""
    if text is None:
        return "never"
    seconds = (moment(now) - moment(text)).total_seconds()
    if seconds < 2:
        return "now"
    for unit, length in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < (100 * length if unit == "s" else 100 * length if unit == "min" else 48 * length):
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds / 86400:.0f} days ago"


def lasting(seconds: float) -> str:
    """A length of time in its two largest units: "7 min 12 s", "1 h 5 min"; what is 0 is left out."""
    whole = round(seconds)
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((place for place, (_, number) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number} {unit}" for unit, number in units[first : first + 2] if number) or "0 s"


def plural(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def release_path(name: str) -> str:
    """The path of the page of a release, behind the root of all pages.

    Browsers take a segment of one or two dots for a step, also where it is encoded: such a name stands in the query.
    """
    return f"releases/{quote(name, safe='')}" if name.strip(".") else f"releases/?{urlencode({'name': name})}"


def without(message: str, name: str | None) -> str:
    """A finding whose heading is the name that it begins with, as "Mapping shop: "."""
    kind, _, rest = message.partition(" ")
    found = bool(name) and kind in ("Mapping", "GrayRelease") and rest.startswith(f"{name}: ")
    return rest[len(f"{name}: ") :] if found else message
