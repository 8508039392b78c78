"""The evidence of an attempt as bytes: so it outlives the run folder, which ends with its server."""

import json
import zlib
from collections.abc import Iterable
from time import time
from typing import Any

from canary_mw.observability.attempts import register
from canary_mw.observability.attempts.register import Attempt
from canary_mw.observability.attempts.union import merged
from canary_mw.observability.figures import retire
from canary_mw.observability.figures.files import (
    WorkerFile,
    file_id,
    folder_lock,
    read_text,
    retired_content,
    retired_contents,
    worker_files,
    write_text_file,
)
from canary_mw.observability.figures.layout import EVIDENCE, FORMAT, RETIRED, Record, records
from canary_mw.observability.figures.storage import Storage

# Names the releases whose evidence of before is in the folder, with the attempt.
_HELD = "figures.evidence"
_PATIENCE = 0.2
_LEVEL = 1


def exported(folder: int, name: str, attempt: int) -> bytes:
    """The evidence of an attempt of all workers that count in a folder; b"" where there is none.

    Args:
        folder: the descriptor of the run folder.
        attempt: as the state of the release has it.
    """
    contents, attempts = counted(folder)
    known = attempts.get(name)
    return b"" if known is None or known.stored != attempt else packed(contents, name, known)


def counted(folder: int) -> tuple[list[memoryview], register.Attempts]:
    """What all workers that count in a folder have counted, as files of figures, and the attempts that they know."""
    with folder_lock(folder, exclusive=False, patience=_PATIENCE):
        attempts = register.read(folder)
        files, _ = worker_files(folder)
        retired = retired_contents(folder)
    ended = retire.merged_ids(retired)
    return [*retired, *(each.content for each in files if file_id(each.content) not in ended)], attempts


def packed(contents: Iterable[memoryview], name: str, attempt: Attempt) -> bytes:
    """The evidence of an attempt in files of figures."""
    head = {"format": FORMAT, "name": name, "attempt": attempt}
    return json.dumps(head).encode() + b"\n" + zlib.compress(evidence_content(contents, name, attempt.number), _LEVEL)


def unpacked(data: bytes) -> tuple[str, Attempt, memoryview] | None:
    """The release, its attempt, and its evidence as a file of figures; None for that of another format.

    Raises:
        ValueError, KeyError, TypeError: the data are not what was packed.
    """
    line, _, rest = data.partition(b"\n")
    head: dict[str, Any] = json.loads(line)
    if head["format"] != FORMAT:
        return None
    try:
        return head["name"], Attempt(*head["attempt"]), memoryview(zlib.decompress(rest))
    except zlib.error as exc:
        raise ValueError(str(exc)) from None


def evidence_content(contents: Iterable[memoryview], name: str, number: int) -> bytes:
    """A file of figures with nothing but the evidence of an attempt."""
    return bytes(_joined([each for each in records(content) if _is_of(each, name, number)] for content in contents))


def _is_of(record: Record, name: str, number: int) -> bool:
    return record.kind in EVIDENCE and record.key[:2] == (name, str(number))


def restore(folder: int, data: bytes) -> bool:
    """Put evidence into a folder that does not hold it yet; what another format has written is left out.

    Returns:
        Whether the folder holds it now, or needs none; False where it has to be tried again.
    """
    found = unpacked(data)
    if found is None:
        return True
    name, before, content = found
    with folder_lock(folder, exclusive=True, patience=_PATIENCE) as locked:
        held = _held(folder)
        if not locked:
            return False
        if held.get(name) == before.stored:
            return True
        now = register.read(folder).get(name)
        if now is None or now.stored != before.stored:
            return False
        _add(folder, renumbered(content, name, now.number))
        _hold(folder, {**held, name: before.stored})
    register.change(folder, lambda known: _with_limits(known, name, before))
    return True


def hold(folder: int, name: str, attempt: int) -> None:
    """Note that a folder holds all evidence of an attempt, so that nothing is restored into it; raises OSError."""
    with folder_lock(folder, exclusive=True, patience=_PATIENCE) as locked:
        held = _held(folder)
        if locked and held.get(name) != attempt:
            _hold(folder, {**held, name: attempt})


def _held(folder: int) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads(read_text(folder, _HELD) or b"{}")
    except ValueError:
        return {}
    return found


def _hold(folder: int, held: dict[str, int]) -> None:
    write_text_file(folder, _HELD, json.dumps(held).encode())


def renumbered(content: memoryview, name: str, number: int) -> memoryview:
    """Evidence as that of an attempt of this number."""
    target = Storage()
    for record in records(content):
        cells = target.allocate(record.kind, (name, str(number), *record.key[2:]), len(record.cells))
        if cells is not None:
            cells[:] = record.cells
    return target.content()


def joined(contents: Iterable[memoryview]) -> memoryview:
    """The evidence in several files as one."""
    return _joined(list(records(each)) for each in contents)


def _joined(files: Iterable[list[Record]]) -> memoryview:
    target = Storage()
    for kind, key, content in merged(list(files)):
        cells = target.allocate(kind, key, len(content))
        if cells is not None:
            cells[:] = content
    return target.content()


def holds(content: memoryview, name: str, number: int) -> bool:
    """Whether a file has evidence of an attempt."""
    return any(_is_of(each, name, number) for each in records(content))


def _add(folder: int, restored: memoryview) -> None:
    """Add evidence to that of workers that have ended."""
    known = retired_content(folder)
    if known is None:
        write_text_file(folder, RETIRED, bytes(restored))
    else:
        write_text_file(folder, RETIRED, retire.merged(known, [WorkerFile("", restored, alive=False)], time()))


def _with_limits(known: register.Attempts, name: str, before: Attempt) -> register.Attempts:
    """The attempts with the thresholds that one had: they are fixed for its whole time."""
    now = known.get(name)
    if now is None or now.stored != before.stored:
        return known
    return {**known, name: now._replace(limits={**now.limits, **before.limits})}
