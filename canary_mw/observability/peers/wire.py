"""The evidence of pods as bytes: of all workers of a pod, and of the attempts of releases with steps.

The bytes are gzip of a line of JSON for each attempt of each pod, followed by a file of figures. Whoever reads them
trusts nothing: what could harm a union later is looked at before it is taken.
"""

import json
import secrets
import zlib
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

from canary_mw.exceptions import EvidenceRefused
from canary_mw.observability.attempts.checkpoint import evidence_content
from canary_mw.observability.attempts.evidence_of import evidence_of
from canary_mw.observability.attempts.layout import ARM_CELLS, CHUNK, COUNT_CELLS, ENTRY, VALUE
from canary_mw.observability.attempts.register import Attempt, Attempts
from canary_mw.observability.figures.files import folder_lock, read_text, write_text_file
from canary_mw.observability.figures.layout import EVIDENCE, FORMAT, Kind, Record, is_readable, records
from canary_mw.observability.figures.storage import Storage
from canary_mw.rules.release import STABLE

# Bytes of an answer, and of what is in it.
MOST_PACKED, MOST_UNPACKED = 1 << 20, 16 << 20
_GZIP, _LEVEL = 31, 1
_POD = "figures.pod"
# Bytes of the line before the evidence of an attempt, at most, as far as room is reckoned.
_LINE = 8192
_LONGEST_LINE = 65_536
# What no count of an attempt exceeds, nor the microsecond at which it began, so that sums fit into a cell.
_MOST_COUNTED = 1 << 56
_MOST_LEVELS = 64
_MOST_RECORDS = 65_536
_MOST_ATTEMPTS = 1 << 31
# Strings in the key of a record.
_KEYS: Dict[int, int] = {
    Kind.ARM: 5,
    Kind.MEASURE: 6,
    Kind.KEYS: 5,
    Kind.TIMES: 3,
    Kind.GRAY_KEYS: 5,
    Kind.VALUES: 3,
}


class Export(NamedTuple):
    """The evidence of one attempt of a release in one pod.

    Attributes:
        pod: see `pod_of`.
        content: a file of figures with nothing else.
    """

    pod: str
    name: str
    attempt: Attempt
    content: memoryview


def pod_of(folder: int) -> str:
    """What tells the pod of a run folder from all others, over restarts of its workers; raises OSError."""
    with folder_lock(folder, exclusive=True):
        found = (read_text(folder, _POD) or b"").decode("ascii", "replace")
        if not found:
            found = new_pod()
            write_text_file(folder, _POD, found.encode())
        return found


def new_pod() -> str:
    """The same for a process without a run folder."""
    return secrets.token_hex(16)


def stamp_of(pod: str, contents: Iterable[memoryview], attempts: Attempts) -> str:
    """What changes with the evidence of a pod."""
    digest = blake2b(repr((pod, sorted(attempts.items()))).encode(), digest_size=16)
    for content in contents:
        for each in records(content):
            if each.kind in EVIDENCE:
                digest.update(repr(each.key).encode() + bytes(each.cells))
    return digest.hexdigest()


def exports_of(pod: str, contents: Sequence[memoryview], attempts: Attempts) -> list[Export]:
    """The evidence of the attempts of releases with steps."""
    return [
        Export(pod, name, attempt, memoryview(evidence_content(contents, name, attempt.number)))
        for name, attempt in attempts.items()
        if attempt.stored
    ]


def packed(pod: str, exports: Iterable[Export], most: int = MOST_PACKED) -> bytes:
    """The bytes for others. Where they are too many, keys are thinned out, in all variants alike.

    Args:
        pod: the one that gives them.
    """
    exports = list(exports)
    data = _packed(pod, exports)
    while len(data) > most or _size(exports) > MOST_UNPACKED:
        before = _size(exports)
        exports = [each._replace(content=_thinned(each.content)) for each in exports]
        if _size(exports) == before:
            break
        data = _packed(pod, exports)
    return data


def _size(exports: Sequence[Export]) -> int:
    return sum(len(each.content) + _LINE for each in exports)


def _packed(pod: str, exports: Sequence[Export]) -> bytes:
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP)
    head = {"format": FORMAT, "pod": pod, "attempts": len(exports)}
    parts = [packer.compress(json.dumps(head).encode() + b"\n")]
    for each in exports:
        line = {"pod": each.pod, "name": each.name, "attempt": each.attempt, "bytes": len(each.content)}
        parts += packer.compress(json.dumps(line).encode() + b"\n"), packer.compress(each.content)
    return b"".join((*parts, packer.flush()))


def _thinned(content: memoryview) -> memoryview:
    """The same with about half of the keys."""
    target = Storage()
    for record in records(content):
        cells = _half(record.cells) if record.kind == Kind.KEYS else bytes(record.cells)
        room = target.allocate(record.kind, record.key, len(cells))
        if room is not None:
            room[:] = cells
    return target.content()


def _half(cells: memoryview) -> bytes:
    level, count = CHUNK.unpack_from(cells)
    mask = (1 << (level + 1)) - 1
    entries = ENTRY.iter_unpack(cells[CHUNK.size : CHUNK.size + count * ENTRY.size])
    kept = [ENTRY.pack(*each) for each in entries if not each[0] & mask]
    return CHUNK.pack(level + 1, len(kept)) + b"".join(kept)


def unpacked(data: bytes) -> tuple[str, list[Export]]:
    """The pod that gives it, and evidence.

    Raises:
        EvidenceRefused: it is none, or that of another format.
    """
    try:
        return _unpacked(_inflated(data))
    except EvidenceRefused:
        raise
    except Exception as exc:
        raise EvidenceRefused(f"it is no evidence: {type(exc).__name__}") from exc


def _inflated(data: bytes) -> bytes:
    if len(data) > MOST_PACKED:
        raise EvidenceRefused(f"it has more than {MOST_PACKED >> 20} MiB")
    reader = zlib.decompressobj(wbits=_GZIP)
    found = reader.decompress(data, MOST_UNPACKED + 1)
    if len(found) > MOST_UNPACKED:
        raise EvidenceRefused(f"it has more than {MOST_UNPACKED >> 20} MiB when it is unpacked")
    if not reader.eof or reader.unused_data:
        raise EvidenceRefused("it is no evidence: it is cut short, or followed by something else")
    return found


def _unpacked(data: bytes) -> tuple[str, list[Export]]:
    head, position = _line(data, 0)
    if head["format"] != FORMAT:
        raise EvidenceRefused("it is of another version of canary-mw")
    exports = []
    for _ in range(head["attempts"]):
        given, position = _line(data, position)
        size = int(given["bytes"])
        content = memoryview(data[position : position + size])
        exports.append(_checked(Export(given["pod"], given["name"], _attempt(*given["attempt"]), content), size))
        position += size
    return _checked_pod(head["pod"]), exports


def _line(data: bytes, position: int) -> tuple[dict[str, Any], int]:
    """A line of JSON, and where the next one begins."""
    end = data.index(b"\n", position, position + _LONGEST_LINE)
    found: dict[str, Any] = json.loads(data[position:end])
    return found, end + 1


def _attempt(number: Any, subject: Any, on: Any, since: Any, limits: Dict[str, Any], stored: Any) -> Attempt:
    seconds = {str(name): float(limit) for name, limit in limits.items()}
    if not (1 <= int(number) < _MOST_ATTEMPTS and 1 <= int(stored) < _MOST_ATTEMPTS):
        raise ValueError("no number of an attempt")
    return Attempt(int(number), str(subject), bool(on), float(since), seconds, int(stored))


def _checked(export: Export, size: int) -> Export:
    """The same, if a union can take it; it is tried."""
    pod, name, attempt, content = export
    _checked_pod(pod)
    if not isinstance(name, str) or len(content) != size or not is_readable(content):
        raise ValueError("no file of figures")
    found = list(islice(records(content), _MOST_RECORDS + 1))
    if len(found) > _MOST_RECORDS:
        raise ValueError("too many records")
    for each in found:
        _check_record(each, (name, str(attempt.number)))
    evidence_of([found], {name: attempt})
    return export


def _checked_pod(pod: Any) -> str:
    if not isinstance(pod, str) or not 0 < len(pod) <= 64 or not (pod.isascii() and pod.isalnum()):
        raise ValueError("no name of a pod")
    return pod


def _check_record(record: Record, place: tuple[str, str]) -> None:
    key, cells = record.key, record.cells
    strings = all(isinstance(each, str) for each in key)
    if record.kind not in EVIDENCE or len(key) != _KEYS[record.kind] or not strings or key[:2] != place:
        raise ValueError("no evidence of this attempt")
    if record.kind in (Kind.ARM, Kind.MEASURE):
        _check_counts(cells, ARM_CELLS if record.kind == Kind.ARM else COUNT_CELLS)
        _check_epoch(key[2], key[3], key[4])
    elif record.kind == Kind.KEYS:
        level, count = CHUNK.unpack_from(cells)
        if level > _MOST_LEVELS or CHUNK.size + count * ENTRY.size > len(cells):
            raise ValueError("no chunk of keys")
    elif record.kind == Kind.GRAY_KEYS:
        _check_number(key[2])
    elif record.kind == Kind.VALUES and (not key[2].startswith(VALUE) or max(cells.cast("Q")) >= _MOST_COUNTED):
        raise ValueError("no values")


def _check_counts(cells: memoryview, count: int) -> None:
    numbers = cells.cast("Q")
    if len(numbers) != count or max(numbers) >= _MOST_COUNTED:
        raise ValueError("no counts")


def _check_epoch(weights: str, variant: str, step: str) -> None:
    percents: Dict[str, float] = json.loads(weights)
    if STABLE not in percents or variant not in percents:
        raise ValueError("no weights")
    if any(isinstance(each, bool) or not 0 <= each <= 100 for each in percents.values()):
        raise ValueError("no percents")
    _check_number(step)


def _check_number(text: str) -> None:
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise ValueError("no number of a step")
