"""The settings of where states are kept, and where a process runs."""

import os
import re
from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import NamedTuple

from canary_mw.control.sources.kubernetes_url import KubernetesURL
from canary_mw.exceptions import ConfigError
from canary_mw.run_folder.folder import Folder

# The variable by which a user says that there is one pod only.
SINGLE = "CANARY_MW_SINGLE"
# Where Kubernetes tells a container of its API.
_CLUSTER = "KUBERNETES_SERVICE_HOST"
# The file of the states in a folder.
NAME = "state.db"
# Whoever makes this file in it puts everybody on stable, without any program of ours.
STOP = "stop"
# How the address of a cluster begins.
CLUSTER = "k8s://"
_SYNTAX = f"{CLUSTER}[NAMESPACE][?lease=NAME][&kubeconfig=FILE][&context=NAME]"
_LEASE = "lease="
_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
# Addresses of stores that a later version may have.
_NOT_YET = ("redis://", "rediss://")


def check_state(text: str | None) -> None:
    """Check the setting that names the place of the states.

    Raises:
        ConfigError: it names what there is not, or not yet.
    """
    for scheme in _NOT_YET:
        if text is not None and text.startswith(scheme):
            hint = f"name a folder of this host, or {CLUSTER} for the pods of a cluster"
            raise ConfigError(f"{text!r}: this version keeps no state at {scheme}", hint=hint)
    if text is not None and is_cluster(text):
        parse_state_url(text)


def is_cluster(text: str | None) -> bool:
    """Whether the states lie in a cluster."""
    return text is not None and text.startswith(CLUSTER)


class StateURL(NamedTuple):
    """The address of a cluster that keeps states.

    Attributes:
        lease: the name of the Lease, "" where it follows from the id of the deployment.
    """

    url: KubernetesURL
    lease: str = ""


def parse_state_url(text: str) -> StateURL:
    """Read such an address.

    Raises:
        ConfigError: it is none, or names what has nothing to do with states.
    """
    place, _, query = text.partition("?")
    options = query.split("&") if query else []
    leases = [each.removeprefix(_LEASE) for each in options if each.startswith(_LEASE)]
    if len(leases) > 1 or not all(map(_NAME.fullmatch, leases)):
        raise ConfigError(f"{text}: the Lease {'='.join(leases)!r} is no name of one object", hint=_SYNTAX)
    rest = "&".join(each for each in options if not each.startswith(_LEASE))
    url = KubernetesURL.parse(f"{place}?{rest}" if rest else place)
    if len(url.namespaces) > 1 or url.namespaces == ("",):
        raise ConfigError(f"{text}: the states lie in one namespace", hint=_SYNTAX)
    if url.selector or url.kinds_named or url.keep_last or url.may_exec:
        raise ConfigError(f"{text} says more than where the states lie", hint=_SYNTAX)
    return StateURL(url, *leases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where this process runs.

    Attributes:
        in_cluster: a folder may be new because its pod is.
        unshared: other pods may exist, with states of their own.
        stopped: the environment of this process stops all releases.
    """

    in_cluster: bool = False
    unshared: bool = False
    stopped: bool = False


def surroundings(environ: Dict[str, str], named: str | None = None, *, stopped: bool = False) -> Surroundings:
    """Where a process with this environment runs.

    Args:
        named: the setting that names the place of the states.
    """
    in_cluster = bool(environ.get(_CLUSTER))
    unshared = in_cluster and not is_single(environ) and not is_cluster(named)
    return Surroundings(in_cluster=in_cluster, unshared=unshared, stopped=stopped)


def is_single(environ: Dict[str, str]) -> bool:
    """Whether the user says that there is one pod only."""
    return environ.get(SINGLE, "").strip().lower() in ("1", "true", "yes", "on")


def is_stopped(folder: Folder) -> bool:
    """Whether somebody has stopped all releases."""
    try:
        folder.stat(STOP)
    except FileNotFoundError:
        return False
    return True


def is_used(named: str | None, run_folder: Callable[[], Folder | None]) -> bool:
    """Whether a state or the stop may lie where it is named, or else in the run folder; this makes nothing."""
    if is_cluster(named):
        return True
    folder = run_folder() if named is None else None
    path = named or (folder.path if folder is not None else None)
    return path is not None and any(os.path.lexists(os.path.join(path, name)) for name in (NAME, STOP))
