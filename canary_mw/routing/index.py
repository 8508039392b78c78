"""Finding the few groups whose prefix and host can match, at a cost that does not grow with the number of Mappings.

`PrefixSet` finds the longest stored prefix of a text by one bisection and a walk up its ancestors. Paths use it, and
host globs do: `prefix*` as they are, `*suffix` reversed. A regex prefix is stored under the literal text that every
match of it begins with; its group still tests the whole regex.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from canary_mw.rules.matchers import HostPattern, without_port

if TYPE_CHECKING:
    from canary_mw.routing.group import MappingGroup


T = TypeVar("T")
Groups = tuple["MappingGroup", ...]
# The place of each group in the order of routing.
Order = dict["MappingGroup", int]
# A node keeps the groups of all its ancestors ready merged, unless that would make the index grow quadratically.
MERGED_MAX = 256
# Slashes of a prefix that is looked up rather than searched for: each may cost a lookup.
DEPTH_MAX = 16


class PrefixSet(Generic[T]):
    """Texts with a value each; `chain(text)` yields the values of all stored texts that `text` begins with."""

    __slots__ = ("keys", "parents", "values")

    def __init__(self, items: dict[bytes, T]) -> None:
        self.keys = sorted(items)
        self.values = [items[key] for key in self.keys]
        self.parents = _parents(self.keys)

    def find(self, text: bytes) -> int:
        """Position of the longest stored prefix of `text`, or -1.

        Whatever sorts between a prefix of `text` and `text` itself begins with that prefix too, so the longest one is
        the last stored text not above `text`, or an ancestor of it.
        """
        position = bisect_right(self.keys, text) - 1
        while position >= 0 and not text.startswith(self.keys[position]):
            position = self.parents[position]
        return position

    def chain(self, text: bytes) -> Iterator[T]:
        """Values of all stored prefixes of `text`, longest first."""
        position = self.find(text)
        while position >= 0:
            yield self.values[position]
            position = self.parents[position]


def _parents(keys: list[bytes]) -> list[int]:
    """For each of the sorted keys the position of its longest proper prefix among them, or -1."""
    parents: list[int] = []
    for position, key in enumerate(keys):
        candidate = position - 1
        while candidate >= 0 and not key.startswith(keys[candidate]):
            candidate = parents[candidate]
        parents.append(candidate)
    return parents


class PathIndex:
    """Groups by what a path must begin with; `find` gives a superset of those that match, in routing order.

    Args:
        groups: in that order.
        order: the places of these groups, and maybe of others.

    Most prefixes end with a slash, so most requests find theirs by a dictionary lookup or two, which touch less memory
    than a bisection. It counts only where no ragged prefix, one without slash, matches too.
    """

    __slots__ = ("_aligned", "_depth", "_folded", "_order", "_plain", "_ragged")

    def __init__(self, groups: Iterable["MappingGroup"], order: Order) -> None:
        plain: dict[bytes, list[MappingGroup]] = {}
        folded: dict[bytes, list[MappingGroup]] = {}
        for group in groups:
            for fold, literal in group.literals:
                (folded if fold else plain).setdefault(literal, []).append(group)
        self._order = order
        self._plain = _merged(plain, order)
        self._folded = _merged(folded, order) if folded else None
        aligned, ragged = _split(self._plain)
        self._aligned = aligned
        self._ragged = PrefixSet(dict.fromkeys(ragged)) if ragged else None
        self._depth = max((literal.count(b"/") for literal in aligned), default=0)

    def find(self, path: bytes) -> Groups:
        """Candidate groups for a path, in routing order."""
        groups = self._find_plain(path)
        if self._folded is None:
            return groups
        folded = _groups_at(self._folded, path.lower(), self._order)
        return tuple(sorted({*groups, *folded}, key=self._order.__getitem__))

    def _find_plain(self, path: bytes) -> Groups:
        if self._ragged is not None and self._ragged.find(path) >= 0:
            return _groups_at(self._plain, path, self._order)
        found: Groups = ()
        end = 0
        for _ in range(self._depth):
            end = path.find(b"/", end) + 1
            if not end:
                break
            found = self._aligned.get(path[:end], found)
        return found


def _split(nodes: "PrefixSet[_Node]") -> tuple[dict[bytes, Groups], list[bytes]]:
    """Prefixes that end with a slash, with their merged groups, and those that have to be searched for."""
    aligned: dict[bytes, Groups] = {}
    ragged: list[bytes] = []
    for literal, node in zip(nodes.keys, nodes.values, strict=True):
        if literal[-1:] == b"/" and literal.count(b"/") <= DEPTH_MAX and node.merged is not None:
            aligned[literal] = node.merged
        else:
            ragged.append(literal)
    return aligned, ragged


class _Node:
    """Own groups of one prefix, and those of its ancestors merged in, while they are few."""

    __slots__ = ("merged", "own")

    def __init__(self, own: list["MappingGroup"]) -> None:
        self.own = own
        self.merged: Groups | None = None


def _merged(lists: dict[bytes, list["MappingGroup"]], order: Order) -> PrefixSet[_Node]:
    nodes = PrefixSet({literal: _Node(groups) for literal, groups in lists.items()})
    for node, parent in zip(nodes.values, nodes.parents, strict=True):
        above: Groups | None = nodes.values[parent].merged if parent >= 0 else ()
        if above is not None and len(above) + len(node.own) <= MERGED_MAX:
            node.merged = tuple(sorted((*above, *node.own), key=order.__getitem__) if above else node.own)
    return nodes


def _groups_at(nodes: PrefixSet[_Node], path: bytes, order: Order) -> Groups:
    position = nodes.find(path)
    if position < 0:
        return ()
    merged = nodes.values[position].merged
    if merged is not None:
        return merged
    return tuple(sorted((group for node in nodes.chain(path) for group in node.own), key=order.__getitem__))


class HostIndex:
    """`PathIndex`es by host pattern.

    Args:
        groups: in the order of routing.

    Attributes:
        order: place of each of them.
        only: the one index of a table that names no host.
    """

    __slots__ = ("_by_name", "_by_name_and_port", "only", "order")

    def __init__(self, groups: Iterable["MappingGroup"]) -> None:
        self.order: Order = {group: place for place, group in enumerate(groups)}
        by_pattern: dict[tuple[str, bytes], tuple[HostPattern, list[MappingGroup]]] = {}
        for group in self.order:
            pattern = group.host
            by_pattern.setdefault((pattern.kind, pattern.value), (pattern, []))[1].append(group)
        indexed = [(pattern, PathIndex(members, self.order)) for pattern, members in by_pattern.values()]
        self._by_name = _HostSet([item for item in indexed if not item[0].names_port])
        ported = [item for item in indexed if item[0].names_port]
        self._by_name_and_port = _HostSet(ported) if ported else None
        self.only = indexed[0][1] if len(indexed) == 1 and indexed[0][0].kind == "any" else None

    def find(self, host: bytes, path: bytes) -> Groups:
        """Candidate groups for a Host value and a path, in routing order."""
        if self.only is not None:
            return self.only.find(path)
        host = host.lower()
        indexes = list(self._by_name.find(without_port(host)))
        if self._by_name_and_port is not None:
            indexes += self._by_name_and_port.find(host)
        found = [groups for index in indexes if (groups := index.find(path))]
        if len(found) < 2:
            return found[0] if found else ()
        return tuple(sorted((group for groups in found for group in groups), key=self.order.__getitem__))


class _HostSet:
    __slots__ = ("any", "exact", "prefixes", "regexes", "suffixes")

    def __init__(self, items: list[tuple[HostPattern, PathIndex]]) -> None:
        kinds: dict[str, dict[bytes, PathIndex]] = {"exact": {}, "suffix": {}, "prefix": {}, "any": {}}
        self.regexes = [(pattern, index) for pattern, index in items if pattern.kind == "regex"]
        for pattern, index in items:
            if pattern.kind != "regex":
                kinds[pattern.kind][pattern.value] = index
        self.any = list(kinds["any"].values())
        self.exact = kinds["exact"]
        self.prefixes = PrefixSet(kinds["prefix"])
        self.suffixes = PrefixSet({value[::-1]: index for value, index in kinds["suffix"].items()})

    def find(self, host: bytes) -> Iterator[PathIndex]:
        if exact := self.exact.get(host):
            yield exact
        yield from self.suffixes.chain(host[::-1])
        yield from self.prefixes.chain(host)
        for pattern, index in self.regexes:
            if pattern.accepts(host):
                yield index
        yield from self.any
