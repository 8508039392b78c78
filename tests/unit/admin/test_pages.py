"""The pages, made of answers: what stands in them, and that texts of others stay texts."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import recorded_answers as recorded
from admin_examples import ABOUT, ENDPOINTS, EXPLAIN, HOSTILE, RELOADS, RULES, TRAFFIC
from admin_release_examples import OVERVIEW, RELEASE
from markupsafe import escape
from page_reader import LOOK, Reader

from canary_mw.admin.pages.frame import PAGES, Page, render

ANSWERS: dict[Page, Mapping[str, Any]] = {
    "overview": OVERVIEW,
    "release": RELEASE,
    "rules": RULES,
    "explain": EXPLAIN,
    "traffic": TRAFFIC,
    "endpoints": ENDPOINTS,
    "reloads": RELOADS,
    "about": ABOUT,
}


def page(which: Page, **changes: Any) -> Reader:
    return Reader(render(which, {**ANSWERS[which], **changes}, LOOK))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_and_has_one_of_each_landmark(name: Page) -> None:
    found = page(name)
    tags = [tag for tag, _ in found.elements]
    assert [tags.count(each) for each in ("header", "main", "footer", "h1", "head")] == [1] * 5
    identifiers = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    labelled = {word for _, each in found.elements for word in each.get("aria-labelledby", "").split()}
    assert labelled <= set(identifiers)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_that_a_page_holds_needs_more_than_its_policy_allows(name: Page) -> None:
    found = page(name)
    for tag, attributes in found.elements:
        assert "style" not in attributes
        assert not [each for each in attributes if each.startswith(("on", "hx-on"))]
        assert tag not in ("style", "iframe", "object", "base")
        if tag == "script":
            assert attributes["src"].startswith("/ambassador/v0/diag/static/")
    assert not re.search(r"https?://(?!shop)", render(name, ANSWERS[name], LOOK).replace(HOSTILE, ""))


@pytest.mark.parametrize("name", PAGES)
def test_texts_of_others_stay_texts(name: Page) -> None:
    hostile = f"{HOSTILE}\u2066\x00\x1b[31m\u2028'\">&{{{{ 1234 * 4321 }}}}<img src=x onerror=alert(1)>"
    html = render(name, _with_texts(ANSWERS[name], hostile), LOOK)
    found = Reader(html)
    assert not [tag for tag, _ in found.elements if tag == "img"]
    scripts = [attributes for tag, attributes in found.elements if tag == "script"]
    assert len(scripts) == 3
    shown = "".join(text for text in found.texts)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2066\u2028]", shown)
    assert "5332114" not in shown
    assert "U+202E" in shown
    assert "U+2066" in shown


# What is a key, a time, an address or one of some words, and so never a text of others.
_FIXED = {
    "now",
    "at",
    "since",
    "start",
    "started",
    "ended",
    "read_at",
    "live_at",
    "last_hit",
    "last_gray",
    "live_since",
}
_FIXED |= {"state", "severity", "outcome", "sign", "origin", "path", "variant", "explain", "live_since"}


def _with_texts(value: Any, text: str, key: str = "") -> Any:
    """An answer in which all texts are this one."""
    if isinstance(value, dict):
        fixed = key in ("window",) or None
        return value if fixed else {name: _with_texts(each, text, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_texts(each, text, key) for each in value]
    return text if isinstance(value, str) and key not in _FIXED else value


def test_a_long_text_is_cut() -> None:
    rule = {**RULES["rules"][0], "prefix": "/" + "x" * 5000}
    found = page("rules", rules=[rule])
    assert "x" * 199 + "…" in found.text
    assert "x" * 201 not in found.text


def test_what_somebody_typed_comes_back_as_it_was() -> None:
    typed = {**EXPLAIN["request"], "headers": "a: 1\nb: \u202e", "url": 'http://shop/?"<>'}
    html = render("explain", {**EXPLAIN, "request": typed}, LOOK)
    assert "a: 1\nb: \u202e</textarea>" in html
    assert ("input", 'http://shop/?"<>') in [(tag, each.get("value")) for tag, each in Reader(html).elements]


def test_the_frame_says_whose_figures_these_are() -> None:
    found = page("overview")
    assert "Rules 42 , live on 4 of 4 workers since" in found.text.replace("42,", "42 ,")
    assert "Sum over 4 workers of pod" in found.text
    assert found.labels("nav") == ["Pages", "Window"]
    current = [each["href"] for _, each in found.elements if each.get("aria-current") == "page"]
    assert current == ["/ambassador/v0/diag/"]
    assert "Rules 2 2 problems" in found.text


def test_a_worker_that_is_behind_silent_or_missing_is_told() -> None:
    scope = {**OVERVIEW["scope"], "behind": [3811], "silent": [7, 9], "complete": False, "reporting": 3}
    text = page("overview", scope=scope).text
    assert "1 of 4 workers still runs older rules. The others have had 42 since 14:03:12. Worker 3811 is busy" in text
    assert "2 of 4 workers are silent. Workers 7, 9 are busy, or hanging" in text
    assert "Figures of 3 of 4 workers." in text
    assert "Sum over 3 of 4 workers" in text
    assert "Figures of this process only" in page("overview", scope={**scope, "shared": False}).text


@pytest.mark.parametrize("name", ["overview", "rules", "endpoints", "reloads"])
def test_without_rules_a_page_says_so(name: Page) -> None:
    none = {**OVERVIEW["rules"], "generation": 0, "since": None, "error": "rules.yaml: is not there"}
    key = "rules" if name != "rules" else "in_force"
    found = page(name, **{key: none})
    assert "No rules are in force yet." in found.text


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("overview", {"releases": []}, "A release begins when two rules share a prefix"),
        ("rules", {"rules": [], "total": 0, "problems": []}, "A rule is a Mapping"),
        ("rules", {"rules": [], "total": 5}, "No rule is like that"),
        ("traffic", {"requests": []}, "No request yet"),
        ("endpoints", {"services": []}, "No service yet"),
        ("reloads", {"reloads": []}, "Nothing was read yet"),
    ],
)
def test_an_empty_page_says_how_to_begin(name: Page, changes: dict[str, Any], expected: str) -> None:
    assert expected in page(name, **changes).text


def test_a_card_holds_the_finding_the_split_the_table_and_what_to_do() -> None:
    found = page("overview")
    assert "Gray gets 20 % by the rules and got 20.0 % in the last 5 minutes" in found.labels("svg")
    assert "Errors: stable 0.36 to 0.47 %, gray 2.85 to 3.46 %" in found.labels("svg")
    assert "checkout-2026-11 : stable and gray, last 5 minutes" in found.text
    assert "Errors 0.41 % 204 of 49,870 3.14 % 392 of 12,480 +2.4 to 3.1 points" in found.text
    assert "What to do: take gray back: write gray: {shop-gray: 0}" in found.text
    assert "The other 3" in found.text


def test_what_takes_gray_back_is_code_and_can_be_copied() -> None:
    said = RELEASE["verdict"]
    for text, command, code in (
        ("take gray back: weight: 0 in rules/checkout.yaml:16.", None, "weight: 0"),
        ("take gray back: run kubectl patch x -p '{}'", "kubectl patch x -p '{}'", "kubectl patch x -p '{}'"),
        ("take gray back: `gray: 0` in rules/checkout.yaml:16.", None, "gray: 0"),
    ):
        verdict = {**said, "what_to_do": text, "command": command}
        found = page("release", verdict=verdict)
        assert [each["data-copy"] for _, each in found.elements if "data-copy" in each] == [code]
        html = render("release", {**RELEASE, "verdict": verdict}, LOOK)
        assert f"<code><bdi>{escape(code)}</bdi></code>" in html
    found = page("release", verdict={**said, "what_to_do": "do not widen it."})
    assert [each for _, each in found.elements if "data-copy" in each] == []


def test_several_gray_variants_have_a_column_and_a_sentence_each() -> None:
    worse = OVERVIEW["releases"][0]
    variants = {**worse["variants"], "v3": worse["variants"]["shop-gray"]}
    verdicts = {**worse["verdicts"], "v3": {**worse["verdict"], "headline": "Gray fails less often."}}
    weights = {**worse["weights"], "v3": 5.0}
    found = page("overview", releases=[{**worse, "variants": variants, "verdicts": verdicts, "weights": weights}])
    assert "v3: Gray fails less often." in found.text.replace("v3 :", "v3:")
    headers = [each for tag, each in found.elements if tag == "th" and each.get("scope") == "col"]
    assert len(headers) == 5


def test_a_release_without_a_gray_request_has_no_figures_of_gray() -> None:
    off = OVERVIEW["releases"][-1]
    found = page("release", **off)
    assert "Off: gray's weight is 0." in found.text
    assert "– –" in found.text
    assert "– %" not in found.text


def test_a_chart_of_a_young_server_begins_with_its_first_requests() -> None:
    worse = recorded.CHECKOUT
    series = worse["series"]
    assert series is not None
    young = {**series, **{name: _since(series[name], 57) for name in ("stable", "gray")}}
    found = page("overview", releases=[{**worse, "series": young}])
    titles = [text for text in found.texts if re.match(r"\d\d:\d\d: stable", text)]
    assert len(titles) == 20
    assert titles[0].startswith("13:57: stable none")
    assert "13:07" not in found.text


def _since(variant: dict[str, list[Any]], first: int) -> dict[str, list[Any]]:
    """The figures of a variant without any before a column."""
    return {
        name: [
            (0 if name in ("requests", "errors") else None) if at < first else value for at, value in enumerate(values)
        ]
        for name, values in variant.items()
    }


def test_fifty_releases_are_listed_behind_those_that_need_somebody() -> None:
    worse, *_, same, _ = OVERVIEW["releases"]
    found = page("overview", releases=[worse, *({**same, "name": f"team-{number}"} for number in range(49))])
    assert "The other 49" in found.text
    assert [tag for tag, _ in found.elements].count("article") == 1


def test_the_region_of_a_page_is_the_page_without_its_document() -> None:
    region = render("overview", OVERVIEW, LOOK, whole=False)
    assert "<!doctype" not in region
    assert re.sub(r"\s+", "", region) in re.sub(r"\s+", "", render("overview", OVERVIEW, LOOK))
