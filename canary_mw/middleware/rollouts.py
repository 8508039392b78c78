"""What drives the releases of a middleware."""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from canary_mw.control.rollouts.rollouts import Rollouts
from canary_mw.control.rollouts.settings import surroundings
from canary_mw.control.rollouts_by_store import rollouts_of
from canary_mw.control.store import RuleStore
from canary_mw.middleware.options import Options
from canary_mw.middleware.peers import check_peers, has_peers, peers_of
from canary_mw.middleware.settings import is_enabled
from canary_mw.observability.attempts.driven import NOTHING, Driven
from canary_mw.observability.counters import RequestCounters
from canary_mw.run_folder.opened import run_folder

if TYPE_CHECKING:
    from canary_mw.control.rollouts.evidence import FiguresEvidence
    from canary_mw.rollout.outcome import Message

# Returns the method that gives the counters, None where its middleware is gone.
FindCounters = Callable[[], Callable[[], RequestCounters | None] | None]


def rollouts_for(
    store: RuleStore, options: Options, counters: FindCounters, deployment: str, *, wraps: bool
) -> Rollouts:
    """What drives the releases of a store: one for all middlewares that share it.

    Args:
        counters: of the middleware.
        deployment: its id, as in `via`.
        wraps: see `MiddlewareBase`. A proxy that is turned off stops all releases.
    """
    check_peers(options)
    where = surroundings(os.environ, options.state, stopped=not wraps and not is_enabled(os.environ))
    folder = partial(run_folder, options.run_dir)

    def make() -> Rollouts:
        evidence = partial(_evidence, counters, shared=has_peers(options))
        peers = partial(peers_of, options) if has_peers(options) else None
        rollouts = Rollouts(store, options.state, folder, evidence, where, options.hook_hosts, deployment, peers)
        rollouts.observers.append(partial(_count, counters))
        return rollouts

    return rollouts_of(store, make)


def driven_by(rollouts: Rollouts) -> Driven:
    """What is driven, for metrics; nothing where no release has steps or was aborted."""
    controlled = rollouts.is_controlled
    return NOTHING if controlled is None else Driven(rollouts.standings(), controlled)


def _count(counters: FindCounters, message: "Message", _: object) -> None:
    found = _found(counters)
    if found is not None and message.kind == "transition":
        found.tally("release_transitions", message.release, message.after)


def _evidence(counters: FindCounters, *, shared: bool) -> "FiguresEvidence":
    from canary_mw.control.rollouts.evidence import FiguresEvidence

    return FiguresEvidence(partial(_found, counters), shared=shared)


def _found(counters: FindCounters) -> RequestCounters | None:
    find = counters()
    return None if find is None else find()
