"""The safety nets of a middleware: which requests have one, and the budgets of the releases."""

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Protocol

from canary_mw.forwarding.fallback import BudgetWindow, SafetyNet, StableSide
from canary_mw.http.messages import RequestHead
from canary_mw.locks import new_lock
from canary_mw.observability.fallbacks import FallbackCounters
from canary_mw.observability.figures.tallies import Tally
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import STABLE, Fallback


class Shell(Protocol):
    """What a safety net uses of its middleware."""

    app: Any
    upstreams: Any

    @property
    def wraps(self) -> bool:
        """Whether the wrapped app is the local service."""

    @property
    def tally(self) -> Tally:
        """Counts an event in the figures."""

    @property
    def roll(self) -> Callable[[], float]:
        """Draws a percent in [0, 100)."""


class SafetyNets:
    """Counts what releases decide against their budgets, and opens the nets of their gray requests.

    Args:
        shell: the middleware.
        clock: of the budgets, in seconds.

    Attributes:
        counters: of failures and fallbacks.
    """

    def __init__(self, shell: Shell, clock: Callable[[], float] = monotonic) -> None:
        self._shell = shell
        self._clock = clock
        self._lock = new_lock()
        self._windows: dict[str, tuple[int, BudgetWindow]] = {}
        self.counters = FallbackCounters(shell.tally)

    def open(self, table: RouteTable, decision: Decision | None, head: RequestHead, person: Person) -> SafetyNet | None:
        """The safety net of a request, where its release has one and its variant is gray.

        What another canary-mw has sent here has none: the sender has it.
        """
        assigned = None if decision is None else decision.release
        if decision is None or assigned is None or decision.sent:
            return None
        release = table.releases.get(assigned.name)
        settings = None if release is None else release.document.fallback
        if settings is None:
            return None
        self._add_request(assigned.name, settings)
        if decision.variant == STABLE or assigned.variant in (None, STABLE):
            return None
        return SafetyNet(
            assigned.name,
            assigned.variant or STABLE,
            settings,
            assigned.reason.startswith("choice:"),
            partial(self._find_stable, table, head, person._replace(stable_of=assigned.name)),
            partial(self._take, assigned.name, settings),
            self.counters.count,
        )

    def _find_stable(self, table: RouteTable, head: RequestHead, person: Person) -> StableSide | None:
        shell = self._shell
        decision = decide(table, head, shell.roll(), person)
        if shell.wraps and (decision is None or decision.local):
            return StableSide(decision, shell.app, wrapped=True)
        return None if decision is None else StableSide(decision, shell.upstreams.app(decision))

    def _add_request(self, name: str, settings: Fallback) -> None:
        with self._lock:
            self._window(name, settings).add_request(self._clock())

    def _take(self, name: str, settings: Fallback) -> bool:
        with self._lock:
            return self._window(name, settings).try_fallback(settings.budget, self._clock())

    def _window(self, name: str, settings: Fallback) -> BudgetWindow:
        """The window of a release; a new one where its interval has changed."""
        interval = settings.budget.interval
        found = self._windows.get(name)
        if found is None or found[0] != interval:
            found = self._windows[name] = interval, BudgetWindow(interval)
        return found[1]
