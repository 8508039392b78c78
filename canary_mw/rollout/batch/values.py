"""The values of a line of `canary-mw evidence --batch`, with their ranges."""

from collections.abc import Callable
from typing import Any, TypeVar

from canary_mw.exceptions import ConfigError

# Above it a float does not hold every whole number.
MOST = 2**53
_MISSING = object()
T = TypeVar("T")


class Fields:
    """The fields of a JSON object, by name; raises ConfigError for one that is missing or out of its range.

    Args:
        place: where the object stands in its line, as "epochs[0]."; "" for the line itself.
    """

    def __init__(self, value: Any, place: str = "") -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{place.rstrip('.')} must be an object")
        self._value = value
        self._place = place

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        """A number in [low, high]."""
        return checked_number(self._place + name, self._get(name, default), low, high)

    def count(self, name: str, default: int | None = None, low: int = 0) -> int:
        """A whole number from `low` on."""
        return checked_count(self._place + name, self._get(name, default), low)

    def text(self, name: str) -> str:
        """A text."""
        value = self._get(name, None)
        if not isinstance(value, str):
            raise ConfigError(f"{self._place}{name} must be a text, not {value!r:.60}")
        return value

    def choice(self, name: str, *values: str, default: str | None = None) -> str:
        """One of some texts; the first is the default if any is."""
        value = self._get(name, default)
        if value not in values:
            raise ConfigError(f"{self._place}{name} must be {' or '.join(values)}, not {value!r:.60}")
        return str(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self._get(name, None)
        if not isinstance(value, bool):
            raise ConfigError(f"{self._place}{name} must be true or false, not {value!r:.60}")
        return value

    def digest(self, name: str) -> int:
        """64 bits of a hash, in hexadecimal digits."""
        return checked_digest(self._place + name, self._get(name, None))

    def items(self, name: str, read: Callable[[str, Any], T], *, default: list[Any] | None = None) -> list[T]:
        """The items of a list, each read with its place."""
        value = self._get(name, default)
        if not isinstance(value, list):
            raise ConfigError(f"{self._place}{name} must be a list, not {value!r:.60}")
        return [read(f"{self._place}{name}[{index}]", each) for index, each in enumerate(value)]

    def objects(self, name: str) -> "list[Fields]":
        """The objects of a list."""
        return self.items(name, lambda place, value: Fields(value, f"{place}."))

    def _get(self, name: str, default: Any) -> Any:
        value = self._value.get(name, _MISSING)
        if value is not _MISSING:
            return value
        if default is None:
            raise ConfigError(f"{self._place}{name} is missing")
        return default


def checked_number(place: str, value: Any, low: float, high: float) -> float:
    """A number in [low, high]; NaN is in no range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{place} must be a number from {low:g} to {high:g}, not {value!r:.60}")
    return float(value)


def checked_count(place: str, value: Any, low: int = 0) -> int:
    """A whole number from `low` on."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MOST:
        raise ConfigError(f"{place} must be a whole number from {low} on, not {value!r:.60}")
    return value


def checked_digest(place: str, value: Any) -> int:
    """64 bits of a hash, in hexadecimal digits."""
    try:
        digest = int(value, 16)
    except (TypeError, ValueError):
        digest = -1
    if not 0 <= digest < 2**64:
        raise ConfigError(f"{place} must be a key of up to 16 hexadecimal digits, not {value!r:.60}")
    return digest
