"""Differences between the Mappings of two loads."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from canary_mw.config.document import Document
from canary_mw.routing.table import RouteTable
from canary_mw.rules.epoch import Epoch
from canary_mw.rules.mapping import Mapping


def content_of(documents: Iterable[Document]) -> str:
    """64 bits in hexadecimal that are the same for the same documents; "" for none."""
    hashed, found = sha256(usedforsecurity=False), False
    for document in documents:
        found = True
        for text in (document.name, document.text):
            hashed.update(len(text).to_bytes(8))
            hashed.update(text.encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()[:16] if found else ""


def epochs_of(table: RouteTable) -> dict[str, Epoch]:
    """The epochs of the releases of a table, and of its groups with gray Mappings and no release."""
    found = {name: release.epoch for name, release in table.releases.items()}
    for group in table.groups:
        for share in group.shares:
            split = share.decision.split
            if split is not None and split.epoch is not None:
                found.setdefault(split.name, split.epoch)
    return found


def difference(before: Iterable[Mapping], after: Iterable[Mapping]) -> dict[str, tuple[str, ...]]:
    """The names of the Mappings that were added, removed and changed, as `Reloaded` has them."""
    old, new = _by_name(before, after), _by_name(after, before)
    return {
        "added": tuple(name for name in new if name not in old),
        "removed": tuple(name for name in old if name not in new),
        "changed": tuple(name for name in new if name in old and old[name] != new[name]),
    }


def _by_name(mappings: Iterable[Mapping], others: Iterable[Mapping]) -> dict[str, Mapping]:
    """Mappings by name, without those that are also among the others."""
    same = set(map(id, others))
    return {f"{mapping.name}.{mapping.namespace}": mapping for mapping in mappings if id(mapping) not in same}


def same_mappings(before: Sequence[Mapping], after: Sequence[Mapping]) -> bool:
    """Whether nothing differs, the lines where they are written included."""
    pairs = zip(before, after, strict=False)
    return len(before) == len(after) and all(
        one is other or (one == other and (one.file, one.line) == (other.file, other.line)) for one, other in pairs
    )
