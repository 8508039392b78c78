"""What is checked of the plan of a release beside its Mappings, and what is said of its evidence."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from canary_mw.config.canary.fields import FieldError
from canary_mw.config.document import Severity
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.release import SLOTS, GrayRelease

# Argo Rollouts appends it to the name of the base Mapping, which it cuts first.
_ARGO_SUFFIX = "-canary"
_ARGO_CUT = 246
# Keys that whoever sends a request writes at will.
_CLIENT_TEXT = frozenset(("header", "cookie", "query"))


def group_errors(release: GrayRelease, members: Sequence[Mapping]) -> Iterator[FieldError]:
    """What is wrong with a group that a release with a plan governs."""
    if release.plan is None:
        return
    found = next((pair for pair in _pairs(release, members) if _is_one_service(*pair)), None)
    if found is not None:
        gray, other = found
        text = f"Mappings {gray.name} and {other.name} lead to one service, {gray.service.text}: nothing is compared"
        yield FieldError("release-mapping", f"gray.{_variant_of(release, gray)}", text, "name the service of gray")
    made = next((each for each in members if _is_made_by_argo(each, members)), None)
    if made is not None:
        text = f"Mapping {made.name} has the weight {made.weight} and the name that Argo Rollouts gives to its canaries"
        hint = "one of both drives: leave steps out, or take the Mapping out of the Rollout; rename one of your own"
        yield FieldError("release-drivers", "steps", text, hint)


def _pairs(release: GrayRelease, members: Sequence[Mapping]) -> Iterator[tuple[Mapping, Mapping]]:
    for gray in (each for each in members if each.name in release.gray_mappings):
        yield from ((gray, other) for other in members if other is not gray)


def _variant_of(release: GrayRelease, mapping: Mapping) -> str:
    return next(each.name for each in release.variants if mapping.name in each.mappings)


def _is_one_service(one: Mapping, other: Mapping) -> bool:
    """Whether both send a request to the same place in the same form."""
    return _apart_from_share(one) == _apart_from_share(other)


def _apart_from_share(mapping: Mapping) -> Mapping:
    return replace(mapping, name="", weight=None, variant=None, extras={})


def _is_made_by_argo(mapping: Mapping, members: Sequence[Mapping]) -> bool:
    """Whether a Mapping is a canary that Argo Rollouts drives: `svc-canary` beside `svc`, with a weight.

    Argo writes 0 at an abort, and before it deletes the Mapping; then it is told by being a copy of the base with
    another service.
    """
    if mapping.weight is None:
        return False
    bases = [
        each
        for each in members
        if not each.weight
        and each.namespace == mapping.namespace
        and each.name[:_ARGO_CUT] + _ARGO_SUFFIX == mapping.name
    ]
    return any(mapping.weight or _is_copy(mapping, each) for each in bases)


def _is_copy(mapping: Mapping, base: Mapping) -> bool:
    return replace(_apart_from_share(mapping), service=base.service) == _apart_from_share(base)


def plan_findings(release: GrayRelease, gray: Sequence[Mapping | None]) -> Iterator[tuple[Severity, FieldError]]:
    """What is said of a plan that is in force.

    Args:
        gray: the Mappings of its variants; None for one that is missing.
    """
    if release.plan is None:
        return
    judged = next((each for each in release.plan.stages if each.analysis is not None), None)
    if judged is None or judged.analysis is None:
        return
    if _is_forgeable(release):
        text = "whoever sends requests can choose their keys, and so make gray fail"
        hint = "take a key that clients cannot write: user:, session: or client_ip"
        yield "notice", FieldError("evidence-forgeable", "sticky", text, hint)
    recorded = [each.name for each in judged.analysis.metrics if each.kind in ("event", "value")]
    rewritten = next((each for each in gray if each is not None and _rewrites(each)), None)
    if recorded and rewritten is not None:
        text = f"Mapping {rewritten.name} rewrites the path, by which pods of gray know what was sent to them"
        hint = f'write rewrite: "", or what the app records there, as {recorded[0]}, counts nowhere'
        yield "notice", FieldError("evidence-elsewhere", "gray", text, hint)
    users = _audience_size(release)
    variant, percent = min(judged.weights.items(), key=lambda each: each[1])
    least = judged.analysis.minimum_keys
    if users is not None and users * percent / 100 < least:
        text = (
            f"{users:g} users at {percent:g} percent are {users * percent / 100:.3g} in {variant}: fewer than {least}"
        )
        hint = f"begin with a larger weight, or write fewer minimum_keys: the step waits for {least} of them"
        yield "warning", FieldError("release-keys", f"steps.{judged.item - 1}", text, hint)


def _rewrites(mapping: Mapping) -> bool:
    return mapping.regex_rewrite is not None or bool(mapping.rewrite and mapping.rewrite != mapping.prefix)


def _is_forgeable(release: GrayRelease) -> bool:
    if not release.sticky:
        # The anonymous cookie; a draw for each request has no key that anybody chooses.
        return release.missing == "cookie"
    return all(each.kind in _CLIENT_TEXT for each in release.sticky)


def _audience_size(release: GrayRelease) -> float | None:
    """How many keys can be drawn, layer and holdout taken off; None where the document does not say it."""
    if len(release.sticky) != 1 or release.missing == "roll":
        return None
    key = release.sticky[0]
    sizes = [len(term.values) for term in release.audience if (term.kind, term.name) == key]
    layer, holdout = release.layer, release.holdout
    share = (layer.end - layer.start) / SLOTS if layer else 1.0
    share *= 1 - holdout.slots / SLOTS if holdout else 1.0
    return min(sizes) * share if sizes else None
