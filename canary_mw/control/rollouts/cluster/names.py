"""What the objects of a cluster are called, and what a pod calls itself."""

import os
import re
import socket
from collections.abc import Mapping as Dict
from hashlib import blake2s
from secrets import token_hex

from canary_mw.run_folder.folder import Folder

_STATES, _LEASES = "canary-mw-release-", "canary-mw-"
_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST = 253
_OTHERS = re.compile("[^a-z0-9]+")
_DIGEST_SIZE = 5


def config_map_name(release: str) -> str:
    """The name of the ConfigMap with the state of a release."""
    return _valid(_STATES, release)


def lease_name(deployment: str) -> str:
    """The name of the Lease of a deployment.

    Args:
        deployment: its id, as in `via`.
    """
    return _valid(_LEASES, deployment)


def _valid(prefix: str, name: str) -> str:
    """A name that Kubernetes allows; another one for each name."""
    wanted = prefix + name
    if _SUBDOMAIN.fullmatch(wanted) and len(wanted) <= _LONGEST:
        return wanted
    digest = blake2s(name.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE).hexdigest()
    kept = _OTHERS.sub("-", name.lower())[: _LONGEST - len(prefix) - len(digest) - 1].strip("-")
    return f"{prefix}{kept}-{digest}" if kept else prefix + digest


def pod_name(environ: Dict[str, str] | None = None) -> str:
    """The name of this pod; elsewhere that of the host."""
    return (os.environ if environ is None else environ).get("HOSTNAME") or socket.gethostname()


def identity_in(folder: Folder | None) -> str:
    """Who holds a Lease: the workers that share a folder are one, for one of them at a time speaks for all.

    So the next one need not wait until the Lease of the one before has ended.
    """
    if folder is None:
        return f"{pod_name()}_{token_hex(8)}"
    found = os.fstat(folder.descriptor)
    text = f"{folder.path} {found.st_dev} {found.st_ino}"
    return f"{pod_name()}_{blake2s(text.encode(), digest_size=8).hexdigest()}"


def pod_of(identity: str) -> str:
    """The name of the pod in an identity."""
    return identity.rpartition("_")[0] or identity
