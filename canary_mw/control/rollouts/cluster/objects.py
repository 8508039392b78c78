"""A ConfigMap with the state of a release, as values: what it says, and what it says after a change. No I/O."""

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any

from canary_mw.control.rollouts.cluster.names import config_map_name
from canary_mw.control.rollouts.store import Row
from canary_mw.exceptions import NewerFormat, StateError
from canary_mw.rollout.state import from_json

Object = dict[str, Any]

_STATE, _VERSION, _EVIDENCE = "state", "version", "evidence"
# Characters of the evidence in an object, and its bytes when it is read: a server takes objects of 1 MiB.
MOST_EVIDENCE, _MOST_READ = 512 << 10, 8 << 20
_GZIP = 31
LABELS = {"app.kubernetes.io/managed-by": "canary-mw"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an object says.

    Attributes:
        row: None where it holds no state, or none that can be read.
        text: the state as it is written, "" for none.
        version: how often it was written, 0 for never.
        newer: a newer version has written it.
        unreadable: why it cannot be read, "" where it can.
    """

    row: Row | None = None
    text: str = ""
    version: int = 0
    newer: bool = False
    unreadable: str = ""


def reading_of(release: str, text: str, version: int) -> Reading:
    """What a state says that is written so."""
    if not text:
        return Reading()
    try:
        state = from_json(text)
    except NewerFormat:
        return Reading(text=text, version=version, newer=True)
    except StateError as exc:
        return Reading(text=text, version=version, unreadable=str(exc))
    if state.name != release:
        told = f"its ConfigMap holds the state of the release {state.name!r:.100}"
        return Reading(text=text, version=version, unreadable=told)
    return Reading(row=Row(state, version), text=text, version=version)


def text_in(item: Object) -> str:
    """The state as it is written, "" for none."""
    found = _data(item).get(_STATE)
    return found.strip() if isinstance(found, str) else ""


def version_in(item: Object) -> int | None:
    """How often the state was written; None where there is none."""
    if not text_in(item):
        return None
    found = _data(item).get(_VERSION)
    return int(found) if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 18 else 1


def evidence_in(item: Object) -> bytes:
    """What a restart goes on with; b"" where there is nothing that can be read."""
    found = _part(item, "binaryData").get(_EVIDENCE)
    if not isinstance(found, str):
        return b""
    try:
        reader = zlib.decompressobj(_GZIP)
        data = reader.decompress(base64.b64decode(found, validate=True), _MOST_READ)
    except (zlib.error, binascii.Error, ValueError):
        return b""
    return data if reader.eof else b""


def with_state(item: Object, text: str, version: int) -> Object:
    """The object with another state."""
    return {**item, "data": {**_data(item), _STATE: text, _VERSION: str(version)}}


def with_evidence(item: Object, evidence: str) -> Object:
    """The object with other evidence, as `packed` gives it."""
    return {**item, "binaryData": {**_part(item, "binaryData"), _EVIDENCE: evidence}}


def packed(data: bytes) -> str:
    """Bytes as an object holds them."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    return base64.b64encode(packer.compress(data) + packer.flush()).decode("ascii")


def empty_object(release: str) -> Object:
    """An object for a release that has none."""
    metadata = {"name": config_map_name(release), "labels": LABELS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def resource_version(item: Object) -> str:
    """Its version for the server; "" where it says none."""
    found = _part(item, "metadata").get("resourceVersion")
    return found if isinstance(found, str) else ""


def is_older(item: Object, other: Object) -> bool:
    """Whether one is an earlier version of the other."""
    one, two = resource_version(item), resource_version(other)
    same = _part(item, "metadata").get("uid") == _part(other, "metadata").get("uid")
    return same and one.isdigit() and two.isdigit() and int(one) < int(two)


def progress_line(data: bytes) -> bytes:
    """How far a release is, without the evidence."""
    return data.partition(b"\n")[0] + b"\n" if data else b""


def _data(item: Object) -> Object:
    return _part(item, "data")


def _part(item: Object, name: str) -> Object:
    found = item.get(name)
    return found if isinstance(found, dict) else {}
