"""Which idle connection gets the next request."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_mw.client.idle import REST, IdleConnections


def idle(*released: float) -> IdleConnections[str]:
    """Connections "a", "b" and so on, released at these times and kept for 60 seconds."""
    found: IdleConnections[str] = IdleConnections()
    for name, now in zip("abcdef", released, strict=False):
        found.add(name, now, now + 60)
    return found


@pytest.mark.parametrize(
    ("released", "now", "order"),
    [
        pytest.param([0, 0, 0], 0, "abc", id="none has rested: the first one first"),
        pytest.param([0, 1, 2], 9, "cba", id="all have rested: the last one first"),
        pytest.param([0, 1, 9, 9], 9, "bacd", id="those that have rested before the others"),
        pytest.param([0, REST / 2], REST, "ab", id="the end of the rest"),
    ],
)
def test_a_connection_that_has_rested_is_taken_before_the_others(released: list[float], now: float, order: str) -> None:
    connections = idle(*released)
    assert [connections.take(now) for _ in released] == [(name, released["abcdef".index(name)] + 60) for name in order]
    assert connections.take(now) is None
    assert not len(connections)


def test_after_a_burst_the_pool_shrinks_to_what_is_in_use() -> None:
    connections: IdleConnections[int] = IdleConnections()
    for number in range(100):
        connections.add(number, 0.0, 60.0)
    used = set()
    for request in range(1, 1000):
        now = request * REST / 2
        found = connections.take(now)
        assert found is not None
        used.add(found[0])
        connections.add(found[0], now, now + 60.0)
    # The first requests find none that has rested.
    assert len(used) <= 4
    assert len(connections.remove_expired(60.0)) == 100 - len(used)
    assert set(connections) <= used


def test_the_oldest_is_the_one_released_first_rested_or_not() -> None:
    connections = idle(0, 1, 9)
    # Of those that have rested, the last one is taken and comes back.
    assert connections.take(9) == ("b", 61)
    connections.add("b", 9, 69)
    assert list(connections) == ["a", "c", "b"]
    assert [connections.remove_oldest() for _ in "acb"] == ["a", "c", "b"]
    with pytest.raises(KeyError):
        connections.remove_oldest()


def test_expired_connections_are_removed_wherever_they_are() -> None:
    connections = idle(0, 1)
    connections.add("short", 9, 10)
    assert connections.take(9) == ("b", 61)
    assert connections.next_expiry() == 10
    assert connections.remove_expired(10) == ["short"]
    assert connections.next_expiry() == 60
    assert connections.remove_expired(60) == ["a"]
    assert connections.next_expiry() is None


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "discard"]), st.floats(0, 0.1)), max_size=60))
def test_none_is_lost_none_is_given_twice_and_none_rests_less_than_it_could(steps: list[tuple[str, float]]) -> None:
    connections: IdleConnections[int] = IdleConnections()
    released: dict[int, float] = {}
    now = 0.0
    for number, (step, pause) in enumerate(steps):
        now += pause
        if step == "add":
            connections.add(number, now, math.inf)
            released[number] = now
        elif step == "discard":
            connections.discard(number - 1)
            released.pop(number - 1, None)
        elif (found := connections.take(now)) is not None:
            when = released.pop(found[0])
            assert when + REST <= now or all(when <= other for other in released.values())
        assert sorted(connections) == sorted(released)
        assert len(connections) == len(released)
    assert sorted(connections.clear()) == sorted(released)
    assert not len(connections)
