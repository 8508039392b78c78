"""What each page shows besides its answer: texts, bars and charts that follow from the figures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode

from markupsafe import Markup

from canary_mw.admin.models.common import InForce, Place
from canary_mw.admin.models.explain import ExplainAnswer
from canary_mw.admin.models.release import ReleaseAnswer
from canary_mw.admin.models.releases import Overview, Release
from canary_mw.admin.models.rules import RulesAnswer
from canary_mw.admin.pages import bars, comparison, timeline
from canary_mw.admin.pages.comparison import Row
from canary_mw.admin.pages.rollout import phases
from canary_mw.admin.pages.rollout.view import rollout_view
from canary_mw.admin.pages.timeline import Figure
from canary_mw.admin.pages.todo import Part, roll_back, todo
from canary_mw.admin.pages.wording import NOTHING, WINDOWS, moment, percent, plural, time_parts, weight

RULE_STATES = {
    "live": "Live",
    "last_good": "Last good kept",
    "never_reached": "Never reached",
    "ignored": "Ignored",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_EXAMPLE = ("kind: Mapping", "name: shop-gray", "prefix: /shop/", "service: shop-v2", "weight: 5")
EXAMPLE = [{"line": number, "text": text, "marked": False} for number, text in enumerate(_EXAMPLE, 1)]
# A page in force of the class of a card.
_TONES = {"worse": "worse", "slower": "slower", "split_off": "split"}

View = dict[str, Any]


class Split(NamedTuple):
    """The share of a gray variant: by the rules and as seen, in percent."""

    name: str
    weight: float
    seen: float | None


class ReleaseView(NamedTuple):
    """A release with all that is drawn of it.

    Attributes:
        phase: label, sign and tone; None where nothing drives it, or it has no steps and was not taken back.
        place: as "step 3 of 9"; empty before the first one.
        announced: what is said aloud when it changes.
    """

    release: Release
    phase: tuple[str, tuple[str, str]] | None
    place: str
    announced: str
    names: list[str]
    titles: list[str]
    tone: str
    splits: list[Split]
    split_label: str
    split_bar: Markup
    small_split: Markup
    rows: list[Row]
    errors: Row
    charts: list[Figure]
    last_change: str
    todo: list[Part]
    roll_back: str
    rps: float
    p95: str


def release_view(release: Release, window: str, requests: bool = False) -> ReleaseView:
    """What is drawn of a release.

    Args:
        requests: whether the chart of requests is one of the charts.
    """
    splits = _splits(release)
    seen = [each.seen or 0.0 for each in splits] if release["seen_percent"] is not None else []
    weights = [each.weight for each in splits]
    rollout, verdict = release["rollout"], release["verdict"]
    phase = phases.pill(rollout)
    return ReleaseView(
        release=release,
        phase=phase,
        place=phases.place(rollout) if rollout else "",
        announced=f"{phase[0]}; {verdict['label']}" if phase else verdict["label"],
        names=comparison.columns(release),
        titles=comparison.titles(release),
        tone=_tone(release),
        splits=splits,
        split_label=_split_label(splits, window),
        split_bar=bars.split_bar(seen, sum(weights)),
        small_split=bars.split_parts(weights, 9, plain=True),
        rows=comparison.rows(release),
        errors=comparison.errors_row(release),
        charts=timeline.figures(release, requests),
        last_change=_last_change(release),
        todo=todo(verdict),
        roll_back=roll_back(verdict),
        rps=sum(each["rps"] for each in release["variants"].values()),
        p95=_p95(release),
    )


def _tone(release: Release) -> str:
    """Of a release that was taken back, what the figures say is in the past."""
    phase = release["rollout"]["phase"] if release["rollout"] else "Manual"
    past = {"RolledBack": "worse", "Held": "slower", "Aborted": ""}
    return past[phase] if phase in past else _TONES.get(release["verdict"]["state"], "")


def _splits(release: Release) -> list[Split]:
    keys = comparison.columns(release)[1:]
    return [
        Split("gray" if len(keys) == 1 else key, release["weights"].get(key, 0.0), release["seen"].get(key))
        for key in keys
    ]


def _split_label(splits: list[Split], window: str) -> str:
    """As "Gray gets 20 % by the rules and got 20.0 % in the last 5 minutes"."""
    parts = [
        f"{each.name} gets {weight(each.weight)} by the rules and got {percent(each.seen)} in the {WINDOWS[window]}"
        for each in splits
    ]
    text = "; ".join(parts) or "all requests go to stable"
    return text[0].upper() + text[1:]


def _last_change(release: Release) -> str:
    changes = timeline.weight_changes(release)
    return f"{changes[-1]['text']} at {moment(changes[-1]['at']):%H:%M}" if changes else ""


def _p95(release: Release) -> str:
    """Of all variants, with one unit where they share it: "64 / 63 ms"."""
    values = [each["p95_ms"]["value"] for each in comparison.figures_of(release)]
    parts = [(NOTHING, "") if value is None else time_parts(value) for value in values]
    units = {unit for _, unit in parts if unit}
    if len(units) > 1:
        return " / ".join(" ".join(part).strip() for part in parts)
    return " / ".join(digits for digits, _ in parts) + "".join(f" {unit}" for unit in units)


def overview(answer: Overview, in_force: InForce) -> View:
    """Cards for what needs somebody, and a row for each of the others."""
    views = [release_view(each, answer["window"]["name"]) for each in answer["releases"]]
    loaded = bool(in_force["generation"])
    return {
        "heading": answer["finding"] if loaded else "No rules are in force yet.",
        "summary": answer["summary"] if loaded else "The server answers no request by rules.",
        "views": views,
        "cards": [each for each in views if each.release["needs_you"]],
        "others": [each for each in views if not each.release["needs_you"]],
        "example": EXAMPLE,
    }


def release(answer: ReleaseAnswer, in_force: InForce) -> View:
    """The release, and the ring of its keys."""
    del in_force
    view = release_view(answer, answer["window"]["name"], requests=True)
    ring = answer["choice"]["ring"]
    drawn: View = {"ring": None, "ring_label": ""}
    if ring is not None:
        ranges = [_percents(low, high, ring["slots"]) for each in ring["ranges"].values() for low, high in each]
        before = [100 * each / ring["slots"] for each in ring["before"]]
        drawn = {"ring": bars.ring(ranges, before), "ring_label": _ring_label(ranges, before)}
    failures = max((each["count"] for each in answer["failures"]), default=0)
    return {"view": {**view._asdict(), **drawn, "failures": failures}, "rollout": rollout_view(answer)}


def _percents(low: float, high: float, slots: int) -> tuple[float, float]:
    return 100 * low / slots, 100 * high / slots


def _ring_label(ranges: list[tuple[float, float]], before: list[float]) -> str:
    owned = " and ".join(f"{low:g} to {high:g}" for low, high in ranges if high > low)
    earlier = f"; before the last change they ended at {' and '.join(f'{each:g}' for each in before)}" if before else ""
    return f"Of keys from 0 to 100 gray has {owned or 'none'}{earlier}"


def rules(answer: RulesAnswer, in_force: InForce) -> View:
    """Links to other parts of the list."""
    asked = answer["filter"]
    query = {key: value for key in ("q", "state", "release") if (value := asked[key])}
    if asked["limit"] != 100:
        query["limit"] = str(asked["limit"])
    following = {**query, "after": str(answer["next"])}
    return {
        "heading": answer["finding"] if in_force["generation"] else "No rules are in force yet.",
        "worst": any(each["severity"] == "error" for each in answer["problems"]),
        "rule_states": RULE_STATES,
        "example": EXAMPLE,
        "sources": [_by_file(each["source"]) for each in answer["rules"]],
        "first_link": "?" + urlencode(query),
        "next_link": "?" + urlencode(following),
        "json_link": "?" + urlencode({**query, "json": "true"}),
    }


def _by_file(places: Sequence[Place]) -> list[tuple[str, str]]:
    """Each file once, with its lines: "checkout.yaml" and "1, 9"."""
    lines: dict[str, list[str]] = {}
    for place in places:
        found = lines.setdefault(place["file"], [])
        if place["line"] is not None:
            found.append(str(place["line"]))
    return [(file, ", ".join(found)) for file, found in lines.items()]


def explain(answer: Mapping[str, Any], in_force: InForce) -> View:
    """Whether something was asked, and the ring of the answer's release."""
    del in_force
    decided = "sentence" in answer
    position = cast("ExplainAnswer", answer)["position"] if decided else None
    ring = None
    if position is not None:
        ranges = (answer["release"] or {}).get("ranges", {})
        gray = [_percents(low, high, 1_000_000) for each in ranges.values() for low, high in each]
        ring = bars.ring(gray, [], position["percent"])
    asked = answer["request"]["method"]
    methods = METHODS if asked in METHODS or not asked else (asked, *METHODS)
    return {"decided": decided, "ring": ring, "methods": methods}


def traffic(answer: Mapping[str, Any], in_force: InForce) -> View:
    """How many there are."""
    del in_force
    asked = answer["filter"]
    filtered = bool(asked["q"] or asked["release"] or asked["variant"] or asked["outcome"])
    variants = {"stable", "gray", *(each["variant"] for each in answer["requests"] if each["variant"])}
    if asked["variant"]:
        variants.add(asked["variant"])
    number = len(answer["requests"])
    heading = f"The last {plural(number, 'decision')}" if number else "No decisions"
    return {"heading": heading, "filtered": filtered, "variants": sorted(variants, key=_stable_first)}


def _stable_first(name: str) -> tuple[bool, str]:
    return name != "stable", name


def finding(answer: Mapping[str, Any], in_force: InForce) -> View:
    """The finding as the heading."""
    return {"heading": answer["finding"] if in_force["generation"] else "No rules are in force yet."}


def about(answer: Mapping[str, Any], in_force: InForce) -> View:
    """Nothing besides the answer."""
    del answer, in_force
    return {}


VIEWS: dict[str, Callable[[Any, InForce], View]] = {
    "overview": overview,
    "release": release,
    "rules": rules,
    "explain": explain,
    "traffic": traffic,
    "endpoints": finding,
    "reloads": finding,
    "about": about,
}
