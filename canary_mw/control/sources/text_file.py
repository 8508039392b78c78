"""One file of rules -> its Document: the text of the file, or the reason why there is none."""

import codecs
import errno
import os
import stat
from typing import BinaryIO, NamedTuple

from canary_mw.config.document import Document, document_in_error
from canary_mw.exceptions import SourceError

MAX_BYTES = 64 * 1024 * 1024

# What YAML allows beside UTF-8 (YAML 1.2, section 5.2). A mark of UTF-32 begins with that of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_RULES = "or move it away if it holds no rules"


class TextFile(NamedTuple):
    """What was read from a file.

    Attributes:
        inode: its number, 0 for a document in error.
    """

    path: str
    document: Document
    inode: int = 0


def read_text_file(path: str, name: str) -> TextFile:
    """Read a file once. A file that cannot be read, or is no text, gives a Document in error.

    Only a regular file is opened: to open a FIFO or a device may wait, or disturb whoever is at its other end.

    Args:
        name: its name in diagnostics.

    Raises:
        FileNotFoundError: there is no such file, and no link that leads nowhere.
    """
    try:
        data, inode = _read_bytes(path)
        return TextFile(path, Document(_decode(data), printable(name)), inode)
    except SourceError as exc:
        return TextFile(path, document_in_error(printable(name), exc.message, line=exc.line, hint=exc.hint))
    except OSError as exc:
        if isinstance(exc, FileNotFoundError) and not os.path.islink(path):
            raise
        return unreadable(path, name, exc)


def read_stream(stream: BinaryIO, name: str) -> Document:
    """Read a stream to its end, for example standard input; too much of it, or no text, is a Document in error."""
    try:
        data = stream.read(MAX_BYTES + 1)
        _check_size(len(data))
        return Document(_decode(data), name)
    except SourceError as exc:
        return document_in_error(name, exc.message, line=exc.line, hint=exc.hint)


def _read_bytes(path: str) -> tuple[bytes, int]:
    _check_kind(os.stat(path))
    # The file may have been replaced in between.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        _check_kind(status)
        _check_size(status.st_size)
        data = file.read(MAX_BYTES + 1)
    _check_size(len(data))
    return data, status.st_ino


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise SourceError(f"is larger than {MAX_BYTES >> 20} MiB", hint=f"split it into several files, {_NO_RULES}")


def _check_kind(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        hint = "put a regular file in its place, or move it away"
        raise SourceError("is neither a file nor a directory", hint=hint)


def _decode(data: bytes) -> str:
    encoding = next((codec for mark, codec in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        line = data[: exc.start].decode(encoding, "ignore").count("\n") + 1
        message = f"is not {encoding.removesuffix('-sig').upper()} at byte {exc.start}"
        raise SourceError(message, line=line, hint=f"save it as UTF-8, {_NO_RULES}") from exc


def unreadable(path: str, name: str, exc: OSError) -> TextFile:
    """The Document in error of a file or directory that the system does not let us read."""
    hint = "see that its volume works"
    target = read_link(path) if exc.errno in (errno.ENOENT, errno.ELOOP) else None
    if target is not None:
        hint = f"correct or remove the link: it leads to {printable(target)}"
    elif isinstance(exc, FileNotFoundError):
        hint = "see that the path is right and the volume is mounted"
    elif isinstance(exc, PermissionError):
        hint = "let the user of this process read it: in a pod, defaultMode or fsGroup"
    return TextFile(path, document_in_error(printable(name), f"cannot be read: {exc.strerror}", hint=hint))


def read_link(path: str) -> str | None:
    """The target of a link, None if this is no link."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def printable(name: str) -> str:
    """A path as it can be logged and sent, also one that is not UTF-8 on disk."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
