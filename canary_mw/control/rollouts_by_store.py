"""What drives the releases of a store of rules: two middlewares may share the store."""

from collections.abc import Callable
from weakref import WeakValueDictionary

from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.store import RuleStore

# A store lives as long as what drives its releases, so no other one gets its number meanwhile.
_by_store: WeakValueDictionary[int, Rollouts] = WeakValueDictionary()


def rollouts_of(rules: RuleStore, make: Callable[[], Rollouts]) -> Rollouts:
    """The one that drives the releases of a store: two middlewares may share the store."""
    found = _by_store.get(id(rules))
    if found is None:
        found = _by_store[id(rules)] = make()
    return found


def rollouts_known(rules: RuleStore) -> Rollouts | None:
    """What drives the releases of a store; None where no middleware does."""
    return _by_store.get(id(rules))
