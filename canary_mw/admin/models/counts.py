"""The answer with the raw counts."""

from typing import TypedDict

from canary_mw.admin.models.common import Answer


class FiguresRow(TypedDict):
    """Counts since the pod started.

    Attributes:
        drawn: whether the requests were drawn, and so are evidence.
        classes: requests by class of status, "1xx" to "5xx", and "none".
        errors: a status of 500 or above, or a failure after all attempts.
        buckets: requests by time, by the upper bound of each bucket in seconds; buckets without any are left out.
    """

    release: str
    mapping: str
    service: str
    variant: str
    drawn: bool
    requests: int
    classes: dict[str, int]
    errors: int
    seconds: float
    first_byte_seconds: float
    bytes_in: int
    bytes_out: int
    retries: int
    fallbacks: dict[str, int]
    failures: dict[str, int]
    buckets: dict[str, int]


class ReasonRow(TypedDict):
    """Decisions of a release, by reason."""

    release: str
    variant: str
    reason: str
    requests: int


class FiguresAnswer(Answer):
    """The raw counts, added up over the workers.

    Attributes:
        gauges: of the workers that run, in sum.
        skipped: files of workers that were not read, with the reason.
    """

    rows: list[FiguresRow]
    reasons: list[ReasonRow]
    gauges: dict[str, int]
    skipped: list[str]
