"""The last rules of a Kubernetes API on disk, for a start while the API is away. There are no Secrets in them."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from time import time
from typing import Any, NamedTuple

from canary_mw.config.document import APIObject, Document

# Seconds after which rules are too old to start with, if nobody says otherwise.
MAX_AGE = 24 * 3600.0
_MAX_BYTES = 256 << 20


class Cached(NamedTuple):
    """Documents, and the time when they were written."""

    documents: tuple[Document, ...]
    written: float


class Cache:
    """One file.

    Args:
        directory: it has to exist.
        key: what the rules depend on; another key is another file.
        max_age: seconds after which its rules are not taken.
    """

    def __init__(self, directory: str, key: dict[str, Any], max_age: float = MAX_AGE) -> None:
        self._max_age = max_age
        self._key = json.loads(json.dumps(key))
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self.path = os.path.join(directory, f"kubernetes-{digest[:16]}.json")

    def write(self, documents: Sequence[Document], versions: dict[str, str]) -> None:
        """Replace the file as a whole.

        Raises:
            OSError: it cannot be written.
        """
        body = {"key": self._key, "written": time(), "versions": versions, "documents": as_json(documents)}
        # It has the mode 0600.
        handle, path = tempfile.mkstemp(dir=os.path.dirname(self.path), prefix=".kubernetes-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(body, file, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise

    def read(self) -> Cached:
        """The rules of the file.

        Raises:
            FileNotFoundError: there is none.
            OSError, ValueError: it cannot be used; the text says why.
        """
        with open(self.path, encoding="utf-8") as file:
            text = file.read(_MAX_BYTES)
        try:
            body = json.loads(text)
            key, written = body["key"], float(body["written"])
            documents = from_json(body["documents"])
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise ValueError("it is damaged") from exc
        if key != self._key:
            raise ValueError("it is of another address")
        age = time() - written
        if not -self._max_age < age < self._max_age:
            raise ValueError(f"its rules are {age:.0f} s old, and the limit is {self._max_age:.0f} s")
        return Cached(documents, written)


def as_json(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """Documents of an API as JSON values."""
    return [
        {"text": each.text, "name": each.name, "object": asdict(each.api_object)}
        for each in documents
        if each.api_object is not None
    ]


def from_json(items: list[dict[str, Any]]) -> tuple[Document, ...]:
    """The documents of `as_json`; raises KeyError or TypeError for other values."""
    return tuple(map(_document, items))


def _document(item: dict[str, Any]) -> Document:
    fields = dict(item["object"])
    fields["labels"] = tuple((str(name), str(value)) for name, value in fields["labels"])
    if not isinstance(item["text"], str) or not isinstance(item["name"], str):
        raise TypeError("a document without text")
    return Document(item["text"], item["name"], api_object=APIObject(**fields))
