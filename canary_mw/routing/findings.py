"""Findings about groups and releases: weights that leave a part of the requests, and users that move."""

from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Dict

from canary_mw.config.document import Diagnostic
from canary_mw.routing.assignment import CompiledRelease
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.ranges import mixed_slots, moved_slots
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import SLOTS
from canary_mw.rules.weights import last_resort, total_percent


def split_findings(releases: Dict[str, CompiledRelease], previous: Dict[str, CompiledRelease]) -> Iterator[Diagnostic]:
    """Variants that are in each other's way, and users that a reload moves without cause."""
    for name, release in releases.items():
        for variant, slots in release.claims.collisions:
            text = f"{variant} meets other variants: {_percent(slots)} of the users lie elsewhere than without"
            hint = "these users move when the others change: lower the weights, or pin a variant with at"
            yield _release_finding("split-collision", release, f"{text} them", hint, variant)
        old = previous.get(name)
        moved = _moved(old, release) if old is not None and old is not release else 0
        if moved:
            text = f"{_percent(moved)} of the users change their variant without cause"
            hint = "end a variant by weight 0, add new ones at the end, keep the salt, and pin with at what must stay"
            yield _release_finding("split-moved", release, text, hint)


def _moved(old: CompiledRelease, new: CompiledRelease) -> int:
    same = old.document.hash == new.document.hash
    return moved_slots(old.claims, new.claims) if same else mixed_slots(old.claims, new.claims)


def _percent(slots: int) -> str:
    return f"{slots * 100 / SLOTS:.10g} %"


def _release_finding(code: str, release: CompiledRelease, message: str, hint: str, variant: str = "") -> Diagnostic:
    document = release.document
    return Diagnostic(
        severity="warning",
        code=code,
        message=f"GrayRelease {release.name}: {message}",
        file=document.file,
        line=document.line_of(f"gray.{variant}" if variant else "gray") or None,
        hint=hint,
    )


def weight_findings(group: MappingGroup, middleware: bool) -> Iterable[Diagnostic]:
    """Weights that leave a part of the requests; more than 100 is an error of the documents (`config/weights.py`)."""
    if middleware or group.governed or not group.weighted or group.redirect or len(group.members) == 1:
        return
    total = total_percent(group.members)
    last = next(m for m in reversed(group.members) if m.weight is not None)
    text, hint = f"the weights of {group.name} add up to {total}", "leave the weight of the stable Mapping out"
    if taker := last_resort(group.members):
        text += f": {taker.name} takes all requests, as if it were alone"
        yield mapping_finding("warning", "weights-hole", last, text, "write percentages, 0 to 100")
    elif group.total <= 0:
        text += ": none of them gets a request; where no other group matches, the response is 404"
        yield mapping_finding("warning", "weights-hole", last, text, hint)
    elif group.total < 100:
        text += f": {100 - total} % go to other groups that match; what none takes is divided by relative weight"
        yield mapping_finding("warning", "weights-hole", last, text, hint)


def mapping_finding(severity: str, code: str, mapping: Mapping, message: str, hint: str | None = None) -> Diagnostic:
    """A finding at the line of a Mapping."""
    return Diagnostic(
        severity="error" if severity == "error" else "warning",
        code=code,
        message=message,
        file=mapping.file,
        line=mapping.line or None,
        mapping=mapping.name,
        hint=hint,
    )
