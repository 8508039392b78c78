"""How queries of a release are shown: in the answer of the API, on the terminal, and on the page."""

from planned_releases import ANALYSIS, planned
from rollout_examples import answer, phase

from canary_mw.admin.pages.rollout.view import rollout_view
from canary_mw.admin.releases.rollout_metrics import queries_of
from canary_mw.cli.release.view import view
from canary_mw.rollout.queries import Measurement, QueryStanding
from canary_mw.rollout.verdict import Look
from canary_mw.rules.queries.query import Query

ASKED = Query("load", "http://p", "up", success="result[0] < 0.8", failure_limit=3)
OTHER = Query("idle", "http://p", "up", failure="result > 2", on_failure="hold")


def test_a_query_is_shown_with_its_condition_and_what_it_says() -> None:
    analysis = ANALYSIS._replace(queries=(ASKED, OTHER))
    plan = planned(analysis=analysis).plan
    look = Look(findings={}, queries=[QueryStanding(ASKED, Measurement("failed", "0.93"), 1)])
    queries = queries_of(plan, analysis, look)
    assert [(each["said"], each["failures"], each["on_failure"]) for each in queries] == [
        ("failed", 1, "rollback"),
        (None, 0, "hold"),
    ]
    shown = answer(phase("Progressing", queries=queries))
    lines = ["".join(piece.text for piece in line) for line in view(shown)]
    expected = [
        ("load", "result[0] < 0.8: fails: 0.93; failed once in this step, may 3 times"),
        ("idle", "not (result > 2): not asked by this process now"),
    ]
    assert [line for line in lines if line.startswith("Query:")] == [
        f"Query:        {name}: {text}" for name, text in expected
    ]
    page = rollout_view(shown)
    assert page is not None
    assert [fact for fact in page.facts if fact[0].startswith("Query")] == [
        (f"Query {name}", text) for name, text in expected
    ]
    assert queries_of(plan, analysis, None)[0]["text"] == "not asked by this process now"
    assert queries_of(None, None, look) == []
