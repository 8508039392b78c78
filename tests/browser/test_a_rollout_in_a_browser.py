"""How far a release is, as a browser shows it: each phase in light, dark and on a phone, without a script, and live."""

from typing import Any, get_args

import pytest
import recorded_answers as recorded
from page_visits import AXE, CHROMIUM, Site, Visitor
from recorded_rollouts import ROLLED_BACK, ROLLOUTS, over_time

from canary_mw.admin.models.rollout import Phase, Rollout
from canary_mw.admin.pages.rollout.phases import PHASES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is found: .ci/run installs it, as root"),
]

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "width": 390, "has_touch": True},
}
# Looks at phases whose parts differ; the others are looked at in one.
EVERYWHERE: tuple[Phase, ...] = ("Progressing", "RolledBack")


def showing(site: Site, state: Rollout) -> None:
    """Let the pages show the checkout release in a state."""
    site.answers["release"] = {**recorded.RELEASE, "rollout": state, "evidence": over_time(state["metrics"])}
    first, *others = recorded.OVERVIEW["releases"]
    site.answers["overview"] = {**recorded.OVERVIEW, "releases": [{**first, "rollout": state}, *others]}


def serious(page: Any) -> list[Any]:
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("phase", get_args(Phase))
def test_each_phase_is_accessible_and_never_wider_than_the_screen(visitor: Visitor, site: Site, phase: Phase) -> None:
    showing(site, ROLLOUTS[phase])
    for look in LOOKS if phase in EVERYWHERE else ["phone"]:
        page = visitor.open("release", bypass_csp=True, **LOOKS[look])
        assert page.get_by_role("heading", name="Rollout", exact=True).count() == 1
        assert page.get_by_role("main").get_by_text(PHASES[phase][2], exact=True).count() >= 1
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert serious(page) == [], (phase, look)
        page.context.close()


def test_a_rollout_is_read_as_it_is_seen(visitor: Visitor, site: Site) -> None:
    showing(site, ROLLOUTS["Progressing"])
    page = visitor.open("release")
    steps = page.get_by_role("list", name="Steps of the release").get_by_role("listitem")
    read = [" ".join(each.split()[:3]) for each in steps.all_inner_texts()]
    assert read == ["1 % Done", "5 % Now", "25 % Ahead", "50 % Ahead", "95 % Ahead", "Bake Ahead 30"]
    assert steps.nth(1).get_by_role("img", name="This step: 7 min 12 s of at least 10 min").count() == 1
    table = page.get_by_role("table", name="Evidence by metric")
    headers = [each.inner_text() for each in table.get_by_role("columnheader").all()]
    assert headers == ["Metric", "Gray", "Stable", "Ratio", "Evidence that gray is worse", "Excess in gray"]
    assert page.get_by_role("img", name="Evidence over time: error_rate is 0.7 now").count() == 1
    assert page.get_by_role("table", name="What happened").get_by_role("row").count() == 4
    commands = page.get_by_role("list", name="Commands to copy").get_by_role("listitem")
    assert commands.count() == 5
    commands.first.get_by_role("button").click()
    page.get_by_role("button", name="Copied").wait_for()
    # The command is read by whoever has no script, and no button does anything but copy.
    page = visitor.open("release", java_script_enabled=False)
    commands = page.get_by_role("list", name="Commands to copy")
    assert commands.get_by_text("canary-mw release abort checkout-2026-11", exact=True).first.is_visible()
    assert commands.get_by_role("button").count() == 0
    assert page.locator("form[method=post]").count() == 0


def test_a_rollback_comes_to_an_open_page_and_is_said_aloud(visitor: Visitor, site: Site) -> None:
    showing(site, ROLLOUTS["Progressing"])
    page, overview = visitor.open("release"), visitor.open("overview")
    page.get_by_text("Step 3 of 9: gray gets 5 %.").wait_for()
    page.locator("#state[data-state=live]").wait_for()
    overview.locator("#state[data-state=live]").wait_for()
    showing(site, ROLLED_BACK)
    page.get_by_text("Rolled back at 14:00: everybody is on stable.").wait_for()
    assert page.get_by_text("begins attempt 2 with new evidence").count() == 1
    overview.get_by_role("article", name="checkout-2026-11").get_by_text("Rolled back", exact=True).wait_for()
    overview.locator("#verdicts:not(:empty)").wait_for(state="attached")
    said = overview.get_by_role("status", name="Verdict changes").text_content()
    assert said == "checkout-2026-11: Rolled back; Gray is worse."
