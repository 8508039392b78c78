"""The benchmarks' own parts: charts, figures, and the pages that are written from them."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import results, rules, sticky
from benchmarks.bars import Bars, svg_of_bars
from benchmarks.chart import Chart, svg
from benchmarks.client import percentile
from benchmarks.report import Section
from benchmarks.results import BEGIN, END, Run
from benchmarks.rules import in_order, table, text
from benchmarks.volume import Volume
from canary_mw.control.sources.file import FileSource
from canary_mw.control.store import RuleStore
from canary_mw.http.messages import RequestHead
from canary_mw.routing.decision import decide
from canary_mw.routing.table import RouteTable

RUN = Run("2026-11-22 19:35 UTC", "python -m benchmarks", 0.5, "2 cores", "nginx 1.22.1")
LATER = Run("2026-11-23 08:00 UTC", "python -m benchmarks --row P2", 0.1, "4 cores", "nginx 1.22.1")
NAMESPACE = "{http://www.w3.org/2000/svg}"


def chart(high: float = 90.0) -> Chart:
    lines = {"ours": [(1.0, 80.0), (32.0, high)], "A & B": [(1.0, 70.0), (32.0, high)]}
    return Chart("growth-test", "Cost", "connections", "CPU", lines, {"1": 1, "32": 32})


def section(name: str, value: float) -> Section:
    found = Section(name, "a row", ["A note."], table=[("server", "us"), ("ours", "1.0")], charts=[chart()])
    found.at_most("ratio", [value, value + 1, value + 2], 3, "x")
    return found


def test_a_verdict_is_met_missed_or_not_measured() -> None:
    found = Section("P1", "a row")
    found.at_most("small", [1.0, 2.0, 9.0], 2, "x")
    found.at_least("large", [1.0, 2.0, 9.0], 3, "x")
    found.at_most("absent", [], 3, "x")
    found.figure("told", [5.0], "us")
    assert [verdict.word for verdict in found.verdicts] == ["met", "**missed**", "**not measured**", ""]
    assert found.verdicts[0].figure == "2.0 (1.0-9.0) x"
    assert not found.complete


def test_a_figure_without_target_leaves_a_section_complete() -> None:
    found = section("P1", 1)
    found.figure("told", [5.0], "us")
    assert found.complete


@pytest.mark.parametrize("high", [90.0, 9000.0])
def test_a_chart_is_well_formed_and_draws_every_point(high: float) -> None:
    root = ElementTree.fromstring(svg(chart(high)))
    lines = root.findall(f"{NAMESPACE}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [2, 2]
    labels = ["".join(each.itertext()) for each in root.findall(f"{NAMESPACE}text")]
    assert {"Cost", "CPU", "connections", "1", "32", f"ours {high:,.0f}", f"A & B {high:,.0f}"} <= set(labels)


def test_bars_are_well_formed_and_as_long_as_their_values() -> None:
    bars = Bars("cost-test", "Cost", "CPU", {"bare": {"ours": 50.0, "A & B": 100.0}, "full": {"ours": 25.0}})
    root = ElementTree.fromstring(svg_of_bars(bars))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    drawn = [each.attrib for each in root.findall(f"{NAMESPACE}rect") if "fill" in each.attrib]
    lengths = [float(each["width"]) for each in drawn]
    assert [length / lengths[1] for length in lengths] == pytest.approx([0.5, 1.0, 0.25], abs=0.01)
    assert all(float(each["x"]) + float(each["width"]) < width for each in drawn)
    assert all(float(each["y"]) + float(each["height"]) < height for each in drawn)
    labels = ["".join(each.itertext()) for each in root.findall(f"{NAMESPACE}text")]
    assert {"Cost", "CPU", "bare", "full", "ours", "A & B", "100"} <= set(labels)


def test_bars_are_kept_beside_charts(tmp_path: Path) -> None:
    page = tmp_path / "docs"
    page.mkdir()
    bars = Bars("cost-test", "Cost", "CPU", {"bare": {"ours": 50.0}})
    found = Section("P6N", "a row", charts=[chart(), bars])
    results.write(tmp_path, page, {"P6N": (RUN, found)})
    assert results.read(tmp_path)["P6N"][1].charts[1] == bars
    assert sorted(each.name for each in page.iterdir()) == ["cost-test.svg", "growth-test.svg"]


@pytest.mark.parametrize("high", [90.0, 9000.0])
def test_all_of_a_chart_is_inside_its_frame_and_labels_do_not_overlap(high: float) -> None:
    root = ElementTree.fromstring(svg(chart(high)))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for point in root.findall(f"{NAMESPACE}circle"):
        assert 0 < float(point.attrib["cx"]) < width
        assert 0 < float(point.attrib["cy"]) < height
    names = [each for each in root.findall(f"{NAMESPACE}text") if each.text and each.text.startswith(("ours", "A &"))]
    heights = [float(each.attrib["y"]) for each in names]
    assert abs(heights[0] - heights[1]) >= 13


def test_results_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    written = {"P1": (RUN, section("P1", 1)), "P2": (LATER, section("P2", 4))}
    results.write(tmp_path, tmp_path, written)
    again = results.read(tmp_path)
    assert list(again) == ["P1", "P2"]
    results.write(tmp_path, tmp_path, again)
    assert results.markdown(list(again.values())) == results.markdown(list(written.values()))
    assert (tmp_path / "growth-test.svg").read_text(encoding="utf-8") == svg(chart())
    assert len(json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))) == 2


def test_the_report_names_each_target_its_verdict_and_where_a_row_was_measured() -> None:
    report = results.markdown([(RUN, section("P1", 1)), (LATER, section("P2", 4))])
    assert "| P1 | ratio | <= 3 x | 2.0 (1.0-3.0) x | met |" in report
    assert "| P2 | ratio | <= 3 x | 5.0 (4.0-6.0) x | **missed** |" in report
    before, _, second = report.partition("## P2")
    # The newest place is told once, at the top; a row from another place tells its own.
    assert before.count("on 4 cores") == 1
    assert before.count("on 2 cores") == 1
    assert "`python -m benchmarks --row P2`, 2026-11-23 08:00 UTC" in second
    assert "on 4 cores" not in second


def test_a_page_gets_new_figures_between_its_marks_and_keeps_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Head\n\n{BEGIN}\nold\n{END}\n\nfoot\n", encoding="utf-8")
    results.write(tmp_path, tmp_path, {"P1": (RUN, section("P1", 1))})
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert "| P1 | ratio |" in text
    assert text.startswith("# Head\n\n")
    assert text.endswith(f"{END}\n\nfoot\n")


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="lost its marks"):
        results.replaced("no marks", "figures")


def test_the_page_of_the_documentation_has_the_marks() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "performance.md"
    assert "figures" in results.replaced(page.read_text(encoding="utf-8"), "figures")


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 99) == 100.0
    assert percentile(values, 50) == 51.0
    assert percentile([7.0], 99) == 7.0


def test_peers_get_the_routes_in_our_order() -> None:
    assert [rule.name for rule in in_order(6)] == [group.first.name for group in table(6).groups]
    assert text(6).count("kind: Mapping") == 6


def test_a_release_of_the_benchmarks_decides_in_every_group() -> None:
    text = sticky.pairs(3, 0) + sticky.release(3, "sticky: {header: x-user-id}\n")
    routes = RouteTable.from_yaml(text)
    release = routes.releases["bench"]
    for number in range(3):
        for user in ("user-1", "user-2", "user-3", "user-4", "user-5"):
            decision = decide(routes, RequestHead("GET", rules.prefix(number), [("x-user-id", user)]), 0.0)
            assert decision is not None
            variant = release.variant_of(user)
            assert decision.mapping.name == f"{variant}-{number:05}"


def test_a_swap_of_the_volume_changes_one_rule(tmp_path: Path) -> None:
    volume = Volume(tmp_path / "volume", 1_200)
    store = RuleStore(FileSource(volume.root), environ={})
    store.reload()
    before = store.table.mappings
    assert len(before) == 1_200
    link = volume.prepare(2, "gray")
    assert not store.reload()
    volume.swap(link)
    assert store.reload()
    changed = [
        (one.name, two.service.text) for one, two in zip(before, store.table.mappings, strict=True) if one != two
    ]
    assert changed == [("svc-00001-stable", "gray")]
