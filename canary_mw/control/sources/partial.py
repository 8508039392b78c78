"""Texts that may be only a part of a file: cut off, or still being written.

Nothing tells that a file which is written in place is complete. Two signs are used. A text that does not end with a
line feed is probably cut: its writer is at work, or the disk is full. A text that has just replaced another one in the
same inode may have more to come, even if it ends with a line feed.

A volume of Kubernetes is swapped as a whole, and an annotations file of the downward API never ends with a line feed:
neither is ever partial.
"""

import math
import os
import time
from dataclasses import replace
from typing import NamedTuple

from canary_mw.config.annotations import is_annotations_file
from canary_mw.config.document import Diagnostic, Document
from canary_mw.control.sources.text_file import TextFile

# Seconds without a change after which a text that ends with a line feed counts as complete.
SETTLED = 1.5
# Seconds without a change after which one that does not is given at all. Its last value may be cut.
LAST_LINE = 0.3


class _Known(NamedTuple):
    """A file at the last load.

    Attributes:
        document: what was read.
        given: what was returned for it.
        since: monotonic time of the load that was the first to read this text, -inf for the first load of the file.
        in_place: whether this text replaced another one in the same inode.
    """

    document: Document
    given: Document
    inode: int
    since: float
    in_place: bool


class PartialFiles:
    """Marks the documents of files that may be partial.

    Attributes:
        due: monotonic time at which a load may give something else without any change, `math.inf` for none.
    """

    def __init__(self) -> None:
        self.due = math.inf
        self._known: dict[str, _Known] = {}

    def check(self, files: list[TextFile]) -> list[Document]:
        """The documents of a load: each one complete, or marked as partial, or the one before the last change."""
        last, self._known = self._known, {}
        self.due = math.inf
        return [self._check(file, last.get(file.path)) for file in files]

    def _check(self, file: TextFile, last: _Known | None) -> Document:
        if file.document.error is not None:
            if last is not None:
                self._known[file.path] = last
            return file.document
        now = _known(file, last)
        given = self._judge(now, file.path)
        # The same object again, so that there is one copy of its text.
        given = now.given if given == now.given else given
        self._known[file.path] = now._replace(given=given)
        return given

    def _judge(self, now: _Known, path: str) -> Document:
        document, ended = now.document, now.document.text.endswith(("\n", "\r"))
        due = now.since + (SETTLED if ended else LAST_LINE)
        waits = time.monotonic() < due
        if (ended and not (waits and now.in_place)) or _is_whole(path, document):
            return document
        if waits:
            self.due = min(self.due, due)
            return replace(document, partial=_unsettled(document)) if ended else now.given
        return replace(document, partial=_cut(document))


def _known(file: TextFile, last: _Known | None) -> _Known:
    if last is None:
        return _Known(file.document, file.document, file.inode, -math.inf, False)
    if last.document.text == file.document.text:
        return last._replace(inode=file.inode)
    return _Known(file.document, last.given, file.inode, time.monotonic(), file.inode == last.inode)


def _unsettled(document: Document) -> Diagnostic:
    message = "the file was written just now, and more may follow"
    hint = f"they go when nothing is written for {SETTLED} seconds, and at once if another file is renamed over it"
    return Diagnostic(severity="notice", code="not-removed", message=message, file=document.name, hint=hint)


def _cut(document: Document) -> Diagnostic:
    rename = "write rules to another file and rename it over this one"
    if document.text:
        message, hint = "the file does not end with a line feed, as when it is cut off", f"end its last line; {rename}"
        return Diagnostic(severity="warning", code="not-removed", message=message, file=document.name, hint=hint)
    message, hint = "the file is empty, as when it is cut off", f"delete it, or write a comment into it; {rename}"
    return Diagnostic(severity="error", code="not-removed", message=message, file=document.name, hint=hint)


def _is_whole(path: str, document: Document) -> bool:
    """Whether a file is a key of a volume of Kubernetes, or an annotations file."""
    # Only there a directory has a name that begins with two dots: the target of `..data`.
    parts = os.path.realpath(path).split(os.sep)
    return any(part.startswith("..") for part in parts) or is_annotations_file(document.text)
