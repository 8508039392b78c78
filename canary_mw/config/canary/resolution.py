"""The releases of a source beside its Mappings: which are in force, and which Mappings those in error hold back.

A release in error keeps its last good version, if that one still fits the Mappings. Without one, its gray Mappings get
nothing, so that no mistake sends anybody to gray.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from canary_mw.config.canary.fields import FieldError
from canary_mw.config.canary.plan_checks import group_errors, plan_findings
from canary_mw.config.document import Diagnostic, Severity
from canary_mw.config.last_good import Name
from canary_mw.config.wording import did_you_mean
from canary_mw.exceptions import ConfigError
from canary_mw.rules.id_list import IdList
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import NO_RELEASES, SLOTS, SLOTS_PER_PERCENT, GrayRelease, Releases, ReleaseVariant

# Reads a file of ids: the name of the rules file, the path that is written there, ids to add.
ReadIds = Callable[[str, str, IdList], IdList]
_Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the releases are checked against.

    Attributes:
        mappings: with unique names.
        middleware: a wrapped app takes what no Mapping takes.
        previous: the releases in force.
        read_ids: None where no files are read.
        previous_mappings: the Mappings in force.
    """

    mappings: Sequence[Mapping]
    middleware: bool
    previous: Releases = NO_RELEASES
    read_ids: ReadIds | None = None
    previous_mappings: Sequence[Mapping] = ()
    names: dict[Name, Mapping] = field(init=False, repr=False, default_factory=dict)
    groups: dict[_Key, list[Mapping]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for mapping in self.mappings:
            self.groups.setdefault(mapping.key, []).append(mapping)
            self.names[mapping.namespace, mapping.name] = mapping
            written = mapping.name.removesuffix(f".{mapping.namespace}")
            self.names.setdefault((mapping.namespace, written), mapping)
            self.names.setdefault(("", mapping.name), mapping)

    def find(self, namespace: str, name: str) -> Mapping | None:
        """The Mapping of a name in a namespace, else that of the whole name in any."""
        return self.names.get((namespace, name)) or self.names.get(("", name))


class _Accepted:
    """The releases that are in force so far, and the groups that they govern."""

    def __init__(self) -> None:
        self.releases: list[GrayRelease] = []
        self.groups: dict[_Key, GrayRelease] = {}

    def add(self, release: GrayRelease, scope: Surroundings) -> None:
        self.releases.append(release)
        self.groups |= dict.fromkeys(_governed(release, scope), release)


def resolve(
    releases: Sequence[GrayRelease],
    gray_in_error: frozenset[Name],
    scope: Surroundings,
    diagnostics: list[Diagnostic],
) -> Releases:
    """Check the releases in the order in which they are written.

    Args:
        gray_in_error: the Mappings that documents in error name as gray.
        diagnostics: what is found is added to this list.
    """
    accepted = _Accepted()
    last_good = {(each.namespace, each.name): each for each in scope.previous.in_force}
    held = {mapping.name for namespace, name in gray_in_error if (mapping := scope.find(namespace, name))}
    for release in releases:
        found, errors = _resolved(release, accepted, scope)
        diagnostics += [_diagnostic(release, error) for error in errors]
        if errors:
            held |= _gray(release, scope)
            last = last_good.get((release.namespace, release.name))
            found, errors = _resolved(last, accepted, scope, last_good=True) if last else (release, errors)
        if not errors:
            accepted.add(found, scope)
            diagnostics += _notices(release, found, scope)
    return Releases(tuple(accepted.releases), _held_back(held, accepted, scope))


def _held_back(names: set[str], accepted: _Accepted, scope: Surroundings) -> frozenset[str]:
    """The Mappings that releases in error call gray, without those that serve in a group of a release in force.

    There a Mapping that was stable before stays stable, unless its weight has changed.
    """
    used = {name for each in accepted.releases for name in (*each.gray_mappings, *each.stable)}
    before = {mapping.name: mapping.weight for mapping in scope.previous_mappings}
    for name in names - used:
        mapping = scope.names[("", name)]
        if mapping.key in accepted.groups and before.get(name, ...) == mapping.weight:
            used.add(name)
    return frozenset(names - used)


def _resolved(
    release: GrayRelease, accepted: _Accepted, scope: Surroundings, *, last_good: bool = False
) -> tuple[GrayRelease, list[FieldError]]:
    """The release with the names of its Mappings, its percents and its lists; and its errors."""
    errors = [*_mapping_errors(release, scope)]
    if errors:
        return release, errors
    release = _with_final_names(release, scope)
    errors = [*_group_errors(release, accepted, scope), *_layer_errors(release, accepted)]
    try:
        release = _with_weights(release, scope)
        # The lists of a last good version are those that were read then.
        release = release if last_good else _with_lists(release, scope)
    except FieldError as error:
        errors.append(error)
    return release, errors


def _mapping_errors(release: GrayRelease, scope: Surroundings) -> Iterator[FieldError]:
    owners: dict[str, str] = {}
    for variant in release.variants:
        groups: dict[_Key, str] = {}
        for name in variant.mappings:
            path = f"gray.{variant.name}"
            mapping = scope.find(release.namespace, name)
            if mapping is None and variant.slots is None:
                # The driver of the weights has not made it yet, or has deleted it.
                continue
            if mapping is None or not _is_member(mapping, scope):
                yield _no_member(mapping, name, path, scope)
                continue
            if name in owners:
                text = f"Mapping {name} is in {owners[name]} and in {variant.name}"
                yield FieldError("release-mapping", path, text, "name it in one variant")
            if mapping.key in groups:
                text = f"{variant.name} has two Mappings of one group: {groups[mapping.key]} and {name}"
                yield FieldError("release-mapping", path, text, "name one Mapping of each group")
            owners[name] = variant.name
            groups[mapping.key] = name
    for name in release.stable:
        mapping = scope.find(release.namespace, name)
        if mapping is None or not _is_member(mapping, scope):
            yield _no_member(mapping, name, "stable", scope)


def _no_member(mapping: Mapping | None, name: str, path: str, scope: Surroundings) -> FieldError:
    if mapping is None:
        hint = did_you_mean(name, [each.name for each in scope.mappings]) or "write its Mapping, or correct the name"
        return FieldError("release-unknown-mapping", path, f"there is no Mapping {name}", hint)
    what = "is a shadow" if mapping.shadow else "redirects, or is in a group that redirects"
    return FieldError("release-mapping", path, f"Mapping {name} {what}", "name a Mapping that forwards to a service")


def _is_member(mapping: Mapping, scope: Surroundings) -> bool:
    """Whether a Mapping gets a share of its group."""
    return not mapping.shadow and not any(each.redirect for each in scope.groups[mapping.key])


def _with_final_names(release: GrayRelease, scope: Surroundings) -> GrayRelease:
    def final(name: str) -> str:
        mapping = scope.find(release.namespace, name)
        return mapping.name if mapping else name

    variants = tuple(replace(each, mappings=tuple(map(final, each.mappings))) for each in release.variants)
    named = replace(release, variants=variants, stable=tuple(map(final, release.stable)))
    return named if release.plan is None else replace(named, groups=tuple(_governed(named, scope)))


def _governed(release: GrayRelease, scope: Surroundings) -> list[_Key]:
    found = (scope.find(release.namespace, name) for name in release.gray_mappings)
    return list(dict.fromkeys(mapping.key for mapping in found if mapping))


def _gray(release: GrayRelease, scope: Surroundings) -> set[str]:
    found = (scope.find(release.namespace, name) for name in release.gray_mappings)
    return {mapping.name for mapping in found if mapping}


def _group_errors(release: GrayRelease, accepted: _Accepted, scope: Surroundings) -> Iterator[FieldError]:
    for key in _governed(release, scope):
        other = accepted.groups.get(key)
        members = [each for each in scope.groups[key] if not each.shadow]
        names = " + ".join(each.name for each in members)
        if other is not None:
            text = f"the group of {names} has the release {other.name} already"
            yield FieldError("release-conflict", "gray", text, "a group has one release: name its variants there")
        if not scope.middleware and not _stable_of(release, members):
            hint = "write a Mapping without weight for the stable version, or name it: stable"
            yield FieldError("release-no-stable", "stable", f"the group of {names} has no stable Mapping", hint)
        yield from group_errors(release, members)


def _stable_of(release: GrayRelease, members: list[Mapping]) -> list[Mapping]:
    named = [each for each in members if each.name in release.stable]
    return named or [each for each in members if each.name not in release.gray_mappings]


def _layer_errors(release: GrayRelease, accepted: _Accepted) -> Iterator[FieldError]:
    layer = release.layer
    for other in accepted.releases if layer else ():
        if layer is None or other.layer is None or other.layer.name != layer.name:
            continue
        if other.layer.start < layer.end and layer.start < other.layer.end:
            text = f"the slice of layer {layer.name} overlaps with that of {other.name}"
            yield FieldError("layer-overlap", "layer", text, "give each release of a layer a slice of its own")
        if _key_source(other) != _key_source(release):
            text = f"layer {layer.name} has another sticky in {other.name}, so one user could be in both"
            yield FieldError("layer-key", "layer", text, "write the same sticky in all releases of a layer")


def _key_source(release: GrayRelease) -> tuple[object, ...]:
    return release.sticky, release.cookie.name if release.missing == "cookie" else None


def _with_weights(release: GrayRelease, scope: Surroundings) -> GrayRelease:
    """The release with the weights of its Mappings in place of percents, if it has none."""
    if all(variant.slots is not None for variant in release.variants):
        return release
    variants = tuple(
        replace(each, slots=_weight(release, each, scope) if each.slots is None else each.slots)
        for each in release.variants
    )
    if (total := sum(variant.slots or 0 for variant in variants)) > SLOTS:
        text = f"the weights of the gray Mappings add up to {total * 100 / SLOTS:g}, more than 100"
        raise FieldError("release-weights", "gray", text, "lower one; the rest is stable's")
    return replace(release, variants=variants)


def _weight(release: GrayRelease, variant: ReleaseVariant, scope: Surroundings) -> int:
    mapping = scope.find(release.namespace, variant.mappings[0])
    return (mapping.percent or 0) * SLOTS_PER_PERCENT if mapping else 0


def _with_lists(release: GrayRelease, scope: Surroundings) -> GrayRelease:
    variants = tuple(
        replace(each, always=_ids(release, each.always_file, f"gray.{each.name}", each.always, scope))
        for each in release.variants
    )
    never = _ids(release, release.never_file, "never", release.never, scope)
    return replace(release, variants=variants, never=never)


def _ids(release: GrayRelease, path: str | None, attribute: str, ids: IdList, scope: Surroundings) -> IdList:
    if path is None:
        return ids
    if scope.read_ids is None:
        raise FieldError("release-list", attribute, f"the list {path} cannot be read here", "write ids")
    try:
        return scope.read_ids(release.file, path, ids)
    except ConfigError as exc:
        raise FieldError("release-list", attribute, f"the list {path}: {exc.message}", exc.hint) from None


def _notices(written: GrayRelease, release: GrayRelease, scope: Surroundings) -> Iterator[Diagnostic]:
    for variant in written.variants:
        if variant.slots is None and scope.find(written.namespace, variant.name) is None:
            text = f"there is no Mapping {variant.name} now: its weight counts as 0"
            hint = "whoever drives the weights makes it with the first one; else correct the name"
            found = FieldError("release-unknown-mapping", f"gray.{variant.name}", text, hint)
            yield _diagnostic(written, found, "warning")
    gray = [scope.find(written.namespace, name) for name in written.gray_mappings]
    for severity, error in plan_findings(written, gray):
        yield _diagnostic(written, error, severity)
    percents = [each for each in written.variants if each.slots is not None]
    for variant in percents:
        for name in variant.mappings:
            mapping = scope.find(written.namespace, name)
            if mapping is not None and mapping.weight != 0:
                what = "has no weight" if mapping.weight is None else f"has the weight {mapping.weight}"
                text = f"Mapping {name} {what}, which has no effect while the release is in force"
                hint = "write weight: 0, so that nobody is in gray when the release cannot be read"
                error = FieldError("release-weight", f"gray.{variant.name}", text, hint)
                yield _diagnostic(written, error, "notice")
    if release.fallback is None:
        text = "without fallback, users hear of every failure of gray"
        yield _diagnostic(written, FieldError("release-unguarded", "name", text, "write fallback: {}"), "notice")


def _diagnostic(release: GrayRelease, error: FieldError, severity: Severity = "error") -> Diagnostic:
    return Diagnostic(
        severity=severity,
        code=error.code,
        message=f"GrayRelease {release.name}: {error.message}",
        file=release.file,
        line=release.line_of(error.attribute) or None,
        hint=error.hint,
    )
