"""Releases with steps as values, for tests of what drives and shows them."""

from typing import Any

from canary_mw.rules.plan import Analysis, Hook, MetricRule, Plan, Stage
from canary_mw.rules.release import GrayRelease, HashFunction, KeyExpression, ReleaseVariant

ANALYSIS = Analysis(
    (MetricRule("error_rate", "error_rate"), MetricRule("latency", "latency", quantiles=(0.95, 0.99), margin=0.02))
)


def planned(*hooks: Hook, weights: tuple[float, ...] = (5.0, 25.0, 100.0), **changes: Any) -> GrayRelease:
    """A release "shop" with a step for each weight.

    Args:
        changes: of the plan, or `enabled` and `revision` of the release.
    """
    of_release = {name: changes.pop(name) for name in ("enabled", "revision", "namespace") if name in changes}
    pause, until, analysis = (
        changes.pop("pause", 600.0),
        changes.pop("until_promoted", False),
        changes.pop("analysis", None),
    )
    stages = tuple(
        Stage({"gray": weight}, pause if weight < 100 else 0.0, until, analysis, 2 * number + 1)
        for number, weight in enumerate(weights)
    )
    plan = Plan(stages=stages, items=2 * len(stages), shares=(("gray", 1.0),), hooks=hooks, **changes)
    return GrayRelease(
        name="shop",
        variants=(ReleaseVariant(name="gray", mappings=("gray",)),),
        hash=HashFunction("sha256", "shop"),
        lane="shop",
        sticky=(KeyExpression("header", "x-user-id"),),
        plan=plan,
        **of_release,
    )
