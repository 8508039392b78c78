"""Releases as flags of OpenFeature: a provider that answers by the rules in force, and asks nobody."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata

from canary_mw.http.lanes import lanes_in
from canary_mw.http.messages import RequestHead
from canary_mw.propagate.carried import carried
from canary_mw.routing.assignment import DRAWS, Assigned, CompiledRelease
from canary_mw.routing.person import NOBODY
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import STABLE, Term

T = TypeVar("T")
_LOOKED_UP = frozenset(("user", "any", "all", "not"))
# Why somebody is stable who was not drawn, and not meant by name.
_LEFT_OUT = frozenset(("layer", "holdout", "audience", "missing"))
_OFF = frozenset(("disabled", "rolled_back"))
_BARE = RequestHead("GET")


class HasTable(Protocol):
    """Knows the rules in force, as a `RuleStore` does."""

    @property
    def table(self) -> RouteTable:
        """The rules in force."""


class CanaryProvider(AbstractProvider):
    """A provider of OpenFeature whose flags are the releases of a store, by their names.

    A string is the variant, or "stable"; a boolean is whether that is not stable. The targeting key is the key of the
    release; without one the decision about the present request counts, here or by a lane. The attributes of the context
    are the user of an `audience`. Nothing is counted, and nobody is told.

    Args:
        store: a `RuleStore`, as `middleware.store`.
    """

    def __init__(self, store: HasTable) -> None:
        super().__init__()
        self._store = store

    def get_metadata(self) -> Metadata:
        """See OpenFeature."""
        return Metadata("canary-mw")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Whether a user is in a gray variant."""
        found = self._assigned(flag_key, evaluation_context)
        if isinstance(found, Assigned):
            return _details(found.variant != STABLE, found)
        return FlagResolutionDetails(default_value, found, reason=_reason_without(found))

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """The variant of a user."""
        found = self._assigned(flag_key, evaluation_context)
        if isinstance(found, Assigned):
            return _details(found.variant or STABLE, found)
        return FlagResolutionDetails(default_value, found, reason=_reason_without(found))

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """No release has a number."""
        return _mismatch(default_value)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """No release has a number."""
        return _mismatch(default_value)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """No release has an object."""
        return _mismatch(default_value)

    def _assigned(self, flag: str, context: EvaluationContext | None) -> Assigned | ErrorCode | None:
        """The variant of a user; an error for a flag that is no release, None where nothing is known of the user."""
        release = self._store.table.releases.get(flag)
        if release is None:
            return ErrorCode.FLAG_NOT_FOUND
        key = None if context is None else context.targeting_key
        if context is None or not key:
            return _of_request(release)
        assigned = release.assignment_of(key)
        if assigned.reason != "sticky":
            return assigned
        return _outside(release, context) or assigned


def _outside(release: CompiledRelease, context: EvaluationContext) -> Assigned | None:
    """Stable, for who is not in the audience, and where that takes more than the attributes of the context."""
    if not _LOOKED_UP.issuperset(_kinds(release.document.audience)):
        return Assigned(release.name, STABLE, "audience")
    return release.by_audience(_BARE, NOBODY._replace(user=dict(context.attributes)), None)


def _kinds(terms: Iterable[Term]) -> set[str]:
    return {kind for term in terms for kind in (term.kind, *_kinds(term.inner))}


def _of_request(release: CompiledRelease) -> Assigned | None:
    """What was decided for the present request, here or by a service before; None where nothing was."""
    if not release.document.enabled:
        return Assigned(release.name, STABLE, "disabled")
    lanes = carried()
    if lanes is None:
        return None
    found = None if lanes.decision is None else lanes.decision.release
    if found is not None and found.name == release.name:
        return found
    name = lanes_in(lanes.lane).get(release.lane.name)
    return None if name is None else release.in_lane(name.decode())


def _details(value: T, assigned: Assigned) -> FlagResolutionDetails[T]:
    metadata: dict[str, bool | int | float | str] = {"reason": assigned.reason}
    if assigned.slot is not None:
        metadata["slot"] = assigned.slot
    return FlagResolutionDetails(
        value, reason=_reason(assigned.reason), variant=assigned.variant or STABLE, flag_metadata=metadata
    )


def _reason(reason: str) -> Reason:
    if reason in DRAWS:
        return Reason.SPLIT
    if reason in _OFF:
        return Reason.DISABLED
    return Reason.DEFAULT if reason in _LEFT_OUT else Reason.TARGETING_MATCH


def _reason_without(error: ErrorCode | None) -> Reason:
    return Reason.DEFAULT if error is None else Reason.ERROR


def _mismatch(default: T) -> FlagResolutionDetails[T]:
    text = "a release is a string (its variant) or a boolean (whether that is not stable)"
    return FlagResolutionDetails(default, ErrorCode.TYPE_MISMATCH, text, reason=Reason.ERROR)
