"""The other pods of a middleware whose releases keep their states in a cluster."""

import os
from functools import partial
from typing import TYPE_CHECKING, cast

from canary_mw.control.rollouts.settings import is_cluster, is_single
from canary_mw.exceptions import ConfigError
from canary_mw.middleware.options import Options
from canary_mw.middleware.settings import variable

if TYPE_CHECKING:
    from canary_mw.control.rollouts.evidence import FiguresEvidence
    from canary_mw.control.rollouts.inputs import Evidence, Peers
    from canary_mw.kubernetes.credentials import Connection


def check_peers(options: Options) -> None:
    """Check that pods that share the states of releases can share their evidence, too.

    Raises:
        ConfigError: they cannot.
    """
    if not has_peers(options):
        return
    state = f"{variable('state')} is {options.state}, for several pods"
    if not options.admin_port:
        hint = f"set {variable('admin_port')}, or CANARY_MW_SINGLE=1 where there is one pod only"
        raise ConfigError(f"{state}, and there is no admin port on which they read each other's evidence", hint=hint)
    if not options.peers:
        hint = f"set {variable('peers')} to the Service of these pods, or {variable('local')}"
        raise ConfigError(f"{state}, and no Service says where the others are", hint=hint)


def has_peers(options: Options) -> bool:
    """Whether there may be other pods that share the states of the releases."""
    return is_cluster(options.state) and not is_single(os.environ)


def peers_of(options: Options, evidence: "Evidence") -> "Peers":
    """What knows the other pods."""
    # Here, because httpx takes long to load.
    from canary_mw.control.rollouts.peers.peers import Peers
    from canary_mw.control.rollouts.peers.session import Place
    from canary_mw.control.rollouts.peers.token import PeerToken

    figures = cast("FiguresEvidence", evidence)
    assert options.state is not None
    assert options.peers is not None
    assert figures.pods is not None
    service = options.peers.partition(".")[0]
    place = Place(partial(_connect, options.state), service, options.admin_port)
    token = PeerToken(options.peer_token_file or options.admin_token_file)
    return Peers(place, token.read, figures.take, figures.pods.note, figures.pods.noted)


def _connect(state: str) -> "tuple[Connection, str]":
    from canary_mw.control.rollouts.cluster.address import cluster_at

    cluster = cluster_at(state, "")
    return cluster.connection, cluster.namespace
