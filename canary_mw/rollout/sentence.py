"""What a release's figures say, in one sentence that is safe to look at all day. A pure function of the figures."""

import re
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from canary_mw.rollout.findings import Findings
from canary_mw.rollout.formatting import count, duration, percents, points, share, waiting_time
from canary_mw.rollout.intervals import Estimate, Interval, difference, wilson
from canary_mw.rollout.statistics import least

State = Literal["worse", "slower", "split_off", "not_enough", "better", "same", "off"]
# The most urgent first.
STATES: tuple[State, ...] = ("worse", "slower", "split_off", "not_enough", "better", "same", "off")
_WORDS: Dict[State, str] = {
    "worse": "Gray is worse",
    "slower": "Gray is slower",
    "better": "Gray is better",
    "split_off": "Split is off",
    "same": "No difference seen",
    "not_enough": "Not enough yet",
    "off": "Off",
}
# How requests came to gray, by the reason of the release.
_REASONS = {
    "sticky": "the sticky key",
    "roll": "the draw of each request",
    "weight": "the draw of each request",
    "new": "new cookies",
}
# "Same" is a difference that is within half a point, or within half of stable's rate.
_SAME_POINTS = 0.005
_SAME_PART = 0.5
_GRAY = re.compile(r"\b[Gg]ray\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """The drawn requests of one variant in the window.

    Attributes:
        errors: failed requests, those that stable answered in gray's place included.
        p95, p99: seconds to the first byte, None without requests.
    """

    requests: int = 0
    errors: int = 0
    p95: float | None = None
    p99: float | None = None

    @property
    def error_rate(self) -> Estimate:
        """The rate of errors with its interval."""
        return wilson(self.errors, self.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFigures:
    """What the sentence about one gray variant is made of. Texts of times are written as they are given.

    Attributes:
        findings: what the evidence of the attempt says; None before there is any.
        name: of the gray variant where there are several, else "".
        percent: its weight by the rules.
        seconds: length of the window.
        began: the weight and the time of the step with which it got worse, if it is known.
        stepped_in: failures of gray that stable answered.
        reasons: drawn gray requests by the reason of the release.
        seen_percent: the part of the drawn requests that gray got, in percent.
        last_gray: time of the last gray request, "" if there was none.
        rolled_back: time of the rollback and its reason, None without one.
    """

    gray: ArmFigures
    stable: ArmFigures
    findings: Findings | None = None
    name: str = ""
    percent: float = 0.0
    seconds: float = 0.0
    began: tuple[float, str] | None = None
    stepped_in: int = 0
    reasons: Dict[str, int] = field(default_factory=dict)
    seen_percent: float = 0.0
    last_gray: str = ""
    rolled_back: tuple[str, str] | None = None


class Sentence(NamedTuple):
    """A state and what is said of it.

    Attributes:
        headline: what is shown in bold.
        details: the rest, "" if there is none.
    """

    state: State
    headline: str
    details: str = ""

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.headline} {self.details}".rstrip()


def sentence(figures: VariantFigures) -> Sentence:
    """The sentence about one gray variant. Where it has a name, the name stands for "gray"."""
    state = state_of(figures)
    headline, *details = _PARTS[state](figures)
    written = Sentence(state, headline, " ".join(each for each in details if each))
    return written if not figures.name else _named(written, figures.name)


def state_words(state: State, name: str = "") -> str:
    """The words of a state, as a label: `Gray is worse`."""
    return _WORDS[state].replace("Gray", name) if name else _WORDS[state]


def most_urgent(sentences: Iterable[Sentence]) -> Sentence:
    """The sentence that stands for a release with several gray variants; there is at least one."""
    return min(sentences, key=lambda each: STATES.index(each.state))


def state_of(figures: VariantFigures) -> State:
    """The state of one gray variant. Without weight and without gray requests, what was before is over."""
    found = figures.findings
    if figures.percent == 0 and figures.gray.requests == 0:
        return "off"
    if found is not None:
        flags: tuple[tuple[State, bool], ...] = (
            ("worse", found.worse),
            ("slower", found.slower),
            ("better", found.better),
            ("split_off", found.split_off),
        )
        for state, holds in flags:
            if holds:
                return state
    return "same" if _is_same(figures.gray.error_rate, figures.stable.error_rate) else "not_enough"


def _is_same(gray: Estimate, stable: Estimate) -> bool:
    most = max(_SAME_POINTS, stable.value * _SAME_PART)
    between = difference(gray, stable)
    return -most <= between.low and between.high <= most


def _gap(figures: VariantFigures) -> Interval:
    return difference(figures.gray.error_rate, figures.stable.error_rate)


def _rate_gap(figures: VariantFigures) -> float:
    return figures.gray.error_rate.value - figures.stable.error_rate.value


def _rates(figures: VariantFigures) -> tuple[str, ...]:
    return percents(figures.gray.error_rate.value, figures.stable.error_rate.value)


def _worse(figures: VariantFigures) -> tuple[str, ...]:
    headline, certainty = _compared(figures, "more", _rate_gap(figures) > 0)
    return headline, certainty, _began(figures), _stepped_in(figures)


def _better(figures: VariantFigures) -> tuple[str, ...]:
    return _compared(figures, "less", _rate_gap(figures) < 0)


def _compared(figures: VariantFigures, word: str, agrees: bool) -> tuple[str, str]:
    """The verdict is of the whole attempt. Figures of a window that say otherwise are told as such."""
    gray, stable = _rates(figures)
    certain = "Very unlikely to be chance."
    if agrees:
        return f"Gray fails {word} often: {gray} of its requests against {stable}.", certain
    return f"Gray fails {word} often.", f"{certain} In this window: {gray} of its requests against {stable}."


def _began(figures: VariantFigures) -> str:
    if figures.began is None:
        return ""
    percent, time = figures.began
    return f"It began with the step to {share(percent)} at {time}."


def _stepped_in(figures: VariantFigures) -> str:
    if not figures.stepped_in:
        return ""
    errors, hidden = figures.gray.errors, figures.stepped_in
    of = f"{count(hidden)} of the {count(errors)} failures"
    return f"Stable stepped in for {of}, so clients saw {count(errors - hidden)}."


def _slower(figures: VariantFigures) -> tuple[str, ...]:
    gray, stable = figures.gray, figures.stable
    for percent, slow, usual in ((95, gray.p95, stable.p95), (99, gray.p99, stable.p99)):
        if slow is not None and usual is not None and duration(slow) != duration(usual) and slow > usual:
            times = f"{percent} of 100 answers take up to {duration(slow)}, against {duration(usual)}"
            return f"Gray is slower: {times}.", _errors_beside(figures)
    return "Gray is slower.", "In this window the times do not show it.", _errors_beside(figures)


def _errors_beside(figures: VariantFigures) -> str:
    gray, stable = _rates(figures)
    failing = "It may fail more often, too" if _gap(figures).low > 0 else "It does not fail more often"
    return f"{failing}: {gray} against {stable}."


def _split_off(figures: VariantFigures) -> tuple[str, ...]:
    headline = f"Gray gets {_whole(figures.seen_percent)} instead of {share(figures.percent)}."
    if not figures.reasons:
        return (headline,)
    most = max(figures.reasons, key=lambda reason: figures.reasons[reason])
    return headline, f"Most of it by {_REASONS.get(most, most)}."


def _whole(percent: float) -> str:
    return share(round(percent) if percent >= 10 else round(percent, 1))


def _same(figures: VariantFigures) -> tuple[str, ...]:
    low, high = points(*_gap(figures))
    return "No difference seen.", f"In errors it lies between {low} and {high} points."


def _not_enough(figures: VariantFigures) -> tuple[str, ...]:
    requests = figures.gray.requests
    headline = f"Not enough yet: {count(requests)} gray request{'' if requests == 1 else 's'}."
    wait = seconds_until_same(figures)
    return headline, "" if wait is None else f"At this rate about {waiting_time(wait)} more."


def seconds_until_same(figures: VariantFigures) -> float | None:
    """How long until "same" can be said at this rate if gray fails as often as stable.

    Returns:
        None where they are not the same as it looks, or where no requests come.
    """
    gray, stable = figures.gray, figures.stable
    if not (gray.requests and stable.requests and figures.seconds and figures.percent):
        return None
    between = _gap(figures)
    if not between.low <= 0 <= between.high:
        return None
    rate, ratio = stable.error_rate.value, stable.requests / gray.requests

    def enough(requests: int) -> bool:
        others = requests * ratio
        return _is_same(wilson(rate * requests, requests), wilson(rate * others, others))

    needed = least(enough, gray.requests)
    return None if needed is None else (needed - gray.requests) * figures.seconds / gray.requests


def _off(figures: VariantFigures) -> tuple[str, ...]:
    since = f"No gray request since {figures.last_gray}." if figures.last_gray else "No gray request yet."
    if figures.rolled_back is None:
        return "Off: gray's weight is 0.", since
    time, reason = figures.rolled_back
    return "Off: gray's weight is 0.", since, f"Rolled back at {time}: {reason.rstrip('.')}."


_PARTS = {
    "worse": _worse,
    "slower": _slower,
    "better": _better,
    "split_off": _split_off,
    "same": _same,
    "not_enough": _not_enough,
    "off": _off,
}


def _named(written: Sentence, name: str) -> Sentence:
    return Sentence(written.state, _with_name(written.headline, name), _with_name(written.details, name))


def _with_name(text: str, name: str) -> str:
    return _GRAY.sub(lambda _: name, text)
