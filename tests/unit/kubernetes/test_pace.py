"""When changes of a cluster take effect."""

from math import inf

from canary_mw.kubernetes.pace import BATCH, QUIET, Pace


def reloads(*, every: float, seconds: float, cost: float) -> list[float]:
    """When changes that come at a steady rate take effect."""
    pace, found = Pace(), []
    first = due = inf
    for now in (*(number * every for number in range(int(seconds / every))), inf):
        if due <= now and due < inf:
            found.append(due)
            pace.published(due)
            pace.took(cost)
            first = due = inf
        if now < inf:
            first = min(first, now)
            due = now + pace.delay(now, first)
    return found


def test_changes_of_one_moment_take_effect_together_and_soon() -> None:
    pace = Pace()
    assert pace.delay(10.0, 10.0) == QUIET
    assert round(pace.delay(10.08, 10.0), 6) == 0.02
    assert pace.delay(10.0 + BATCH, 10.0) == 0.0


def test_changes_that_never_end_leave_the_time_to_requests() -> None:
    found = reloads(every=0.02, seconds=20.0, cost=0.007)
    # A burst, and then one in a hundred of the time of a core.
    assert len(found) <= 10 + 20.0 / 0.5 + 1
    assert found[-1] >= 19.98
    assert found[-1] <= 20.0 + 0.7


def test_cheap_reloads_never_wait() -> None:
    found = reloads(every=0.02, seconds=5.0, cost=0.002)
    assert len(found) >= 5.0 / (BATCH + 0.03)


def test_a_step_of_a_release_never_waits_for_the_one_before() -> None:
    pace, now = Pace(), 50.0
    for _ in range(30):
        assert pace.delay(now, now) == QUIET
        pace.published(now + QUIET)
        pace.took(0.007)
        now += 1.0
