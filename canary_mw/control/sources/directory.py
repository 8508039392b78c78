"""The rule files of a directory, also of a volume of Kubernetes."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from canary_mw.config.document import document_in_error, has_rule_suffix
from canary_mw.control.sources.text_file import TextFile, printable, read_link, read_text_file, unreadable

# Files without ending that stand beside the rules in a repository; to others without ending, their content decides.
_NO_RULES = frozenset(
    "authors changelog codeowners containerfile contributors copying dockerfile gnumakefile jenkinsfile justfile"
    " kustomization licence license maintainers makefile notice owners procfile readme tiltfile version".split()
)
# In a volume of Kubernetes, the link to the directory of the current update.
DATA_LINK = "..data"

_READ_ATTEMPTS = 10


class _RuleFile(NamedTuple):
    """A rule file that was found.

    Attributes:
        path: where to open it.
        name: its name in diagnostics.
        error: for a directory that cannot be listed, why.
    """

    path: str
    name: str
    error: OSError | None = None


def read_directory(root: str) -> list[TextFile]:
    """All rule files, sorted by name; those of a volume belong to one update of it.

    Raises:
        OSError: the directory itself cannot be read.
    """
    for _ in range(_READ_ATTEMPTS):
        data_dir = read_link(os.path.join(root, DATA_LINK))
        try:
            files = [_read(each) for each in _rule_files(root, data_dir)]
        except FileNotFoundError as exc:
            missing = exc.filename
        else:
            if data_dir == read_link(os.path.join(root, DATA_LINK)):
                return files
            missing = DATA_LINK
        time.sleep(0.01)
    message = f"{missing} is missing, or is replaced too fast to be read"
    return [TextFile(root, document_in_error(printable(root), message))]


def _read(file: _RuleFile) -> TextFile:
    if file.error is not None:
        return unreadable(file.path, file.name, file.error)
    found = read_text_file(file.path, file.name)
    return found._replace(document=replace(found.document, listed=True))


def _rule_files(root: str, data_dir: str | None) -> list[_RuleFile]:
    files = [*_walk(root, entries_of(root), root)]
    if data_dir is not None:
        top = os.path.join(root, data_dir)
        files += _walk(top, entries_of(top), root)
    return sorted(files, key=lambda file: (file.name, file.path))


def _walk(top: str, entries: list[os.DirEntry[str]], name_prefix: str) -> Iterator[_RuleFile]:
    for entry in entries:
        name = os.path.join(name_prefix, entry.name)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk_below(entry.path, name)
        elif is_rule_file(entry):
            yield _RuleFile(entry.path, name)


def _walk_below(top: str, name: str) -> Iterator[_RuleFile]:
    try:
        entries = entries_of(top)
    except FileNotFoundError:
        raise
    except OSError as exc:
        yield _RuleFile(top, name, exc)
    else:
        yield from _walk(top, entries, name)


def entries_of(top: str) -> list[os.DirEntry[str]]:
    """The entries of a directory that are not hidden."""
    with os.scandir(top) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def is_rule_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry that is no directory is read."""
    if not has_rule_suffix(entry.name) or entry.name.lower() in _NO_RULES:
        return False
    # A link to `..data` is a key of the volume, which is read from the target of `..data`. `isdir` is False for a link
    # to itself, for which `DirEntry.is_dir` raises an error.
    return not entry.is_symlink() or not (
        os.readlink(entry.path).startswith(DATA_LINK + "/") or os.path.isdir(entry.path)
    )
