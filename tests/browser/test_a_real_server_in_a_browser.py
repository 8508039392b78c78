"""The pages of `canary-mw serve`, as a browser shows them, with requests that really went somewhere."""

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from admin_thread import served_in_thread
from page_visits import AXE, CHROMIUM, PATHS, Site, Visitor
from servers import free_port, hello, mapping, process

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is found: .ci/run installs it, as root"),
]

RELEASE = """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: checkout-2026-11
gray: {gray: {mappings: [checkout-gray], weight: 50}}
sticky: {header: x-user-id}
fallback: {}
"""
# Nobody listens there: gray fails, and so does stable.
RULES = (
    mapping("checkout", "/checkout/", "127.0.0.1:1")
    + mapping("checkout-gray", "/checkout/", "127.0.0.1:2", weight=0)
    + mapping("wrong", "/wrong/", "shop", weight="much")
    + RELEASE
)


class Server(NamedTuple):
    """A server, its rules and its pages."""

    port: int
    rules: Path
    site: Site


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of two workers that has answered twenty requests."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    port, admin = free_port(), free_port()
    command = ("serve", "--rules", str(rules), "--port", str(port), "--admin-port", str(admin), "--workers", "2")
    with process(*command, log=tmp_path / "log", wait_for=[port, admin]):
        for user in range(20):
            ask(port, "/checkout/pay?step=2", user)
        yield Server(port, rules, Site(f"http://127.0.0.1:{admin}"))


def ask(port: int, target: str, user: int, *statuses: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", target, headers={"x-user-id": str(user)})
    assert connection.getresponse().status in (statuses or (503,))
    connection.close()


def test_each_page_of_a_server_is_shown_without_a_fault(browser: "Browser", server: Server) -> None:
    visitor = Visitor(browser, server.site)
    for name in PATHS:
        page = visitor.open(name, bypass_csp=True)
        assert page.get_by_role("heading", level=1).count() == 1
        page.get_by_role("contentinfo").get_by_text("live on 2 of 2 workers").wait_for()
        page.locator("#state[data-state=live]").wait_for()
        page.add_script_tag(path=AXE)
        found = page.evaluate("axe.run().then(result => result.violations)")
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == [], name
        page.context.close()
    visitor.close()
    assert (visitor.seen.told, visitor.seen.outside) == ([], [])


def test_a_request_leads_to_its_explanation_and_a_finding_to_its_line(browser: "Browser", server: Server) -> None:
    visitor = Visitor(browser, server.site)
    page = visitor.open("traffic")
    row = page.get_by_role("table", name="The last decisions, newest first").get_by_role("row").nth(1)
    assert "GET /checkout/pay" in row.inner_text()
    row.get_by_role("link").click()
    assert page.get_by_label("URL").input_value().endswith("/checkout/pay?step=")
    assert page.get_by_role("region", name="Decision").get_by_role("list", name="Steps").count() == 1
    page.get_by_label("Headers").fill("x-user-id: 7")
    page.get_by_role("button", name="Explain").click()
    page.get_by_role("img", name="lies at").wait_for()
    page.get_by_role("link", name="checkout-2026-11").first.click()
    assert page.title() == "checkout-2026-11 · Release · canary-mw"
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Rules").click()
    assert page.get_by_role("region", name="Problems").get_by_role("article").count() == 1
    assert page.get_by_role("region", name="Problems").locator("mark").inner_text().strip() == "weight: much"
    visitor.close()
    assert (visitor.seen.told, visitor.seen.outside) == ([], [])


def test_what_happens_is_shown_while_a_person_types(browser: "Browser", server: Server) -> None:
    visitor = Visitor(browser, server.site)
    page = visitor.open("traffic")
    page.get_by_label("Find").fill("half a wo")
    ask(server.port, "/checkout/other", 3)
    page.get_by_text("GET /checkout/other").first.wait_for()
    assert page.get_by_label("Find").input_value() == "half a wo"
    page = visitor.open("reloads")
    server.rules.write_text(RULES.replace("weight: 50", "weight: 60"))
    page.get_by_role("article", name="Rules 2").get_by_text("live on 2 of 2 workers").wait_for()
    assert page.get_by_role("article", name="Rules 2").locator("li.good").inner_text().endswith("weight: 60}}")
    visitor.close()
    assert (visitor.seen.told, visitor.seen.outside) == ([], [])


STEPS = """\
---
apiVersion: canary-mw/v1
kind: GrayRelease
name: checkout-2026-11
gray: {gray: {mappings: [checkout-gray]}}
sticky: {header: x-user-id}
steps: [{setWeight: 50}, {pause: {duration: 1h}}, {setWeight: 100}]
analysis: {metrics: [{name: error_rate}]}
fallback: {}
"""


def test_a_release_takes_itself_back_before_the_eyes_of_who_looks(browser: "Browser", tmp_path: Path) -> None:
    rules, port, admin = tmp_path / "rules.yaml", free_port(), free_port()
    with served_in_thread(hello) as stable:
        # Nobody listens where gray should be.
        rules.write_text(
            mapping("checkout", "/checkout/", f"127.0.0.1:{stable}")
            + mapping("checkout-gray", "/checkout/", "127.0.0.1:2", weight=0)
            + STEPS
        )
        state = ("--state", str(tmp_path / "state"))
        command = ("serve", "--rules", str(rules), "--port", str(port), "--admin-port", str(admin), "--workers", "2")
        with process(*command, *state, log=tmp_path / "log", wait_for=[port, admin]):
            visitor = Visitor(browser, Site(f"http://127.0.0.1:{admin}"))
            page, overview = visitor.open("release"), visitor.open("overview")
            page.get_by_text("Step 1 of 3: gray gets 50 %.").wait_for()
            for user in range(60):
                # Stable answers in place of gray for a part of them.
                ask(port, "/checkout/", user, 200, 503)
            page.get_by_text("everybody is on stable.").wait_for()
            page.get_by_role("list", name="Commands to copy").get_by_text("begins attempt 2").wait_for()
            assert page.get_by_role("table", name="What happened").get_by_text("RolledBack").count() == 1
            overview.get_by_role("heading", name="checkout-2026-11 needs you: it was rolled back.").wait_for()
            visitor.close()
    assert (visitor.seen.told, visitor.seen.outside) == ([], [])
