"""The names of Mappings, across the files of all sources."""

from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import replace

from canary_mw.config.document import Diagnostic, Document
from canary_mw.config.last_good import Name, duplicate_name
from canary_mw.rules.mapping import Mapping


def unique_names(files: Iterable[tuple[Document, Dict[Name, Mapping]]], diagnostics: list[Diagnostic]) -> list[Mapping]:
    """All Mappings with unique names.

    Of two definitions of a name the later one counts, at the place of the first. A name that is used again in another
    namespace gets that namespace appended.
    """
    by_name: dict[Name, Mapping] = {}
    owners: dict[Name, Document] = {}
    for document, mappings in files:
        # A fast test, because there are nearly never any.
        if not by_name.keys().isdisjoint(mappings):
            again = [name for name in mappings if name in by_name]
            found = [duplicate_name(mappings[name], by_name[name]) for name in again]
            diagnostics += [between(owners[name], document, each) for name, each in zip(again, found, strict=True)]
        by_name |= mappings
        owners |= dict.fromkeys(mappings, document)
    return _with_namespaces(list(by_name.values()))


def between(earlier: Document, later: Document, finding: Diagnostic) -> Diagnostic:
    """The finding about a name that two files have. A file may stand in for what is not in a cluster."""
    if (earlier.api_object is None) == (later.api_object is None):
        return finding
    return replace(finding, severity="notice", code="replaced-by-later-source", hint=None)


def _with_namespaces(mappings: list[Mapping]) -> list[Mapping]:
    if len({mapping.name for mapping in mappings}) == len(mappings):
        return mappings
    owners: dict[str, str] = {}
    out = []
    for mapping in mappings:
        owner = owners.setdefault(mapping.name, mapping.namespace)
        renamed = owner != mapping.namespace
        out.append(replace(mapping, name=f"{mapping.name}.{mapping.namespace}") if renamed else mapping)
    return out
