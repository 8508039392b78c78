"""The settings of where states are kept, and where a process runs."""

import os
from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass

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
# Addresses of stores that a later version may have.
_NOT_YET = ("k8s://", "redis://", "rediss://")


def check_state(text: str | None) -> None:
    """Check the setting that names the folder.

    Raises:
        ConfigError: it names what there is not yet.
    """
    for scheme in _NOT_YET:
        if text is not None and text.startswith(scheme):
            hint = "name a folder of this host; several hosts cannot share the state of a release yet"
            raise ConfigError(f"{text!r}: this version keeps no state at {scheme}", hint=hint)


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


def surroundings(environ: Dict[str, str], *, stopped: bool = False) -> Surroundings:
    """Where a process with this environment runs."""
    in_cluster = bool(environ.get(_CLUSTER))
    single = environ.get(SINGLE, "").strip().lower() in ("1", "true", "yes", "on")
    return Surroundings(in_cluster=in_cluster, unshared=in_cluster and not single, stopped=stopped)


def is_used(named: str | None, run_folder: Callable[[], Folder | None]) -> bool:
    """Whether a state or the stop lies in the folder that is named, or else in the run folder; this makes nothing."""
    folder = run_folder() if named is None else None
    path = named or (folder.path if folder is not None else None)
    return path is not None and any(os.path.lexists(os.path.join(path, name)) for name in (NAME, STOP))
