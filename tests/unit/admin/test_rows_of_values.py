"""How metrics of values are named where they are shown."""

import pytest

from canary_mw.admin.releases.rollout_metrics import metrics_of
from canary_mw.rollout.findings import Metric, MetricEvidence, StepCounts, find
from canary_mw.rollout.statistics import Arm
from canary_mw.rollout.verdict import Look
from canary_mw.rules.plan import Analysis, MetricRule

COUNTS = StepCounts(Arm(1, 10), Arm(2, 90), 10, 1, 90, 2)


@pytest.mark.parametrize(
    ("rule", "titles"),
    [
        (MetricRule("basket", "value", quantiles=(0.5, 0.9)), ["basket p50", "basket p90"]),
        (MetricRule("basket", "value", threshold=12.5), ["basket 12.5"]),
        (MetricRule("basket", "event"), ["basket"]),
    ],
)
def test_a_row_of_a_value_has_its_quantile_or_its_threshold(rule: MetricRule, titles: list[str]) -> None:
    evidence = [MetricEvidence(Metric(name="basket", kind=rule.kind), [()] * len(titles), [COUNTS] * len(titles))]
    look = Look(findings={"gray": find(evidence)}, evidence={"gray": evidence})
    rows = metrics_of(Analysis((rule,)), look)
    assert [(each["title"], each["threshold_ms"]) for each in rows] == [(title, None) for title in titles]
