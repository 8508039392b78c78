"""How far releases with steps are, as metrics: by the state that all processes share, as the last look found it."""

from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Dict

from prometheus_client.core import GaugeMetricFamily, Metric

from canary_mw.observability.attempts.driven import Driven
from canary_mw.observability.evidence import Evidence
from canary_mw.rollout.state import PHASES, ReleaseState
from canary_mw.rollout.verdict import Look, step_bound


def rollout_families(driven: Driven, evidence: Dict[str, Evidence]) -> Iterator[Metric]:
    """All of them; without samples where no release has steps."""
    states = [(each.name, each.state, each.look) for each in driven.standings if each.state is not None]
    yield _phases(states)
    yield _steps(states)
    yield _bounds(states)
    yield _keys({name: evidence[name] for name, _, _ in states if name in evidence})
    controller = GaugeMetricFamily(
        "canary_mw_release_controller", "1 while a process of this host raises the releases with steps.", labels=()
    )
    if driven.controlled is not None:
        controller.add_metric((), int(driven.controlled))
    yield controller


_States = Iterable[tuple[str, ReleaseState, Look | None]]


def _phases(states: _States) -> Metric:
    family = GaugeMetricFamily(
        "canary_mw_release_phase", "1 for the phase of a release with steps.", labels=("release", "phase")
    )
    for name, state, _ in states:
        for phase in PHASES:
            family.add_metric((name, phase), int(phase == state.phase))
    return family


def _steps(states: _States) -> Metric:
    family = GaugeMetricFamily(
        "canary_mw_release_step", "Number of the weight in force among those of the steps, from 1.", labels=("release",)
    )
    for name, state, _ in states:
        family.add_metric((name,), 0 if state.phase in ("Pending", "Manual") or state.latched else state.step + 1)
    return family


def _bounds(states: _States) -> Metric:
    family = GaugeMetricFamily(
        "canary_mw_release_excess_upper",
        "How much more often gray fails at most, 0 to 1, in this step; of several variants and thresholds the most.",
        labels=("release", "metric"),
    )
    for name, _, look in states:
        for metric, upper in _uppers(look).items() if look is not None else ():
            family.add_metric((name, metric), upper)
    return family


def _uppers(look: Look) -> dict[str, float]:
    found: dict[str, float] = {}
    for shown in look.evidence.values():
        for metric, _, steps in shown:
            for counts in steps:
                upper = step_bound(counts, metric, 0.0, look.beta).excess_upper
                if upper is not None:
                    # With few requests the bound is above what a rate can be.
                    found[metric.name] = max(min(upper, 1.0), found.get(metric.name, 0.0))
    return found


def _keys(evidence: Dict[str, Evidence]) -> Metric:
    family = GaugeMetricFamily(
        "canary_mw_release_keys",
        "Distinct keys that came to an arm first, in this attempt; of releases with analysis.",
        labels=("release", "arm"),
    )
    for name, found in evidence.items():
        seen: dict[str, int] = {}
        for arms in found.epochs.values():
            for arm, counts in arms.items():
                seen[arm] = seen.get(arm, 0) + counts.seen
        for arm, keys in seen.items():
            family.add_metric((name, arm), keys)
    return family
