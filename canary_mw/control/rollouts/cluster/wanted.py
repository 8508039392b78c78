"""Whose states are asked for: those of the releases in force."""

from collections.abc import Mapping as Dict

from canary_mw.control.store import RuleStore
from canary_mw.routing.table import RouteTable


class Wanted:
    """The releases of a store of rules, each with whether it has steps; one thread at a time calls it."""

    def __init__(self, rules: RuleStore) -> None:
        self._rules = rules
        self._table: RouteTable | None = None
        self._names: Dict[str, bool] = {}

    def __call__(self) -> Dict[str, bool]:
        """The releases; the same object as long as they are the same."""
        table = self._rules.table
        if table is not self._table:
            names = {each.name: each.plan is not None for each in table.documents.in_force}
            self._table, self._names = table, self._names if names == self._names else names
        return self._names
