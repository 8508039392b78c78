"""Findings about documents as they are written; a `Mapping` does not tell any more how its values were spelt."""

from collections.abc import Iterator

from canary_mw.config.document import Diagnostic
from canary_mw.config.parser import RuleSet
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report

_REGEXES = {"headers": "regex_headers", "query_parameters": "regex_query_parameters"}


def lint_documents(rules: RuleSet) -> list[Diagnostic]:
    """Booleans where a value is probably meant, and the lack of any Mapping."""
    found = _without_mappings(rules)
    for name, file in rules.files.items():
        for resource, parsed in file.documents.values():
            if parsed.mapping is not None:
                report = Report(resource, name)
                _report_booleans(resource, report)
                found += report.diagnostics
    return found


def _without_mappings(rules: RuleSet) -> list[Diagnostic]:
    """A finding where there is no Mapping at all, and no other error that says why.

    Files of other kinds alone, as those of the Hosts, may be one part of a whole that has the Mappings elsewhere.
    """
    if rules.mappings or any(each.severity == "error" for each in rules.diagnostics):
        return []
    passed_over = next((each for each in rules.diagnostics if each.code == "other-ambassador-id"), None)
    has_others = passed_over is None and any(file.documents for file in rules.files.values())
    return [
        Diagnostic(
            severity="warning" if has_others else "error",
            code="no-mappings",
            message="there is no Mapping: every request is answered 404, in a middleware by the app",
            file=passed_over.file if passed_over else next(iter(rules.files), "rules"),
            line=passed_over.line if passed_over else 1,
            hint=passed_over.hint if passed_over else "write a document with kind: Mapping",
        )
    ]


def _report_booleans(resource: Resource, report: Report) -> None:
    """v0, v1 and v2 have them; the API server writes `true` where v3alpha1 has a regex for any value."""
    for attribute, name, value in _conditions(resource):
        place = f"{attribute}.{name}"
        if value is True:
            text = f"{place}: true without quotes means present: every value matches, false too"
            report("notice", "unquoted-boolean", text, attribute=place, hint=f'quote it to compare it: {name}: "true"')
        elif value is False:
            text = f"{place}: false without quotes is no condition: with and without it, every request matches"
            hint = f'quote it to compare it: {name}: "false"; or leave it out'
            report("warning", "unquoted-boolean", text, attribute=place, hint=hint)


def _conditions(resource: Resource) -> Iterator[tuple[str, str, object]]:
    """(attribute, name, value) of the conditions that no regex of the same name overrides."""
    for attribute, regexes in _REGEXES.items():
        overridden = resource.spec.get(regexes) or {}
        for name, value in (resource.spec.get(attribute) or {}).items():
            if name not in overridden:
                yield attribute, name, value
