"""The GrayReleases among the documents of a source."""

from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import replace

from canary_mw.config.ambassador.ambassador_id import matches_ambassador_id
from canary_mw.config.canary.gray_release import KIND, named_mappings, to_release
from canary_mw.config.canary.resolution import Surroundings, resolve
from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.foreign_objects import CANARY_GROUPS, group_of
from canary_mw.config.last_good import Name, ParsedDocument, duplicate_release
from canary_mw.config.resource import Resource
from canary_mw.config.unique_names import between
from canary_mw.config.validation import Report
from canary_mw.rules.release import NO_RELEASES, GrayRelease, Releases


def is_release(resource: Resource) -> bool:
    """Whether a document is a GrayRelease, or one whose kind is misspelt."""
    return resource.kind == KIND or (resource.kind != "Mapping" and group_of(resource.api_version) in CANARY_GROUPS)


def parse_release(resource: Resource, file: str, ambassador_id: str, report: Report) -> ParsedDocument:
    """The result of a document for which `is_release` is true."""
    release = to_release(resource, file, ambassador_id, report)
    found = tuple(report.diagnostics)
    if not matches_ambassador_id(resource, ambassador_id):
        return ParsedDocument(None, None, found)
    gray = frozenset() if release else frozenset((resource.namespace, each) for each in named_mappings(resource.spec))
    return ParsedDocument(None, None, found, (resource.namespace, resource.name or ""), release, gray)


def releases_of(
    files: list[tuple[Document, Dict[Name, GrayRelease], frozenset[Name]]],
    scope: Callable[[], Surroundings],
    diagnostics: list[Diagnostic],
) -> Releases:
    """The releases of a source that are in force.

    Args:
        files: each file, its releases, and the Mappings that those in error name as gray.
        scope: called where there is any release, because it looks at every Mapping.
        diagnostics: what is found is added to this list.
    """
    if not any(releases or gray for _, releases, gray in files):
        return NO_RELEASES
    releases = _with_unique_names([(document, each) for document, each, _ in files], diagnostics)
    return resolve(releases, frozenset().union(*(gray for _, _, gray in files)), scope(), diagnostics)


def _with_unique_names(
    files: list[tuple[Document, Dict[Name, GrayRelease]]], diagnostics: list[Diagnostic]
) -> list[GrayRelease]:
    """As for Mappings: of two releases of one name and namespace the later one counts."""
    by_name: dict[Name, GrayRelease] = {}
    written: dict[Name, Document] = {}
    for document, releases in files:
        for name in releases.keys() & by_name.keys():
            found = duplicate_release(releases[name], by_name[name])
            diagnostics.append(between(written[name], document, found))
        by_name |= releases
        written |= dict.fromkeys(releases, document)
    owners: dict[str, str] = {}
    out = []
    for release in by_name.values():
        owner = owners.setdefault(release.name, release.namespace)
        renamed = owner != release.namespace
        out.append(replace(release, name=f"{release.name}.{release.namespace}") if renamed else release)
    return out
