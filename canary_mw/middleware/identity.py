"""What one passage through this process means: its mark against loops, whom it believes, what it is called.

Shared by the shells, so that a pod behaves the same whichever of them it runs.
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
# random names leave out vowels and look-alikes.
_POD_SUFFIX = re.compile(r"(-[bcdf-hj-np-tv-xz2456789]{5,10})?-[bcdf-hj-np-tv-xz2456789]{5}$|-\d+$")
_HOP_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")
# Odd, so that 48 bits times this are a permutation (Knuth's multiplicative hashing).
_SPREAD = 0x9E3779B97F4B


def local_names(local: str | Iterable[str] = (), environ: Dict[str, str] | None = None) -> frozenset[str]:
    """Names of the service that this process is.

    `CANARY_MW_LOCAL` (comma separated) wins over the code: the gray Deployment usually runs the same code.
    """
    given = (os.environ if environ is None else environ).get("CANARY_MW_LOCAL", "")
    names = given.split(",") if given else [local] if isinstance(local, str) else local
    return frozenset(name.strip().lower() for name in names if name.strip())


def default_hop_id(
    mode: str, local: Collection[str] = (), paths: Iterable[str] = (), environ: Dict[str, str] | None = None
) -> str:
    """An id of this deployment: the same in all its pods, and different from those that it forwards to.

    `CANARY_MW_ID`, else made from the workload's name and what it does.

    Args:
        mode: which shell it is; a proxy and the app behind it are two hops.
        local: names of the service that it is.
        paths: its rules.
    """
    environ = os.environ if environ is None else environ
    if given := environ.get("CANARY_MW_ID"):
        return given
    workload = _POD_SUFFIX.sub("", environ.get("HOSTNAME") or socket.gethostname())
    parts = "\n".join((workload, mode, *sorted(local), "", *paths))
    return blake2s(parts.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def via_token(hop_id: str) -> bytes:
    """What stands in `via` for a deployment.

    Raises:
        ConfigError: the id cannot stand in a header.
    """
    if not _HOP_ID.fullmatch(hop_id):
        hint = "use 1 to 64 letters, digits, . _ ~ -"
        raise ConfigError(f"hop id {hop_id!r} cannot stand in a header", hint=hint)
    return b"canary-mw-" + hop_id.encode()


def _begin_ids() -> None:
    """Once for each process: a child must not repeat what its parent gives out."""
    global _ids, _suffix
    bits = f"{getrandbits(80):020x}"
    _suffix = f"8{bits[:3]}-a{bits[3:6]}-{bits[6:18]}".encode()
    _ids = count(getrandbits(48))


_ids: Iterator[int]
_suffix: bytes
_begin_ids()
after_fork(_begin_ids)


def new_request_id() -> bytes:
    """A UUID (RFC 9562, version 8) for a request that has no `x-request-id`: unique, and no secret.

    Its first half is a number of this process, spread so that whoever samples by it gets an even share; the second is
    random, and drawn once.
    """
    number = next(_ids) * _SPREAD & 0xFFFFFFFFFFFF
    return b"%08x-%04x-%b" % (number >> 16, number & 0xFFFF, _suffix)
