"""Pages that stay up to date: figures move, and what a person does stays."""

from typing import TYPE_CHECKING, Any

import pytest
import recorded_answers as recorded
from page_visits import CHROMIUM, Site, Visitor, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is found: .ci/run installs it, as root"),
]


def with_rate(rate: float) -> dict[str, Any]:
    return {**recorded.OVERVIEW, "totals": {**recorded.OVERVIEW["totals"], "rps": rate}}


def until_shown(page: "Page", text: str) -> None:
    page.get_by_text(text, exact=True).first.wait_for()


def test_figures_move_while_what_a_person_does_stays(visitor: Visitor, site: Site) -> None:
    page = visitor.open("release", width=390)
    page.get_by_text("Figures as a table").click()
    page.get_by_role("region", name="Reasons").evaluate("e => { e.scrollTop = 0; }")
    page.get_by_role("link", name="15 min").focus()
    page.evaluate("scrollTo(0, 600)")
    site.answers["release"] = {**recorded.RELEASE, "requests": 62_999}
    page.get_by_text("last 5 minutes, 62,999 requests").wait_for(state="attached")
    assert page.evaluate("scrollY") == 600
    assert page.evaluate("document.activeElement.textContent") == "15 min"
    assert page.get_by_role("table", name="Errors and p95 by quarter of an hour").is_visible()


def test_typed_text_and_choices_stay_while_rules_change(visitor: Visitor, site: Site) -> None:
    page = visitor.open("rules")
    page.get_by_label("State").select_option("Never reached")
    page.get_by_label("Find").fill("half a wo")
    page.get_by_label("Find").evaluate("e => e.setSelectionRange(2, 4)")
    site.answers["rules"] = {**recorded.RULES, "finding": "213 of 214 rules are live as written."}
    page.get_by_role("heading", name="213 of 214 rules are live as written.").wait_for()
    assert page.get_by_label("Find").input_value() == "half a wo"
    assert page.evaluate("[document.activeElement.id, document.activeElement.selectionStart]") == ["find", 2]
    assert page.get_by_label("State").input_value() == "never_reached"


def test_a_question_that_is_typed_stays_while_rules_change(visitor: Visitor, site: Site) -> None:
    page = visitor.open("explain")
    page.get_by_label("Headers").fill("x-user-id: 43")
    site.answers["explain"] = {**recorded.EXPLAIN, "rules": {**recorded.IN_FORCE, "generation": 43}}
    page.get_by_text("Rules 43, live on 4 of 4 workers").wait_for()
    assert page.get_by_label("Headers").input_value() == "x-user-id: 43"


def test_a_page_that_is_paused_rests_and_then_catches_up(visitor: Visitor, site: Site) -> None:
    page = visitor.open("overview")
    button = page.get_by_role("button", name="Pause updates")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert page.locator("#state").inner_text().startswith("Paused")
    site.answers["overview"] = with_rate(777)
    until_ticks(page, 3)
    assert page.get_by_text("777", exact=True).count() == 0
    button.click()
    until_shown(page, "777 /s")
    assert page.locator("#state").inner_text().startswith("Live")


def until_ticks(page: "Page", number: int) -> None:
    """Wait until the server has said so many times that it is there."""
    page.evaluate(
        "document.getElementById('live').addEventListener('tick', () =>"
        " { document.body.dataset.ticks = 'x' + (document.body.dataset.ticks ?? ''); })"
    )
    page.locator(f"body[data-ticks={'x' * number}]").wait_for()


def test_a_change_of_a_verdict_is_said_and_figures_are_not(visitor: Visitor, site: Site) -> None:
    page = visitor.open("overview")
    status = page.get_by_role("status", name="Verdict changes")
    site.answers["overview"] = with_rate(777)
    until_shown(page, "777 /s")
    assert status.text_content() == ""
    worse, *others = recorded.OVERVIEW["releases"]
    better = {
        **worse,
        "verdict": {**worse["verdict"], "state": "same", "label": "No difference seen"},
        "needs_you": False,
    }
    site.answers["overview"] = {**with_rate(778), "releases": [better, *others]}
    page.locator("#verdicts:not(:empty)").wait_for(state="attached")
    assert status.text_content() == "checkout-2026-11: No difference seen."


def test_too_many_pages_ask_now_and_then(browser: "Browser", site: Site) -> None:
    visitor = Visitor(browser, site)
    site.streams._most = 0
    page = visitor.open("overview")
    site.answers["overview"] = with_rate(777)
    until_shown(page, "777 /s")
    assert page.locator("#state").inner_text().startswith("Live")
    visitor.close()
    assert visitor.seen.outside == []


def test_a_page_that_has_lost_the_server_keeps_its_figures_and_comes_back(browser: "Browser", site: Site) -> None:
    with serving(Site()) as gone:
        visitor = Visitor(browser, gone)
        page = visitor.open("overview")
        page.locator("#state[data-state=live]").wait_for()
    page.get_by_role("alert").wait_for()
    assert "The page has lost the server. What you see is of 14:07:00." in page.get_by_role("alert").inner_text()
    assert page.locator("#state").inner_text().split() == ["Lost", "·", "14:07:00"]
    assert page.get_by_role("article", name="checkout-2026-11").is_visible()
    assert visitor.seen.outside == []
    visitor.close()
