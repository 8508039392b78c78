import pytest

from canary_mw.rules.upstream import HealthCheck, Origin, OutlierDetection
from canary_mw.upstreams.health import Endpoint, HealthState

CHECK = HealthCheck(b"/", healthy_threshold=2, unhealthy_threshold=3)
SETTINGS = OutlierDetection(max_ejection_time=100.0)


def endpoint(*health_states: HealthState) -> Endpoint:
    return Endpoint(Origin("http", "shop.test", 80, "10.0.0.1"), health_states)


def state_after(*outcomes: tuple[bool, bool], healthy: bool = True) -> HealthState:
    """After checks that were (passed, answered)."""
    made = HealthState(healthy)
    for passed, answered in outcomes:
        made.record(passed, answered, CHECK)
    return made


GOOD, BAD, NO_ANSWER = (True, True), (False, True), (False, False)


def test_the_first_check_alone_decides_the_health_state() -> None:
    assert not state_after(NO_ANSWER).healthy
    assert not state_after(BAD).healthy
    assert state_after(GOOD, healthy=False).healthy


def test_one_wrong_response_is_enough_and_one_missing_response_is_not() -> None:
    assert not state_after(GOOD, BAD).healthy
    assert state_after(GOOD, NO_ANSWER, NO_ANSWER).healthy
    assert not state_after(GOOD, NO_ANSWER, NO_ANSWER, NO_ANSWER).healthy


def test_only_failures_in_a_row_count() -> None:
    assert state_after(GOOD, NO_ANSWER, NO_ANSWER, GOOD, NO_ANSWER, NO_ANSWER).healthy


def test_an_unhealthy_endpoint_has_to_pass_several_times_in_a_row() -> None:
    assert not state_after(BAD, GOOD).healthy
    assert not state_after(BAD, GOOD, NO_ANSWER, GOOD).healthy
    assert state_after(BAD, GOOD, GOOD).healthy


def test_a_health_state_reports_when_it_changes() -> None:
    made = HealthState(True)
    assert [made.record(*outcome, CHECK) for outcome in (GOOD, BAD, BAD, GOOD, GOOD, GOOD)] == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]


def test_an_endpoint_has_to_pass_every_check() -> None:
    assert endpoint().is_healthy(0.0)
    assert endpoint(state_after(GOOD), state_after(GOOD)).is_healthy(0.0)
    assert not endpoint(state_after(GOOD), state_after(BAD)).is_healthy(0.0)


def test_an_endpoint_is_named_by_its_address() -> None:
    assert endpoint().name == "10.0.0.1:80"
    assert Endpoint(Origin("http", "10.0.0.2", 81), ()).name == "10.0.0.2:81"


@pytest.mark.parametrize(
    ("settings", "statuses", "too_many_at"),
    [
        (OutlierDetection(), [500] * 6, [4]),
        (OutlierDetection(), [500, 503, 502, 500, 200, 500, 500, 500, 500, 500], [9]),
        (OutlierDetection(), [404] * 10, []),
        (OutlierDetection(), [500] * 10, [4, 9]),
        (OutlierDetection(consecutive_5xx=0), [503] * 10, []),
        (OutlierDetection(0, 2), [503, 500, 503, 504, 502], [3]),
        (OutlierDetection(3, 2), [500, 503, 500, 503], [2]),
        (OutlierDetection(1), [200, 500], [1]),
    ],
)
def test_failures_in_a_row_are_too_many_once(
    settings: OutlierDetection, statuses: list[int], too_many_at: list[int]
) -> None:
    failing = endpoint()
    assert [at for at, status in enumerate(statuses) if failing.record(status, settings)] == too_many_at


def test_each_ejection_is_longer_up_to_a_limit() -> None:
    failing, now, seconds = endpoint(), 0.0, []
    for _ in range(6):
        seconds.append(failing.eject(now, SETTINGS))
        assert not failing.is_healthy(failing.ejected_until - 0.5)
        now = failing.ejected_until
        assert failing.is_healthy(now)
    assert seconds == [30.0, 60.0, 90.0, 100.0, 100.0, 100.0]


def test_every_interval_without_ejection_makes_up_for_one() -> None:
    failing = endpoint()
    for _ in range(3):
        failing.eject(failing.ejected_until if failing.ejections else 0.0, SETTINGS)
    assert failing.ejections == 3
    assert failing.eject(failing.ejected_until + 20.5, SETTINGS) == 60.0
    assert failing.eject(failing.ejected_until + 1000.0, SETTINGS) == 30.0


def test_a_base_time_above_the_maximum_is_kept() -> None:
    assert endpoint().eject(0.0, OutlierDetection(base_ejection_time=400.0)) == 400.0
