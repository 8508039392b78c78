"""A `List` that is too large for one document, split into its items by their indentation, before it is parsed.

`kubectl get mappings -A -o yaml` prints one document, and 600 Mappings with their metadata are more than a document may
have. Each item is then read as a document of its own, under the same limits.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from canary_mw.config.foreign_objects import group_of
from canary_mw.config.yaml.loader import DocumentRefused, is_too_large, load

# The line before the items, and how the first line of each begins: a block of YAML, and JSON with an indentation.
_YAML_ITEMS, _YAML_ITEM = re.compile(r"items:[ \t]*"), re.compile(r"( *)- ")
_JSON_ITEMS, _JSON_ITEM = re.compile(r'([ \t]+)"items": \['), re.compile(r"([ \t]+)\{$")


class _Items(NamedTuple):
    """Where the items stand: the first line, the line after the last, and the indentation of each."""

    begin: int
    end: int
    indent: str


def split_list(text: str) -> list[tuple[int, str]] | None:
    """The items of a large List, each with the number of lines before it; None for any other text."""
    if not is_too_large(text):
        return None
    lines = text.split("\n")
    if (items := _yaml_items(lines)) and _is_list([*lines[: items.begin], *lines[items.end :]]):
        # The item without its dash has the same lines, and the same columns.
        return [(at, each.replace("-", " ", 1)) for at, each in _texts(lines, items, "- ")]
    if (items := _json_items(lines)) and _is_list([*lines[: items.begin], *lines[items.end :]]):
        return [(at, each.rstrip().removesuffix(",")) for at, each in _texts(lines, items, "{")]
    return None


def _yaml_items(lines: list[str]) -> _Items | None:
    begin = next((at for at, line in enumerate(lines, 1) if _YAML_ITEMS.fullmatch(line)), len(lines))
    first = _YAML_ITEM.match(lines[begin]) if begin < len(lines) else None
    if first is None:
        return None
    end = next((at for at in range(begin, len(lines)) if lines[at][:1] not in ("", " ", "\t", "-", "#")), len(lines))
    return _Items(begin, end, first[1])


def _json_items(lines: list[str]) -> _Items | None:
    found = next(((at, match) for at, line in enumerate(lines, 1) if (match := _JSON_ITEMS.fullmatch(line))), None)
    if found is None or found[0] == len(lines):
        return None
    (begin, outer), first = found, _JSON_ITEM.match(lines[found[0]])
    end = next((at for at in range(begin, len(lines)) if lines[at].startswith(outer[1] + "]")), None)
    return None if first is None or end is None else _Items(begin, end, first[1])


def _is_list(frame: list[str]) -> bool:
    """Whether the lines around the items are those of a List."""
    try:
        loaded = load("\n".join(frame))
    except DocumentRefused:
        return False
    value = loaded[1] if loaded else None
    return isinstance(value, dict) and value.get("kind") == "List" and group_of(value.get("apiVersion")) == ""


def _texts(lines: list[str], items: _Items, mark: str) -> Iterator[tuple[int, str]]:
    starts = [at for at in range(items.begin, items.end) if lines[at].startswith(items.indent + mark)]
    for at, following in zip(starts, [*starts[1:], items.end], strict=True):
        yield at, "\n".join(lines[at:following])
