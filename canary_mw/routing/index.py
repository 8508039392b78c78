"""Find the groups whose prefix and host can match, at a cost that does not grow with the number of Mappings.

`PrefixSet` finds the longest stored prefix of a text by one bisection and a walk up its ancestors. It serves paths and
host patterns: `prefix*` as it is, `*suffix` reversed. A regex prefix is stored under the literal text that all its
matches begin with; its group still tests the whole regex.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from canary_mw.rules.matchers import HostPattern, without_port

if TYPE_CHECKING:
    from canary_mw.routing.group import MappingGroup


T = TypeVar("T")
Groups = tuple["MappingGroup", ...]
# The position of each group in routing order.
Order = dict["MappingGroup", int]
# A node stores its groups merged with those of its ancestors only up to this number, so that the index does not grow
# quadratically.
MAX_MERGED = 256
# The most slashes of a prefix that is found by dictionary lookup: each slash of a path may cost one lookup.
MAX_LOOKUP_DEPTH = 16


class PrefixSet(Generic[T]):
    """Texts with one value each; `chain(text)` yields the values of all stored texts that are a prefix of `text`."""

    __slots__ = ("keys", "parents", "values")

    def __init__(self, items: dict[bytes, T]) -> None:
        self.keys = sorted(items)
        self.values = [items[key] for key in self.keys]
        self.parents = _parents(self.keys)

    def find(self, text: bytes) -> int:
        """Position of the longest stored prefix of `text`, or -1.

        Every text that sorts between a prefix of `text` and `text` begins with that prefix too. So the longest prefix
        is the last stored text not above `text`, or an ancestor of it.
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
    """For each of the sorted keys, the position of its longest proper prefix among them, or -1."""
    parents: list[int] = []
    for position, key in enumerate(keys):
        candidate = position - 1
        while candidate >= 0 and not key.startswith(keys[candidate]):
            candidate = parents[candidate]
        parents.append(candidate)
    return parents


class PathIndex:
    """Groups by the literal text that a path must begin with.

    `find` returns the groups that match and maybe others, in routing order.

    Args:
        groups: in routing order.
        order: the positions of these groups, and maybe of others.

    Most prefixes end with a slash, so one or two dictionary lookups find the groups of most requests, and touch less
    memory than a bisection. The lookup is valid only when no prefix without a final slash matches too.
    """

    __slots__ = ("_depth", "_folded", "_order", "_plain", "_slash_prefixes", "_unaligned")

    def __init__(self, groups: Iterable["MappingGroup"], order: Order) -> None:
        plain: dict[bytes, list[MappingGroup]] = {}
        folded: dict[bytes, list[MappingGroup]] = {}
        for group in groups:
            for fold, literal in group.literals:
                (folded if fold else plain).setdefault(literal, []).append(group)
        self._order = order
        self._plain = _merged(plain, order)
        self._folded = _merged(folded, order) if folded else None
        self._slash_prefixes, unaligned = _split(self._plain)
        self._unaligned = PrefixSet(dict.fromkeys(unaligned)) if unaligned else None
        self._depth = max((literal.count(b"/") for literal in self._slash_prefixes), default=0)

    def find(self, path: bytes) -> Groups:
        """Candidate groups for a path, in routing order."""
        groups = self._find_plain(path)
        if self._folded is None:
            return groups
        folded = _groups_at(self._folded, path.lower(), self._order)
        return tuple(sorted({*groups, *folded}, key=self._order.__getitem__))

    def _find_plain(self, path: bytes) -> Groups:
        if self._unaligned is not None and self._unaligned.find(path) >= 0:
            return _groups_at(self._plain, path, self._order)
        found: Groups = ()
        end = 0
        for _ in range(self._depth):
            end = path.find(b"/", end) + 1
            if not end:
                break
            found = self._slash_prefixes.get(path[:end], found)
        return found


def _split(nodes: "PrefixSet[_Node]") -> tuple[dict[bytes, Groups], list[bytes]]:
    """Prefixes that end with a slash, with their merged groups, and the prefixes that need a bisection."""
    slash_prefixes: dict[bytes, Groups] = {}
    unaligned: list[bytes] = []
    for literal, node in zip(nodes.keys, nodes.values, strict=True):
        if literal[-1:] == b"/" and literal.count(b"/") <= MAX_LOOKUP_DEPTH and node.merged is not None:
            slash_prefixes[literal] = node.merged
        else:
            unaligned.append(literal)
    return slash_prefixes, unaligned


class _Node:
    """The groups of one prefix, and the same merged with those of its ancestors; None when there are too many."""

    __slots__ = ("merged", "own")

    def __init__(self, own: list["MappingGroup"]) -> None:
        self.own = own
        self.merged: Groups | None = None


def _merged(lists: dict[bytes, list["MappingGroup"]], order: Order) -> PrefixSet[_Node]:
    nodes = PrefixSet({literal: _Node(groups) for literal, groups in lists.items()})
    for node, parent in zip(nodes.values, nodes.parents, strict=True):
        inherited: Groups | None = nodes.values[parent].merged if parent >= 0 else ()
        if inherited is not None and len(inherited) + len(node.own) <= MAX_MERGED:
            node.merged = tuple(sorted((*inherited, *node.own), key=order.__getitem__) if inherited else node.own)
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
    """One `PathIndex` for each host pattern.

    Args:
        groups: in routing order.

    Attributes:
        order: the position of each group.
        only: the single index of a table whose groups match any host.
    """

    __slots__ = ("_by_name", "_by_name_and_port", "only", "order")

    def __init__(self, groups: Iterable["MappingGroup"]) -> None:
        self.order: Order = {group: position for position, group in enumerate(groups)}
        by_pattern: dict[tuple[str, bytes], tuple[HostPattern, list[MappingGroup]]] = {}
        for group in self.order:
            pattern = group.host
            by_pattern.setdefault((pattern.kind, pattern.value), (pattern, []))[1].append(group)
        indexed = [(pattern, PathIndex(members, self.order)) for pattern, members in by_pattern.values()]
        self._by_name = _HostSet([item for item in indexed if not item[0].has_port])
        with_port = [item for item in indexed if item[0].has_port]
        self._by_name_and_port = _HostSet(with_port) if with_port else None
        self.only = indexed[0][1] if len(indexed) == 1 and indexed[0][0].kind == "any" else None

    def find(self, host: bytes, path: bytes) -> Groups:
        """Candidate groups for the value of a Host header and a path, in routing order."""
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
    """Path indexes by host pattern; `find` yields those whose pattern matches a host."""

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
