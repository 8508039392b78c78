"""Messages to hooks, in threads of their own: neither a tick nor a request waits for a receiver.

Each receiver has a lane: its messages come in their order, and a slow one keeps up no other.
"""

from collections import deque
from collections.abc import Callable, Sequence

from canary_mw.forking import start_thread
from canary_mw.locks import Latch, new_lock

# Seconds before each of the three further tries.
PAUSES = (1.0, 4.0, 16.0)
# Messages that wait for one receiver; the oldest are given up first.
_MOST = 200

# Tries once; returns why it failed, "" if it did not.
Attempt = Callable[[], str]
GivenUp = Callable[[str], object]


class Deliveries:
    """Messages under way.

    Args:
        pauses: seconds before each further try.
    """

    def __init__(self, pauses: Sequence[float] = PAUSES) -> None:
        self._pauses = tuple(pauses)
        self._lock = new_lock()
        self._lanes: dict[str, deque[tuple[Attempt, GivenUp]]] = {}
        self._stopped = Latch()

    def send(self, receiver: str, attempt: Attempt, given_up: GivenUp) -> None:
        """Send a message after those that wait for the same receiver; returns at once.

        Args:
            given_up: is called with the reason when no try has gone well.
        """
        with self._lock:
            lane = self._lanes.get(receiver)
            if lane is not None:
                lane.append((attempt, given_up))
                dropped = lane.popleft() if len(lane) > _MOST else None
            else:
                self._lanes[receiver], dropped = deque(((attempt, given_up),)), None
        if dropped is not None:
            dropped[1]("too many messages wait for it")
        if lane is None:
            self._start(receiver)

    def stop(self) -> None:
        """Try nothing a second time of what is under way. In any thread."""
        stopped, self._stopped = self._stopped, Latch()
        stopped.set()

    def _start(self, receiver: str) -> None:
        try:
            start_thread(lambda: self._run(receiver), "canary-mw-hook-events", stop=self.stop)
        except RuntimeError as exc:
            while (item := self._next(receiver)) is not None:
                item[1](f"no thread can be started: {exc}")

    def _run(self, receiver: str) -> None:
        stopped = self._stopped
        while (item := self._next(receiver)) is not None:
            attempt, given_up = item
            reason = attempt()
            for pause in self._pauses:
                if not reason or stopped.wait(pause):
                    break
                reason = attempt()
            if reason:
                given_up(reason)

    def _next(self, receiver: str) -> tuple[Attempt, GivenUp] | None:
        with self._lock:
            lane = self._lanes[receiver]
            if lane:
                return lane.popleft()
            del self._lanes[receiver]
            return None
