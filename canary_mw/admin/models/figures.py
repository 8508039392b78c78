"""Figures of the answers: windows of time, sums, variants and their differences."""

from typing import Any, Literal, TypedDict

WindowName = Literal["1m", "5m", "15m", "1h"]

# `start`, `step_seconds`, and a `SeriesOfVariant` under "stable" and under the name of each gray variant.
Series = dict[str, Any]


class Window(TypedDict):
    """The time that figures are of.

    Attributes:
        name: as asked for.
        seconds: its true length, which is shorter soon after the start.
    """

    name: WindowName
    seconds: float


class Interval(TypedDict):
    """A 95 % interval; null where it is open or unknown."""

    low: float | None
    high: float | None


class Measured(Interval):
    """A figure and its 95 % interval.

    Attributes:
        value: null where nothing was measured.
    """

    value: float | None


class Totals(TypedDict):
    """Sums over all requests of the window.

    Attributes:
        gray_share: 0 to 1.
        error_rate: 0 to 1.
    """

    requests: int
    rps: float
    gray_share: float | None
    errors: int
    error_rate: float | None
    p95_ms: float | None


class VariantFigures(TypedDict):
    """The figures of a variant, of drawn requests.

    Attributes:
        services: where the variant leads.
        error_rate: 0 to 1.
        status: numbers of answers by class, "1xx" to "5xx", and "none" for those without.
    """

    services: list[str]
    requests: int
    rps: float
    errors: int
    error_rate: Measured
    p50_ms: Measured
    p95_ms: Measured
    p99_ms: Measured
    status: dict[str, int]


class Difference(TypedDict):
    """95 % intervals of gray minus stable; of rates 0 to 1. An interval that holds 0 shows no difference."""

    error_rate: Interval
    p50_ms: Interval
    p95_ms: Interval
    p99_ms: Interval


class SeriesOfVariant(TypedDict):
    """Figures by step of time; null where nothing was measured. Rates are 0 to 1."""

    requests: list[int]
    errors: list[int]
    error_rate: list[float | None]
    error_low: list[float | None]
    error_high: list[float | None]
    p95_ms: list[float | None]
    p95_low: list[float | None]
    p95_high: list[float | None]
