"""The rules that a command is given: files, directories, standard input, clusters, or what `CANARY_MW_RULES` names."""

import os
import sys
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, BinaryIO, TextIO, TypeVar

import click

from canary_mw.config.document import Document
from canary_mw.config.parser import RuleSet, parse
from canary_mw.control.id_files import IdFiles
from canary_mw.control.sources.base import ConfigSource
from canary_mw.control.sources.file import FileSource
from canary_mw.control.sources.kubernetes_url import is_kubernetes_url, split_rules
from canary_mw.control.sources.named import local_names_in, source_of
from canary_mw.control.sources.text_file import read_stream, unreadable
from canary_mw.exceptions import ConfigError
from canary_mw.server.settings import variable

STDIN = "-"
# These are opened anew where they are opened, which a socket does not allow.
_STDIN_PATHS = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
EXISTING_PATH = click.Path(exists=True, readable=True, allow_dash=True)

_T = TypeVar("_T", bound=Callable[..., Any])


def ambassador_id_option(command: _T) -> _T:
    """Add the option for the id of the process, with the variable that `canary-mw serve` reads."""
    name = variable("ambassador_id")
    option = click.option(
        "--ambassador-id",
        default="default",
        show_default=True,
        envvar=name,
        help=f"Take only Mappings for this id. [env: {name}]",
    )
    return option(command)


def rule_paths(given: Iterable[str]) -> tuple[str, ...]:
    """The given paths, or else those of `CANARY_MW_RULES`, each once; empty if there is neither.

    Raises:
        click.BadParameter: one of them does not exist.
    """
    texts = list(given) or [each.strip() for each in split_rules(os.environ.get(variable("rules"), ""), os.pathsep)]
    return tuple(dict.fromkeys(_checked_path(each) for each in texts if each))


def _checked_path(path: str) -> str:
    if is_kubernetes_url(path):
        return path
    return STDIN if path in _STDIN_PATHS else str(EXISTING_PATH.convert(path, None, None))


def load_rules(paths: Iterable[str], ambassador_id: str, *, middleware: bool = False) -> RuleSet:
    """Read and parse rules, with all variables, as `canary-mw serve` does.

    What cannot be read is an error among the diagnostics.
    """
    documents = load_documents(paths)
    read_ids = IdFiles().read
    return parse(documents, environ=os.environ, ambassador_id=ambassador_id, middleware=middleware, read_ids=read_ids)


def local_in_clusters(paths: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """The names of the local service, as rules of its namespace in a cluster have them too."""
    found = frozenset(names)
    for url in filter(is_kubernetes_url, paths):
        found |= local_names_in(_cluster(url), found)
    return found


def load_documents(paths: Iterable[str]) -> list[Document]:
    """Read files, directories, streams and clusters, in this order."""
    found: list[Document] = []
    for reader, group in groupby(paths, _reader_of):
        found += reader(list(group))
    return found


def _reader_of(path: str) -> Callable[[list[str]], list[Document]]:
    if is_kubernetes_url(path):
        return _read_clusters
    return _read_streams if _is_stream(path) else _read_files


def _read_files(paths: list[str]) -> list[Document]:
    return FileSource(*paths).load()


def _read_clusters(urls: list[str]) -> list[Document]:
    """What the API of each cluster has now."""
    found: list[Document] = []
    for url in urls:
        source = _cluster(url)
        found += source.load()
        getattr(source, "stop_watching", bool)()
    return found


def _cluster(url: str) -> ConfigSource:
    try:
        return source_of([url], may_exec=True)
    except ConfigError as exc:
        raise click.UsageError(str(exc)) from exc


def _read_streams(paths: list[str]) -> list[Document]:
    return [_read_stream(path) for path in paths]


def _is_stream(path: str) -> bool:
    """Whether a path is read once, to its end: standard input, or a pipe of the shell (`check <(helm template .)`).

    Other FIFOs and devices are refused, as where rules are served.
    """
    if path == STDIN:
        return True
    return path.startswith(("/dev/", "/proc/")) and not (os.path.isfile(path) or os.path.isdir(path))


def _read_stream(path: str) -> Document:
    try:
        if path == STDIN:
            return read_stream(standard_input(), "<stdin>")
        with open(path, mode="rb") as stream:
            return read_stream(stream, path)
    except OSError as exc:
        return unreadable(path, path, exc).document


def standard_input() -> BinaryIO:
    """Standard input, as bytes.

    Raises:
        click.UsageError: it is closed.
    """
    # Python sets it to None where the shell has closed it: `<&-`.
    stream: TextIO | None = sys.stdin
    if stream is None:
        raise click.UsageError("standard input is closed")
    return stream.buffer
