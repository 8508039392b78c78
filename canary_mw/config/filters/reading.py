"""All documents that name services which are asked: one value, with what is last good of each document in error."""

from collections.abc import Collection
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace

from canary_mw.config.ambassador.ambassador_id import matches_ambassador_id
from canary_mw.config.document import Diagnostic
from canary_mw.config.filters.auth_service import AuthSurroundings, auth_policy
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report
from canary_mw.config.wording import closest_to
from canary_mw.rules.filters.asked import Filters
from canary_mw.rules.filters.auth import AuthPolicy

Name = tuple[str, str]  # namespace, name
_AUTH = "AuthService"
_OWN = ("name", "services")


@dataclass(frozen=True, slots=True)
class FilterDocuments:
    """The documents in force, by namespace and name; last good versions included.

    Attributes:
        auth_in_error: the name of an AuthService that has no good version, "" for none.
    """

    auth: Dict[Name, AuthPolicy] = field(default_factory=dict)
    auth_in_error: str = ""

    @property
    def filters(self) -> Filters:
        """What is asked: by the first AuthService of its name, of the services of all."""
        policies = [self.auth[name] for name in sorted(self.auth, key=lambda each: each[::-1])]
        if not policies:
            return Filters(auth_in_error=self.auth_in_error)
        first, *others = policies
        same = [each for each in others if not differences(first, each)]
        services = tuple(service for each in (first, *same) for service in each.services)
        return Filters(auth=replace(first, services=services))


def is_filter(resource: Resource, kinds: Collection[str]) -> bool:
    """Whether a document names a service that is asked; also one whose kind is misspelt: it must not open the door.

    Args:
        kinds: those that are known.
    """
    if resource.kind == "Module":
        return resource.name == "authentication"
    return resource.kind == _AUTH or (resource.kind not in kinds and closest_to(resource.kind or "", [_AUTH]) == _AUTH)


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
    for resource, file in resources:
        if not matches_ambassador_id(resource, ambassador_id):
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
    documents = FilterDocuments(found, in_error or cut_off)
    _report_differences(documents, places, diagnostics)
    return documents


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
