"""What the API says of releases, from recorded figures."""

import json
import re
from html import escape, unescape
from typing import Any

import httpx
import pytest
from admin_client import GOOD, admin, fetch_app, validated
from admin_examples import HOSTILE
from recorded_figures import (
    NOW,
    counted_since,
    evidence,
    figures,
    recent,
    release_figures,
    reload,
    snapshot,
    steady,
    worker,
)
from servers import mapping, run

from canary_mw.observability.figures.values import (
    CounterHistory,
    Figures,
    History,
    ReloadRecord,
    RowKey,
    SeriesKey,
    Snapshot,
)

WEIGHTS = '{"stable": 80, "gray": 20}'
FAILING = evidence(WEIGHTS, stable=(8000, 7900, 20), gray=(2000, 1900, 60))


def answered(path: str, found: Figures, text: str = GOOD, *, described: str | None = None, **options: Any) -> Any:
    """The answer of the API about some rules and figures."""

    async def main() -> Any:
        app = admin(text, read_figures=lambda: found, clock=lambda: NOW, **options)
        answer = await fetch_app(app, path)
        assert answer.status == 200, answer.body
        return validated(answer, described or path.partition("?")[0])

    return run(main())


def overview(found: Figures, text: str = GOOD, query: str = "") -> Any:
    return answered(f"/api/v1/overview{query}", found, text)


def release(found: Figures, text: str = GOOD, name: str = "shop") -> Any:
    return answered(f"/api/v1/releases/{name}", found, text, described="/api/v1/releases/{name}")


def test_a_gray_that_fails_comes_first_with_what_to_do() -> None:
    found = release_figures(steady(800, 3), steady(200, 6, 4), FAILING)
    answer = overview(found)
    assert answer["finding"] == "shop needs you: gray is failing."
    assert answer["summary"].startswith("1 of 2 releases needs a look, 1 does not.")
    shop, split = answer["releases"]
    assert (shop["name"], split["name"]) == ("shop", "a")
    verdict = shop["verdict"]
    assert (verdict["state"], verdict["label"]) == ("worse", "Gray is worse")
    assert verdict["headline"] == "Gray fails more often: 3.0 % of its requests against 0.4 %."
    assert "Stable stepped in for 20 of the 30 failures, so clients saw 10." in verdict["details"]
    assert verdict["sentence"] == f"{verdict['headline']} {verdict['details']}"
    line = GOOD.splitlines().index("gray: {gray: 20}") + 1
    assert verdict["what_to_do"] == f"take gray back: gray: {{gray: 0}} in rules:{line}."
    assert verdict["source"] == {"file": "rules", "line": line}
    assert verdict["ln_e"] > 4.6
    assert len(shop["series"]["gray"]["errors"]) == 60
    assert shop["difference"]["error_rate"]["low"] > 0


def test_the_figures_of_a_window_are_those_of_its_requests() -> None:
    for query, seconds in (("?window=1m", 60), ("", 300), ("?window=15m", 900), ("?window=1h", 3600)):
        answer = overview(release_figures(steady(800, 8), steady(200)), query=query)
        assert answer["window"]["seconds"] == seconds
        shop = answer["releases"][0] if answer["releases"][0]["name"] == "shop" else answer["releases"][1]
        minutes = seconds // 60
        assert shop["requests"] == answer["totals"]["requests"] == 1000 * minutes
        assert shop["variants"]["stable"]["requests"] == 800 * minutes
        assert shop["variants"]["stable"]["errors"] == answer["totals"]["errors"] == 8 * minutes
        assert shop["variants"]["gray"]["rps"] == pytest.approx(200 / 60, abs=0.001)
        assert (shop["seen"], shop["seen_percent"]) == ({"stable": 80.0, "gray": 20.0}, 20.0)
        assert answer["totals"]["gray_share"] == 0.2
        rate = shop["variants"]["stable"]["error_rate"]
        assert rate["low"] < rate["value"] == 0.01 < rate["high"]
        assert shop["variants"]["gray"]["p95_ms"]["value"] == pytest.approx(100, rel=0.05)
        assert shop["variants"]["gray"]["status"] == {"2xx": 200 * minutes, "3xx": 0, "4xx": 0, "5xx": 0, "none": 0}


def test_the_first_requests_of_a_release_count_before_it_has_a_history() -> None:
    young = History(now=snapshot(50)), History(now=snapshot(10, 2))
    rows = release_figures(*young).rows
    for found in (
        # The pod has begun with them, or the release has.
        release_figures(*young, workers=(worker(1)._replace(start=NOW - 4),)),
        release_figures(*young, counter_history=CounterHistory({int(NOW) - 3: {}})),
    ):
        shop = next(each for each in overview(found)["releases"] if each["name"] == "shop")
        assert shop["requests"] == 60
        assert shop["variants"]["gray"]["errors"] == 2
    # Others have taken its slots: when its requests came is not known.
    taken = {int(NOW) - 3: {key: row.requests for key, row in rows.items()}}
    found = release_figures(*young, counter_history=CounterHistory(taken))
    assert next(each for each in overview(found)["releases"] if each["name"] == "shop")["requests"] == 0


@pytest.mark.parametrize(
    ("stable", "gray", "state"),
    [
        (steady(8000, 80), steady(2000, 20), "same"),
        (steady(80), steady(8), "not_enough"),
        (steady(0), steady(0), "not_enough"),
    ],
)
def test_a_release_that_needs_nobody_has_no_series_and_nothing_to_do(stable: Any, gray: Any, state: str) -> None:
    answer = overview(release_figures(stable, gray))
    assert answer["finding"] == "No release needs you."
    shop = next(each for each in answer["releases"] if each["name"] == "shop")
    assert shop["verdict"]["state"] == state
    assert shop["verdict"]["what_to_do"] == ""
    assert shop["series"] is None


def test_a_release_of_weight_0_is_off_and_the_last_one() -> None:
    found = release_figures(steady(800), steady(0))
    answer = overview(found, GOOD.replace("gray: {gray: 20}", "gray: {gray: 0}"))
    assert [each["name"] for each in answer["releases"]] == ["a", "shop"]
    shop = answer["releases"][1]
    assert shop["verdict"]["sentence"] == "Off: gray's weight is 0. No gray request yet."
    assert (shop["weights"], shop["last_gray"]) == ({"stable": 100.0, "gray": 0.0}, None)


def test_a_group_with_a_gray_mapping_is_a_release_by_the_name_of_its_stable_one() -> None:
    found = release_figures(
        steady(800, 3), steady(200, 6), evidence(WEIGHTS, stable=(8000, 7900, 20), gray=(2000, 1900, 60)), "a"
    )
    text = mapping("a", "/split/", "a") + mapping("b", "/split/", "b", weight=20)
    (only,) = overview(found, text)["releases"]
    assert (only["name"], only["document"], only["weights"]) == ("a", False, {"stable": 80.0, "gray": 20.0})
    assert only["services"] == ["a", "b"]
    line = text.splitlines().index("  weight: 20") + 1
    assert only["verdict"]["what_to_do"] == f"take gray back: weight: 0 in rules:{line}."


def test_several_gray_variants_have_a_sentence_each_and_the_worst_counts() -> None:
    text = (
        mapping("stable", "/shop/", "shop-stable")
        + mapping("v2", "/shop/", "shop-v2", weight=0)
        + mapping("v3", "/shop/", "shop-v3", weight=0)
        + "---\napiVersion: canary-mw/v1\nkind: GrayRelease\nname: shop\ngray: {v2: 10, v3: 10}\nsticky: {header: k}\n"
    )
    histories = {
        SeriesKey("shop", "stable"): steady(800, 3),
        SeriesKey("shop", "v2"): steady(100),
        SeriesKey("shop", "v3"): steady(100, 6),
    }
    failing = evidence(
        '{"stable": 80, "v2": 10, "v3": 10}', stable=(8000, 7900, 20), v2=(1000, 990, 1), v3=(1000, 900, 60)
    )
    (only,) = overview(figures(histories=histories, evidence={"shop": failing}), text)["releases"]
    assert only["verdict"]["variant"] == "v3"
    assert only["verdict"]["label"] == "v3 is worse"
    assert only["verdicts"]["v3"]["headline"].startswith("v3 fails more often")
    assert only["verdicts"]["v2"]["state"] != "worse"
    assert only["difference"] == only["differences"]["v3"]


def test_without_releases_the_overview_says_so() -> None:
    answer = overview(figures(), mapping("a", "/a/", "a"))
    assert (answer["finding"], answer["releases"]) == ("There is no release.", [])
    assert answer["totals"] == {
        "requests": 0,
        "rps": 0.0,
        "gray_share": None,
        "errors": 0,
        "error_rate": None,
        "p95_ms": None,
    }


def test_workers_that_are_behind_or_silent_are_named() -> None:
    workers = (worker(1, "new", NOW - 5), worker(2, "old", NOW - 60), worker(3, "new", NOW - 4, heard=60))
    answer = overview(figures(workers=workers, skipped=("4: another format",)))
    assert answer["scope"]["workers"] == 3
    assert answer["scope"]["reporting"] == 2
    assert (answer["scope"]["behind"], answer["scope"]["silent"]) == ([2], [3])
    assert not answer["scope"]["complete"]
    assert answer["rules"]["workers_on_it"] == 2


def test_one_release_shows_why_requests_went_where_they_did_and_what_fails() -> None:
    counters = {
        ("assignments", "shop", "gray", "sticky"): 900,
        ("assignments", "shop", "stable", "sticky"): 4000,
        ("assignments", "shop", "gray", "choice:header"): 7,
        ("assignments", "other", "gray", "sticky"): 5,
        ("gray_failures", "shop", "gray", "503"): 25,
        ("gray_failures", "shop", "gray", "timeout"): 5,
    }
    found = release_figures(
        steady(800),
        steady(200, 6, 4),
        counters=counters,
        counter_history=counted_since({("assignments", "shop", "gray", "sticky"): 100}),
    )
    answer = release(found)
    assert [(each["reason"], each["title"], each["requests"]) for each in answer["reasons"]] == [
        ("sticky", "Sticky key", {"gray": 800, "stable": 4000}),
        ("choice:header", "Choice", {"gray": 7}),
    ]
    assert [each["detail"] for each in answer["reasons"]] == ["header:x-user-id", "header x-gray"]
    assert [(each["kind"], each["text"], each["count"]) for each in answer["failures"]] == [
        ("503", "503 sent by shop-gray", 25),
        ("timeout", "no answer of shop-gray in time", 5),
    ]
    assert answer["clients_saw"]["text"] == "Clients saw 10 of these 30. Stable answered the other 20."
    assert [each["status"] for each in answer["answers"]] == ["2xx", "5xx", "503"]
    assert len(answer["quarters"]) == 4
    assert answer["quarters"][1]["variants"]["gray"]["requests"] == 200 * 15


def test_one_release_shows_who_gets_gray_and_where_it_is_written() -> None:
    answer = release(release_figures(steady(800), steady(200)))
    assert [(each["name"], each["text"]) for each in answer["choice"]["steps"]] == [
        ("choice", "Header x-gray"),
        ("sticky", "header:x-user-id; without a key stable answers"),
        (
            "fallback",
            "A gray try that ends in connect, overload, reset, timeout, 502, 503, 504 is answered by stable; at most"
            " 20 % of the requests",
        ),
    ]
    assert answer["choice"]["ring"]["ranges"] == {"gray": [[0, 200_000]]}
    assert [(each["kind"], each["name"], each["variant"]) for each in answer["rules"]] == [
        ("GrayRelease", "shop", None),
        ("Mapping", "stable", "stable"),
        ("Mapping", "gray", "gray"),
    ]
    texts = [line["text"] for line in answer["rules"][0]["excerpt"]]
    assert "gray: {gray: 20}" in texts
    assert "  service: shop-gray" not in texts
    assert "Bearer" not in json.dumps(answer)


def test_the_changes_of_a_release_are_those_that_reloads_tell() -> None:
    reloads = (
        reload(1, NOW - 600, "c2", "GrayRelease shop: gray 10 % to 20 %", generation=2),
        reload(2, NOW - 599, "c2", "GrayRelease shop: gray 10 % to 20 %", generation=2),
        reload(1, NOW - 7200, "c1", "GrayRelease shop is added: gray 10 %", "GrayRelease other is removed"),
    )
    answer = release(release_figures(steady(800, 3), steady(200, 6), FAILING, reloads=reloads))
    assert [(each["generation"], each["text"]) for each in answer["changes"]] == [
        (2, "gray 10 % to 20 %"),
        (1, "is added: gray 10 %"),
    ]
    assert [(each["kind"], each["text"]) for each in answer["events"]] == [("weight", "weight 10 → 20")]
    assert answer["choice"]["ring"]["before"] == [100_000]


def test_a_release_that_is_not_there_is_an_error() -> None:
    async def main() -> None:
        app = admin(GOOD)
        for path in ("/api/v1/releases/none", "/api/v1/releases/a/b", "/ambassador/v0/diag/releases/none?json=true"):
            answer = await fetch_app(app, path)
            assert answer.status == 404
            assert json.loads(answer.body)["error"]["code"] == "unknown-release"
        answer = await fetch_app(app, "/api/v1/overview?window=2m")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "bad-window")

    run(main())


def test_rules_tell_their_requests_and_the_last_one() -> None:
    found = release_figures(
        steady(800),
        steady(200),
        counter_history=counted_since({RowKey("shop", "gray", "shop-gray", "gray", True): 11_000}),
        recent=(recent(NOW - 2, mapping="beta"),),
    )
    rules = {each["name"]: each for each in answered("/api/v1/rules", found)["rules"]}
    assert rules["stable + gray"]["requests"] == 48_800 + 1_200
    assert rules["stable + gray"]["ever"] == 48_800 + 12_200
    assert rules["stable + gray"]["last_hit"] is not None
    assert (rules["wide"]["requests"], rules["wide"]["ever"], rules["wide"]["last_hit"]) == (0, 0, None)
    assert rules["beta"]["last_hit"] == "2026-11-27T14:05:58.000Z"


def test_traffic_is_filtered_and_leads_to_explain() -> None:
    failed = {"release": "shop", "mapping": "gray", "service": "shop-gray", "variant": "gray", "reason": "sticky"}
    found = figures(
        recent=(
            recent(NOW - 1, f"/shop/{HOSTILE}", query="a=", **failed, fallback="503"),
            recent(NOW - 2, "/shop/", mapping="stable", service="shop-stable", variant="stable", release="shop"),
            recent(NOW - 3, "/none/", status=404),
            recent(NOW - 4, "/split/", mapping="b", service="b", variant="gray", release="a", status=503, failed=True),
        )
    )

    def listed(query: str = "") -> list[str]:
        return [each["target"] for each in answered(f"/api/v1/traffic{query}", found)["requests"]]

    assert listed() == [f"/shop/{HOSTILE}?a=", "/shop/", "/none/", "/split/"]
    assert listed("?release=shop") == [f"/shop/{HOSTILE}?a=", "/shop/"]
    assert listed("?variant=gray") == [f"/shop/{HOSTILE}?a=", "/split/"]
    assert listed("?outcome=failed") == ["/split/"]
    assert listed("?outcome=fallback&q=SHOP-gray") == [f"/shop/{HOSTILE}?a="]
    first, _, third, _ = answered("/api/v1/traffic", found)["requests"]
    assert (first["because"], first["outcome"]) == ("Sticky key", "fallback")
    assert (third["because"], third["variant"]) == ("No rule", None)
    explained = answered(f"/api/v1/explain?{third['explain']}", found, described="/api/v1/explain")
    assert explained["request"]["url"] == "http://shop.example/none/"


def test_reloads_of_all_workers_are_joined_by_what_they_read() -> None:
    reloads = (
        reload(1, NOW - 10, "c2", "a changed", generation=5),
        reload(2, NOW - 9.9, "c2", "a changed", generation=4),
        reload(1, NOW - 60, "c1", generation=4, error="rules:14: weight 120 is above 100"),
        reload(9, NOW - 90, "c0", "a changed"),
    )
    only_a_weight = reload(1, NOW - 120, "c9", "GrayRelease shop: gray 10 % to 20 %")._replace(counts=(0, 0, 0))
    answer = answered("/api/v1/reloads", figures(reloads=(*reloads, only_a_weight)))
    assert [(each["title"], each["live_on"], each["workers"]) for each in answer["reloads"]] == [
        ("Rules 5", 2, 2),
        ("Rules 4 stay: a change was refused", 1, 2),
        ("Rules 1", 0, 2),
        ("Rules 1", 1, 2),
    ]
    assert answer["reloads"][3]["text"] == "GrayRelease shop: gray 10 % to 20 %"
    assert answer["reloads"][0]["text"] == "1 rule changed; 2 in all."
    assert answer["reloads"][1]["error"] == "rules:14: weight 120 is above 100"
    assert answer["finding"] == "Rules 1 are live everywhere."
    assert "from the first worker to the last 100 ms" in answer["summary"]
    behind = answered("/api/v1/reloads", figures(reloads=reloads[:1]))
    assert behind["finding"] == "Rules 1 are live on 1 of 2 workers."


def test_a_reload_tells_what_it_did_to_the_traffic_as_far_as_that_is_known() -> None:
    def rising(before: int, after: int, errors: int, change: int) -> History:
        """A history whose rate a minute is another one since the change."""

        def at(tick: int) -> Snapshot:
            earlier, later = (min(tick, change) - NOW) / 60 + 61, max(tick - change, 0) / 60
            return snapshot(int(before * earlier + after * later), int(errors * later))

        ticks = range(int(NOW) - 300, int(NOW) + 1, 5)
        return History(at(int(NOW)), {tick: at(tick) for tick in ticks}, {})

    change = int(NOW) - 100
    found = {
        SeriesKey(): rising(6000, 6000, 120, change),
        SeriesKey("shop", "stable"): rising(5400, 4800, 0, change),
        SeriesKey("shop", "gray"): rising(600, 1200, 120, change),
    }
    changed = reload(1, change, "c2", "GrayRelease shop: gray 10 % to 20 %")
    refused = reload(1, NOW - 50, "c2", error="rules:14: weight 120 is above 100")
    early, young = reload(1, NOW - 3000, "c0", "a changed"), reload(1, NOW, "c3", "a changed")

    def effects(*records: ReloadRecord) -> list[str | None]:
        answer = answered("/api/v1/reloads", figures(histories=found, reloads=records))
        return [each["effect"] for each in answer["reloads"]]

    since = "Of all requests 0.00 % failed in the 3 minutes before, and 2.00 % in the 100 seconds since."
    assert effects(refused, changed, early) == [
        None,
        f"{since} shop: gray got 10.0 % before, and 20.0 % after it.",
        None,
    ]
    other = changed._replace(lines=("a changed",))
    assert effects(young, other) == [
        None,
        since.replace("since.", "after."),
    ]
    assert effects(reload(1, NOW - 20, "c3", "a changed"), other)[1] == since.replace(
        "100 seconds since", "80 seconds after"
    )


def test_figures_are_the_raw_counts() -> None:
    found = release_figures(steady(800), steady(200), counters={("assignments", "shop", "gray", "sticky"): 9})
    answer = answered("/api/v1/figures", found)
    assert [(each["variant"], each["requests"]) for each in answer["rows"]] == [("gray", 12_200), ("stable", 48_800)]
    assert answer["reasons"] == [{"release": "shop", "variant": "gray", "reason": "sticky", "requests": 9}]


@pytest.mark.parametrize("name", [".", "..", "...", "a/..", "a/b c?&=#%2F", "灰度"])
def test_the_links_to_a_release_lead_to_it_whatever_its_name_is(name: str) -> None:
    root = "http://localhost/ambassador/v0/diag/"

    async def main() -> None:
        # A group that no GrayRelease governs has the name of its stable Mapping, which may be any text.
        text = mapping("stable", "/split/", "a").replace("name: stable", f"name: {json.dumps(name)}")
        app = admin(text + mapping("b", "/split/", "b", weight=20), clock=lambda: NOW)
        shown = (await fetch_app(app, root)).body.decode()
        (link,) = {unescape(each) for each in re.findall(r'href="([^"]*/releases/[^"]*)"', shown)}
        # Browsers take steps out of a path, also where they are encoded.
        page = await fetch_app(app, httpx.URL(root).join(link.replace("%2E", ".")).raw_path.decode())
        assert (page.status, f"<title>{escape(name)} · Release" in page.body.decode()) == (200, True)
        windows = re.findall(r'href="([^"]*/releases/[^"]*window=15m)"', page.body.decode())
        assert (await fetch_app(app, unescape(windows[0]))).body.count(b'aria-current="true">15 min') == 1
        stream = re.findall(r'"([^"]*/events\?[^"]*)"', page.body.decode())
        assert (await fetch_app(app, f"{unescape(stream[0])}&once=1")).status == 200

    run(main())
