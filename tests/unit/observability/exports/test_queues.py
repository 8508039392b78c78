"""What waits for a service of others: bounds, intervals, retries, and what a forked process has of it."""

import os
from collections.abc import Iterator
from logging import getLogger

import pytest

from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forking import running_threads
from canary_mw.host import HostLogger
from canary_mw.locks import Latch, wait_for
from canary_mw.observability.exports import destination
from canary_mw.observability.exports.destination import Destination
from canary_mw.observability.exports.queues import Queues


class Kept(Destination[int]):
    """Keeps what it is sent; it may be away."""

    def __init__(self, name: str = "a") -> None:
        self.counted: dict[str, int] = {}
        self.sent: list[int] = []
        self.away = False
        self.ended = Latch()
        super().__init__(name, HostLogger(getLogger("test")), most=5, enough=2, interval=1000.0, count=self._count)

    def _count(self, result: str, count: int) -> None:
        self.counted[result] = self.counted.get(result, 0) + count

    def send_all(self, limit: float) -> None:
        if self.away:
            raise UpstreamConnectError("away")
        taken = [self.waiting.popleft() for _ in range(len(self.waiting))]
        self.sent += taken
        self.succeeded(len(taken))

    def disconnect(self, limit: float) -> None:
        self.ended.set()


@pytest.fixture
def made() -> Iterator[tuple[Queues[str, int], dict[str, Kept]]]:
    found: dict[str, Kept] = {}

    def make(name: str) -> Kept:
        found[name] = Kept(name)
        return found[name]

    queues = Queues(make, "canary-mw-test-exports")
    yield queues, found
    queues.close()


def test_few_wait_for_others_and_too_many_are_dropped() -> None:
    kept = Kept()
    assert [kept.add(number) for number in range(6)] == [True, False, True, False, False, False]
    assert kept.counted == {"dropped": 1}
    assert kept.due_in(0.0) == -float("inf")
    few = Kept()
    few.add(1)
    assert few.due_in(0.0) > 999


def test_what_fails_is_tried_again_later_each_time_and_what_is_left_at_the_end_is_counted() -> None:
    kept = Kept()
    kept.away = True
    kept.add(1)
    waits = []
    for _ in range(7):
        kept.flush()
        waits.append(kept._delay)
    assert waits == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    kept.away = False
    kept.flush()
    assert (kept.sent, kept.counted, kept._delay) == ([1], {"sent": 1}, destination.FIRST_DELAY)
    kept.away = True
    kept.add(2)
    kept.close(0.1)
    assert kept.counted == {"sent": 1, "dropped": 1}


def test_a_destination_that_is_named_no_more_is_sent_the_rest(made: tuple[Queues[str, int], dict[str, Kept]]) -> None:
    queues, found = made
    queues.follow(["a"])
    queues.add(1)
    queues.follow(["b"])
    wait_for(found["a"].ended, 20)
    assert found["a"].sent == [1]
    queues.add(2)
    assert queues.waiting() == [2]


def test_what_comes_after_the_end_is_sent_and_leaves_no_thread(
    made: tuple[Queues[str, int], dict[str, Kept]],
) -> None:
    queues, found = made
    queues.follow(["a"])
    queues.add(1)
    queues.close()
    assert found["a"].sent == [1]
    # More than `enough` does not wait for others.
    for number in (2, 3, 4):
        queues.add(number)
    for each in [each for each in running_threads() if each.name == "canary-mw-test-exports"]:
        assert each.join(5.0)
    assert found["a"].sent == [1, 2, 3, 4]


def test_a_forked_process_has_none_of_what_waits_and_sends_its_own(
    made: tuple[Queues[str, int], dict[str, Kept]],
) -> None:
    queues, found = made
    queues.follow(["a"])
    queues.add(1)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            before = queues.waiting()
            queues.add(2)
            queues.close()
            os.write(writer, repr((before, found["a"].sent)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said == "([], [2])"
    queues.close()
    assert found["a"].sent == [1]
