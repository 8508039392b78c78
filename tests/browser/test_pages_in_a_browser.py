"""The pages as a browser shows them: on a desk and on a phone, in light and dark, without a script, by keyboard."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
import recorded_answers as recorded
from admin_examples import EXPLAIN, HOSTILE, RULES, TRAFFIC
from admin_release_examples import OVERVIEW, RELEASE
from page_visits import AXE, CHROMIUM, PATHS, Site, Visitor

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is found: .ci/run installs it, as root"),
]

LOOKS: Mapping[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "width": 390, "has_touch": True},
}
TITLES = {
    "overview": "Overview · canary-mw",
    "release": "checkout-2026-11 · Release · canary-mw",
    **{name: f"{name.capitalize()} · canary-mw" for name in list(PATHS)[2:]},
}


def is_wide(page: "Page") -> bool:
    """Whether the page can be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


@pytest.mark.parametrize("look", LOOKS)
def test_each_page_is_accessible_and_never_wider_than_the_screen(visitor: Visitor, look: str) -> None:
    for name in PATHS:
        # axe is injected, which the policy of the page refuses.
        page = visitor.open(name, bypass_csp=True, **LOOKS[look])
        assert page.title() == TITLES[name]
        assert not is_wide(page)
        page.add_script_tag(path=AXE)
        found = page.evaluate("axe.run().then(result => result.violations)")
        serious = [
            (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
        ]
        assert serious == [], (name, look)
        check_frame(page, name)
        page.context.close()


def check_frame(page: "Page", name: str) -> None:
    """The parts of a page that all have, and that its link is the current one."""
    for role in ("banner", "main", "contentinfo"):
        assert page.get_by_role(role).count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    current = page.get_by_role("navigation", name="Pages").locator("[aria-current=page]")
    expected = "Overview" if name in ("overview", "release") else name.capitalize()
    assert (current.inner_text() or "").split()[0] == expected
    assert "live on 4 of 4 workers" in page.get_by_role("contentinfo").inner_text()
    assert page.get_by_role("button", name="Pause updates").get_attribute("aria-pressed") == "false"
    assert page.get_by_role("button", name="Colours: auto").count() == 1
    assert page.get_by_role("status", name="Verdict changes").count() == 1


def test_the_overview_is_read_as_it_is_seen(visitor: Visitor) -> None:
    page = visitor.open("overview")
    card = page.get_by_role("article", name="checkout-2026-11")
    assert card.get_by_role("heading", name="checkout-2026-11").get_by_role("link").count() == 1
    assert card.get_by_text("Gray is worse", exact=True).count() == 1
    assert card.get_by_text("What to do:").count() == 1
    assert card.get_by_role("img", name="Gray gets 20 % by the rules and got 20.0 % in the last 5 minutes").count() == 1
    table = card.get_by_role("table", name="checkout-2026-11: stable and gray, last 5 minutes")
    headers = [each.inner_text() for each in table.get_by_role("columnheader").all()]
    assert headers == ["Stable", "Gray", "Difference", "95 % interval"]
    rows = [each.inner_text() for each in table.get_by_role("rowheader").all()]
    assert rows == ["Errors", "p50", "p95", "p99", "Requests"]
    assert table.get_by_role("img", name="Errors: stable 0.36 to 0.47 %, gray 2.85 to 3.46 %").count() == 1
    assert page.get_by_role("table", name="The other 4").get_by_role("row").count() == 5
    windows = page.get_by_role("navigation", name="Window")
    assert [each.inner_text() for each in windows.get_by_role("link").all()] == ["1 min", "5 min", "15 min", "1 h"]
    assert windows.locator("[aria-current=true]").inner_text() == "5 min"


def test_a_release_is_read_as_it_is_seen(visitor: Visitor) -> None:
    page = visitor.open("release")
    for heading in ("The last hour", "Who gets gray", "What gray answers", "Rule"):
        assert page.get_by_role("heading", name=heading, exact=True).count() == 1
    for start in ("Errors in the last hour", "p95 in the last hour", "Requests a second"):
        assert page.get_by_role("img", name=start).count() == 1
    assert not page.get_by_role("table", name="Errors and p95 by quarter of an hour").is_visible()
    page.get_by_text("Figures as a table").click()
    assert page.get_by_role("table", name="Errors and p95 by quarter of an hour").get_by_role("row").count() == 5
    assert page.get_by_role("list", name="Order of choice").get_by_role("listitem").count() == 4
    for table in ("Why requests went where they did, last 5 minutes", "Answers by status, last 5 minutes"):
        assert page.get_by_role("table", name=table).count() == 1
    page.get_by_role("button", name="Copy the roll-back command").click()
    page.get_by_role("button", name="Copied").wait_for()


def test_the_other_pages_are_read_as_they_are_seen(visitor: Visitor) -> None:
    page = visitor.open("rules")
    problems = page.get_by_role("region", name="Problems")
    assert problems.get_by_role("article").count() == 2
    excerpt = problems.get_by_role("region", name="rules/invoices.yaml, lines 11 to 15")
    assert excerpt.locator("mark").inner_text() == "weight: 120"
    search = page.get_by_role("search", name="Filter rules")
    for label in ("Find", "State", "Release"):
        assert search.get_by_label(label).count() == 1
    table = page.get_by_role("table", name="Rules in the order in which they are tried")
    headers = [each.inner_text() for each in table.get_by_role("columnheader").all()]
    assert headers == ["#", "Match", "Goes to", "State", "Source", "Requests, 5 min"]
    for word in ("Live", "Last good kept", "Never reached"):
        assert table.get_by_text(word, exact=True).count() >= 1
    page = visitor.open("explain")
    form = page.get_by_role("form", name="Request")
    for label in ("URL", "Method", "Client address", "Headers", "Cookies", "User"):
        assert form.get_by_label(label, exact=True).count() == 1
    decision = page.get_by_role("region", name="Decision")
    assert decision.get_by_role("list", name="Steps").get_by_role("listitem").count() == 6
    assert decision.get_by_role("img", name="User 42 lies at 12.4; ").count() == 1
    changes = page.get_by_role("table", name="Changes to the request")
    rows = [each.inner_text() for each in changes.get_by_role("rowheader").all()]
    assert rows == ["To", "Path", "Added", "Removed", "Timeout", "Copy"]
    assert page.get_by_role("table", name="What could happen to others on this URL").get_by_role("row").count() == 3
    page = visitor.open("traffic")
    assert page.get_by_role("table", name="The last decisions, newest first").get_by_role("row").count() == 9
    assert page.get_by_role("link", name="Explain 7f3a-19c2").count() == 1
    assert visitor.open("endpoints").get_by_role("table", name="Endpoints by service").count() == 1
    reloaded = visitor.open("reloads").get_by_role("article", name="Rules 42")
    assert "live on 4 of 4 workers" in reloaded.inner_text()


def test_each_page_is_there_without_a_script(visitor: Visitor) -> None:
    for name in PATHS:
        page = visitor.open(name, java_script_enabled=False)
        assert page.title() == TITLES[name]
        assert page.get_by_role("heading", level=1).is_visible()
        assert not page.get_by_role("button", name="Pause updates").is_visible()
        assert not page.get_by_role("alert").is_visible()
        assert "As of 14:07:00" in page.get_by_role("banner").inner_text()
    page = visitor.open("rules", java_script_enabled=False)
    page.get_by_label("Find").fill("/checkout/")
    page.get_by_label("State").select_option("Last good kept")
    page.get_by_role("button", name="Show").click()
    assert page.url.endswith("/rules?q=%2Fcheckout%2F&state=last_good&release=")
    for colours in ("light", "dark"):
        page.get_by_role("button", name="Colours: ").click()
        assert page.locator("html").get_attribute("data-theme") == colours
        assert "q=%2Fcheckout%2F" in page.url
    page.get_by_role("button", name="Colours: dark").click()
    assert page.locator("html").get_attribute("data-theme") is None


def test_the_keyboard_reaches_everything_in_reading_order(visitor: Visitor) -> None:
    page = visitor.open("rules")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "find"
    page.keyboard.type("a/b")
    assert page.get_by_label("Find").input_value() == "a/b"
    seen = []
    page.evaluate("document.activeElement.blur(); document.querySelector('.brand').focus()")
    for _ in range(40):
        seen.append(
            page.evaluate("(e => [e.getBoundingClientRect().top + scrollY, e.tagName])(document.activeElement)")
        )
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
    tops = [round(top) for top, _ in seen]
    assert tops == sorted(tops, key=lambda top: top // 200)
    assert {"A", "BUTTON", "INPUT", "SELECT"} <= {tag for _, tag in seen}


def test_colours_are_those_of_the_system_until_somebody_chooses(visitor: Visitor) -> None:
    def ground(page: "Page") -> Any:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = "rgb(246, 246, 243)", "rgb(16, 18, 21)"
    page = visitor.open("overview", color_scheme="dark")
    assert ground(page) == dark
    page.get_by_role("button", name="Colours: auto").click()
    assert ground(page) == light
    page.reload()
    assert ground(page) == light
    page.get_by_role("button", name="Colours: light").click()
    page.get_by_role("button", name="Colours: dark").click()
    assert page.get_by_role("button", name="Colours: auto").count() == 1
    assert ground(page) == dark


def test_nothing_moves_where_motion_is_not_wanted_and_forms_stay_with_forced_colours(visitor: Visitor) -> None:
    page = visitor.open("overview", reduced_motion="reduce")
    assert page.evaluate("document.getAnimations().length") == 0
    page = visitor.open("overview", reduced_motion="no-preference")
    page.locator("#state[data-state=live]").wait_for()
    assert page.evaluate("document.getAnimations().length") == 1
    page = visitor.open("overview", forced_colors="active")
    bar = page.get_by_role("img", name="Gray gets 20 % by the rules").first.locator(".fill-stable")
    fill = bar.evaluate("e => getComputedStyle(e).fill")
    ground = page.evaluate("getComputedStyle(document.querySelector('article')).backgroundColor")
    assert fill != ground


@pytest.mark.parametrize("width", [1280, 390])
def test_texts_of_others_do_nothing_and_are_shown(visitor: Visitor, site: Site, width: int) -> None:
    name = f"{HOSTILE}{'x' * 300}"
    site.answers |= {
        "overview": {
            **OVERVIEW,
            "releases": [{**each, "name": f"{name}{n}"} for n, each in enumerate(OVERVIEW["releases"])],
        },
        "release": {**RELEASE, "name": name},
        "rules": RULES,
        "explain": EXPLAIN,
        "traffic": TRAFFIC,
    }
    for path in ("overview", f"releases/{name.replace('/', '%2F')}", "rules", "explain", "traffic"):
        page = visitor.open(path, width=width)
        assert "<script>alert(1)</script>" in page.get_by_role("main").inner_text()
        assert "U+202E" in page.get_by_role("main").inner_text()
        assert not is_wide(page)


def test_fifty_releases_and_five_hundred_rules_are_no_more_than_fit(visitor: Visitor, site: Site) -> None:
    worse, *_, same, _ = recorded.OVERVIEW["releases"]
    many = [{**same, "name": f"team-{number:02}-service-2026-11"} for number in range(49)]
    site.answers["overview"] = {**recorded.OVERVIEW, "releases": [worse, *many]}
    rules = [{**recorded.RULES["rules"][number % 10], "order": number + 1} for number in range(100)]
    site.answers["rules"] = {**recorded.RULES, "rules": rules, "total": 500, "found": 500, "next": 100}
    for width in (1280, 390):
        page = visitor.open("overview", width=width)
        assert page.get_by_role("table", name="The other 49").count() == 1
        assert not is_wide(page)
        page = visitor.open("rules", width=width)
        assert "1 to 100 of 500" in page.get_by_role("main").inner_text()
        assert not is_wide(page)
