"""All documents that name services which are asked: one value, with what is last good of each document in error."""

from collections.abc import Collection
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace

from canary_mw.config.ambassador.ambassador_id import matches_ambassador_id
from canary_mw.config.document import Diagnostic
from canary_mw.config.filters.auth_service import AuthSurroundings, auth_policy
from canary_mw.config.filters.rate_limit_service import rate_limit_policy
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report
from canary_mw.config.wording import closest_to
from canary_mw.rules.filters.asked import Filters
from canary_mw.rules.filters.auth import AuthPolicy
from canary_mw.rules.filters.limits import RateLimitPolicy

Name = tuple[str, str]  # namespace, name
_AUTH, _LIMIT = "AuthService", "RateLimitService"
_OWN = ("name", "services")


@dataclass(frozen=True, slots=True)
class FilterDocuments:
    """The documents in force, by namespace and name; last good versions included.

    Attributes:
        auth_in_error: the name of an AuthService that has no good version, "" for none.
        rate_limit: the only RateLimitService.
    """

    auth: Dict[Name, AuthPolicy] = field(default_factory=dict)
    auth_in_error: str = ""
    rate_limit: RateLimitPolicy | None = None

    @property
    def filters(self) -> Filters:
        """What is asked: by the first AuthService of its name, of the services of all."""
        policies = [self.auth[name] for name in sorted(self.auth, key=lambda each: each[::-1])]
        if not policies:
            return Filters(auth_in_error=self.auth_in_error, rate_limit=self.rate_limit)
        first, *others = policies
        same = [each for each in others if not differences(first, each)]
        services = tuple(service for each in (first, *same) for service in each.services)
        return Filters(auth=replace(first, services=services), rate_limit=self.rate_limit)


def is_filter(resource: Resource, kinds: Collection[str]) -> bool:
    """Whether a document names a service that is asked; also one whose kind is misspelt: it must not open the door.

    Args:
        kinds: those that are known.
    """
    if resource.kind == "Module":
        return resource.name == "authentication"
    return resource.kind in (_AUTH, _LIMIT) or (
        resource.kind not in kinds and closest_to(resource.kind or "", [_AUTH]) == _AUTH
    )


def read_filters(
    resources: list[tuple[Resource, str]],
    ambassador_id: str,
    surroundings: AuthSurroundings,
    last_good: FilterDocuments,
    complete: bool,
    cut_off: str,
    diagnostics: list[Diagnostic],
) -> FilterDocuments:
    """The documents of a source.

    Args:
        resources: of which `is_filter` is true, each with its file.
        complete: False if a document of the source could not be read; then nothing of `last_good` is removed.
        cut_off: a file that cannot be read wholly, and names an AuthService; "" for none.
        diagnostics: what is found is added to this list.
    """
    found: dict[Name, AuthPolicy] = {}
    in_error = ""
    places: dict[Name, Report] = {}
    resources = [each for each in resources if matches_ambassador_id(each[0], ambassador_id)]
    for resource, file in resources:
        if resource.kind == _LIMIT:
            continue
        name = resource.namespace, resource.name or ""
        report = places[name] = Report(resource, file, "config." if resource.kind == "Module" else "")
        known = resource.kind in (_AUTH, "Module")
        policy = (auth_policy(resource, surroundings, report) if known else None) or last_good.auth.get(name)
        if policy is None:
            in_error = in_error or resource.name or file
        elif name in found:
            report("error", "duplicate-name", "it is defined again; this one counts", hint="give it a name of its own")
        if policy is not None:
            found[name] = policy
        diagnostics += report.diagnostics
    if not complete:
        found = {**last_good.auth, **found}
    limits = [each for each in resources if each[0].kind == _LIMIT]
    limit = _rate_limit(limits, surroundings, last_good.rate_limit, complete, diagnostics)
    documents = FilterDocuments(found, in_error or cut_off, limit)
    _report_differences(documents, places, diagnostics)
    return documents


def _rate_limit(
    resources: list[tuple[Resource, str]],
    surroundings: AuthSurroundings,
    last_good: RateLimitPolicy | None,
    complete: bool,
    diagnostics: list[Diagnostic],
) -> RateLimitPolicy | None:
    """The only RateLimitService; of several the one that is in force already, or else the first."""
    policies: list[RateLimitPolicy] = []
    for resource, file in resources:
        report = Report(resource, file)
        policy = rate_limit_policy(resource, surroundings, report)
        if policy is None and last_good is not None and last_good.name == resource.name:
            policy = last_good
        if policies:
            text = f"there is one already, {policies[0].name}: only one RateLimitService can be in force"
            report("error", "several-rate-limit-services", text, hint="remove all others")
        if policy is not None:
            policies.append(policy)
        diagnostics += report.diagnostics
    if not policies:
        return None if complete and not resources else last_good
    kept = [each for each in policies if last_good is not None and each.name == last_good.name]
    return (kept or policies)[0]


def differences(first: AuthPolicy, other: AuthPolicy) -> list[str]:
    """The fields in which one AuthService differs from the first, apart from its service."""
    names = [name for name in AuthPolicy.__dataclass_fields__ if name not in (*_OWN, "folded")]
    return [name for name in names if getattr(first, name) != getattr(other, name)]


def _report_differences(documents: FilterDocuments, places: Dict[Name, Report], diagnostics: list[Diagnostic]) -> None:
    names = sorted(documents.auth, key=lambda each: each[::-1])
    for name in names[1:]:
        found = differences(documents.auth[names[0]], documents.auth[name])
        if found and name in places:
            resource = places[name].resource
            report = Report(resource, places[name].file)
            text = f"it is left out: {', '.join(found)} differ from those of AuthService {names[0][1]}"
            report("error", "auth-services-differ", text, hint="give all AuthServices the same attributes")
            diagnostics += report.diagnostics
