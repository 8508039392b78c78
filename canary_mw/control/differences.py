"""What two loads of the rules differ in, and what is said of a table."""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from canary_mw.config.document import Document
from canary_mw.routing.table import RouteTable
from canary_mw.rules.epoch import Epoch
from canary_mw.rules.mapping import Mapping

if TYPE_CHECKING:
    from canary_mw.config.parser import RuleSet


def content_of(documents: Iterable[Document], table: RouteTable) -> str:
    """64 bits in hexadecimal that are the same for the same documents and overrides; "" for no documents.

    Args:
        table: what is in force of the documents.
    """
    texts = [text for document in documents for text in (document.name, document.text)]
    hashed = sha256(usedforsecurity=False)
    for text in (*texts, *_override_texts(table)):
        hashed.update(len(text).to_bytes(8))
        hashed.update(text.encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()[:16] if texts else ""


def _override_texts(table: RouteTable) -> Iterable[str]:
    for name, release in sorted(table.releases.items()):
        if (override := release.override) is not None:
            weights = sorted(override.weights.items())
            yield json.dumps([name, weights, override.attempt, override.step, override.off, override.stopped])


def counted_of(table: RouteTable) -> dict[str, Any]:
    """What `Reloaded` says of a table."""
    found = table.releases.items()
    steps = {name: release.override.step for name, release in found if release.override is not None}
    return {"mappings": len(table.mappings), "epochs": epochs_of(table), "steps": steps}


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


def all_were_deleted(rules: "RuleSet | None", mappings: Iterable[Mapping]) -> bool:
    """Whether every Mapping in force is one of a Kubernetes API, whose complete lists say what is deleted."""
    files = rules.files if rules else {}
    objects = [files[each.file].document.api_object if each.file in files else None for each in mappings]
    return all(each is not None and not each.last_stays for each in objects)
