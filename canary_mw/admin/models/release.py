"""The answer about one release."""

from typing import TypedDict

from canary_mw.admin.models.common import ExcerptLine, ListingAnswer
from canary_mw.admin.models.figures import VariantFigures, Window
from canary_mw.admin.models.releases import Release
from canary_mw.admin.models.rollout import EvidenceOverTime


class Reason(TypedDict):
    """Why requests went where they did.

    Attributes:
        reason: as in decisions, for example "sticky" or "choice:header".
        title: the reason in words.
        requests: by variant, and "stable".
    """

    reason: str
    title: str
    detail: str
    requests: dict[str, int]


class Failure(TypedDict):
    """A way in which a variant fails.

    Attributes:
        kind: "connect", "timeout", "reset" and so on, or a status.
        text: in words.
    """

    variant: str
    kind: str
    text: str
    count: int


class ClientsSaw(TypedDict):
    """What clients saw of the failures of gray.

    Attributes:
        stepped_in: failures that stable answered for.
        clients: failures that clients saw.
        text: the same in words.
    """

    failures: int
    stepped_in: int
    clients: int
    text: str


class ChoiceStep(TypedDict):
    """A step in the order of choice of a release.

    Attributes:
        name: "enabled", "lane", "choice", "lists", "layer", "holdout", "audience", "sticky", "missing", "fallback".
    """

    name: str
    title: str
    text: str


class Ring(TypedDict):
    """Which keys each variant owns, of 1,000,000 slots; stable owns the rest.

    Attributes:
        ranges: lists of [low, high), by variant.
        before: where the ranges of gray ended before the last change of weights, in slots.
    """

    salt: str
    slots: int
    ranges: dict[str, list[list[int]]]
    before: list[int]


class Choice(TypedDict):
    """Who gets gray.

    Attributes:
        ring: null where requests are drawn each by itself.
    """

    steps: list[ChoiceStep]
    ring: Ring | None


class AnswersByStatus(TypedDict):
    """Answers of a status or of a class of statuses, by variant.

    Attributes:
        status: as "2xx", "503" or "none".
        note: for example "not counted as errors".
    """

    status: str
    note: str
    requests: dict[str, int]


class RuleSource(TypedDict):
    """A document of a release with its text.

    Attributes:
        kind: "GrayRelease" or "Mapping".
        order: number of its rule in the order in which they are tried; null for a GrayRelease.
    """

    name: str
    kind: str
    variant: str | None
    file: str
    line: int | None
    order: int | None
    excerpt: list[ExcerptLine]


class Change(TypedDict):
    """A change of the rules of a release."""

    at: str
    generation: int
    text: str


class Quarter(TypedDict):
    """A quarter of an hour, with figures by variant."""

    start: str
    variants: dict[str, VariantFigures]


class ReleaseAnswer(ListingAnswer, Release):
    """One release: what the overview shows of it, always with `series`, and all else.

    Attributes:
        evidence: how the evidence of each metric grew in this attempt, as far as this process has looked at it.
        quarters: the last hour by quarter.
        live_on: workers that have its newest version in force.
        live_since: when its newest version came into force.
    """

    window: Window
    evidence: list[EvidenceOverTime]
    quarters: list[Quarter]
    live_on: int
    live_since: str | None
    reasons: list[Reason]
    failures: list[Failure]
    clients_saw: ClientsSaw
    choice: Choice
    answers: list[AnswersByStatus]
    rules: list[RuleSource]
    changes: list[Change]
