"""The answer about all releases.

A release is a GrayRelease, or a group with a gray Mapping that no GrayRelease governs, by the name of its stable
Mapping.
"""

from typing import TypedDict

from canary_mw.admin.models.common import Answer, Frame, Place
from canary_mw.admin.models.figures import Difference, Series, Totals, VariantFigures, Window
from canary_mw.admin.models.rollout import Rollout
from canary_mw.rollout.sentence import State


class Match(TypedDict):
    """What the Mappings of a release match.

    Attributes:
        host: null for any.
    """

    host: str | None
    prefix: str


class Verdict(TypedDict):
    """What the figures say about a gray variant.

    Attributes:
        variant: the gray variant; null where the release has none.
        label: the state in words, as "Gray is worse".
        sentence: headline and details.
        headline: the finding.
        details: what belongs to it; may be empty.
        since: when this state began.
        ln_e: logarithm of the evidence that gray is worse.
        what_to_do: empty where nothing is to be done.
        command: the command that takes gray back, where one can.
        source: the line to change.
    """

    variant: str | None
    state: State
    label: str
    sentence: str
    headline: str
    details: str
    since: str | None
    ln_e: float | None
    what_to_do: str
    command: str | None
    source: Place | None


class Event(TypedDict):
    """Something that happened to a release.

    Attributes:
        kind: as "weight", for an upright in the charts.
        text: as "weight 10 → 20".
    """

    at: str
    kind: str
    text: str


class Release(TypedDict):
    """A release, as the overview shows it.

    Attributes:
        document: whether a GrayRelease says it; otherwise it is a group of Mappings.
        services: all services that it leads to, stable first.
        weights: percent of the requests by the rules, for each variant and "stable".
        seen: percent of the drawn requests of the window, for each variant and "stable".
        seen_percent: percent of the drawn requests that gray variants got; null without any.
        requests: drawn requests of the window.
        needs_you: whether somebody has to look at it.
        rollout: how far it is, with the state that all processes share; null where nothing drives it.
        last_gray: when the last request was drawn for gray, as far as is known.
        verdict: that of the gray variant whose state is the most urgent.
        difference: of the same variant.
        verdicts: of each gray variant.
        differences: of each gray variant.
        series: the last hour by minute, where somebody has to look at it.
        events: those of the last hour.
    """

    name: str
    document: bool
    match: Match
    services: list[str]
    weights: dict[str, float]
    seen: dict[str, float]
    seen_percent: float | None
    requests: int
    needs_you: bool
    rollout: Rollout | None
    last_gray: str | None
    verdict: Verdict
    variants: dict[str, VariantFigures]
    difference: Difference | None
    verdicts: dict[str, Verdict]
    differences: dict[str, Difference | None]
    series: Series | None
    events: list[Event]


class Overview(Answer):
    """All releases, the most urgent first.

    Attributes:
        finding: the sum of it in one sentence.
        summary: how many releases need a look, and what is compared.
    """

    window: Window
    finding: str
    summary: str
    totals: Totals
    releases: list[Release]


class ListedRelease(TypedDict):
    """A release without its figures.

    Attributes:
        document: whether a GrayRelease says it; otherwise it is a group of Mappings.
        weights: percent of the requests in force here, for each variant and "stable".
        rollout: how far it is, with the state that all processes share; null where nothing drives it.
    """

    name: str
    document: bool
    match: Match
    services: list[str]
    weights: dict[str, float]
    rollout: Rollout | None


class ReleasesAnswer(Answer):
    """All releases without their figures, by name."""

    releases: list[ListedRelease]


class CommandAnswer(Frame):
    """What a release is after a command.

    Attributes:
        rollout: as in the answer about the release.
    """

    name: str
    rollout: Rollout | None


class RolledBackAnswer(Frame):
    """What a pod answers that was told of a rollback.

    Attributes:
        attempt: the one that was rolled back.
        lowered: whether that was news; false for an attempt that is over, or was rolled back here already.
    """

    name: str
    attempt: int
    lowered: bool
