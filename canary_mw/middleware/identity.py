"""What a deployment is called: its local service names, its hop id in `via`, and the request ids that it generates.

Both middlewares use it, so that a pod has the same names with either of them.
"""

import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator
from collections.abc import Mapping as Dict
from hashlib import blake2s
from itertools import count
from random import getrandbits

from canary_mw.exceptions import ConfigError
from canary_mw.forking import after_fork

# What Kubernetes appends to the name of a workload: ReplicaSet hash and pod, DaemonSet pod, StatefulSet ordinal. Its
# random suffixes have no vowels and no characters that look alike.
_POD_SUFFIX = re.compile(r"(-[bcdf-hj-np-tv-xz2456789]{5,10})?-[bcdf-hj-np-tv-xz2456789]{5}$|-\d+$")
# Kubernetes sets it in every container.
_IN_KUBERNETES = "KUBERNETES_SERVICE_HOST"
_HOP_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
# Odd, so that 48 bits times this are a permutation (Knuth's multiplicative hashing).
_SPREAD = 0x9E3779B97F4B


def local_names(local: str | Iterable[str] = (), environ: Dict[str, str] | None = None) -> frozenset[str]:
    """Names of the service that this process runs, in lower case.

    `CANARY_MW_LOCAL` (comma separated) overrides the argument: the gray Deployment usually runs the same code.
    """
    given = (os.environ if environ is None else environ).get("CANARY_MW_LOCAL", "")
    names = given.split(",") if given else [local] if isinstance(local, str) else local
    return frozenset(name.strip().lower() for name in names if name.strip())


def default_hop_id(
    mode: str, local: Collection[str] = (), paths: Iterable[str] = (), environ: Dict[str, str] | None = None
) -> str:
    """An id of this deployment: the same in all its pods, and different from that of every deployment it forwards to.

    It is `CANARY_MW_ID`, or else a hash of the arguments and the name: the workload's in Kubernetes, else the host's.
    Deployments that are the same in all of these and forward to each other need a `CANARY_MW_ID` each; replicas on
    several hosts should share one, or else a loop among them ends only after `MAX_HOPS`.

    Args:
        mode: "asgi", "wsgi" or "proxy"; a proxy and the app behind it are two hops.
        local: names of the service that this process runs.
        paths: paths of its rules.
    """
    environ = os.environ if environ is None else environ
    if given := environ.get("CANARY_MW_ID"):
        return given
    workload = environ.get("HOSTNAME") or socket.gethostname()
    # Elsewhere gw-1 and gw-2 are two hosts, and one may forward to the other.
    if _IN_KUBERNETES in environ:
        workload = _POD_SUFFIX.sub("", workload)
    parts = "\n".join((workload, mode, *sorted(local), "", *paths))
    return blake2s(parts.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def via_token(hop_id: str) -> bytes:
    """The name of a deployment in `via`.

    Raises:
        ConfigError: the id is not allowed in a header.
    """
    if not _HOP_ID.fullmatch(hop_id):
        hint = "use 1 to 64 letters, digits, . _ ~ -"
        raise ConfigError(f"hop id {hop_id!r} cannot stand in a header", hint=hint)
    return b"canary-mw-" + hop_id.encode()


def _reset_ids() -> None:
    """Start a new sequence of ids in this process: a forked child must not repeat the ids of its parent."""
    global _ids, _suffix
    bits = f"{getrandbits(80):020x}"
    _suffix = f"8{bits[:3]}-a{bits[3:6]}-{bits[6:18]}".encode()
    _ids = count(getrandbits(48))


_ids: Iterator[int]
_suffix: bytes
_reset_ids()
after_fork(_reset_ids)


def new_request_id() -> bytes:
    """A UUID (RFC 9562, version 8) for a request that has no `x-request-id`: unique, but not unpredictable.

    Its first half is a counter of this process, multiplied so that sampling by id gives an even share. The second half
    is random and drawn once in each process.
    """
    number = next(_ids) * _SPREAD & 0xFFFFFFFFFFFF
    return b"%08x-%04x-%b" % (number >> 16, number & 0xFFFF, _suffix)
