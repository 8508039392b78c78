"""What is wrong with the rules: each finding with the lines around it, and with what goes on answering meanwhile."""

import re
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from canary_mw.admin.models.common import ExcerptLine
from canary_mw.admin.models.rules import RuleProblem
from canary_mw.config.document import Diagnostic
from canary_mw.control.store import RuleStore
from canary_mw.inspection.lint import lint
from canary_mw.routing.table import RouteTable

if TYPE_CHECKING:
    from canary_mw.config.parser import RuleSet

# Stands for the value of a secret.
NOT_SHOWN = "(not shown)"
# The code of a finding about all rules, which stands in no document.
_OUTSIDE = "rules"
_SEVERITIES = ("error", "warning", "notice")
# How a finding about a GrayRelease begins.
_RELEASE = re.compile(r"GrayRelease ([^\s:]+):")
# Lines before and behind the one of a finding.
_AROUND = 3
_MOST_CHARACTERS = 200
# The value of a line whose name says that it is nobody's business; a line that only opens a block holds none.
_SECRET = re.compile(
    r"(?i)\b([\w-]*(?:authorization|cookie|token|secret|passw|credential|api[-_]?key)[\w\"'-]*\s*[:=])\s*[^\s{\[|>].*"
)


class Findings:
    """The findings about one state of a store. They are worked out once: to examine many Mappings takes long.

    Attributes:
        unreached: why a Mapping is never reached, by its file, line and name.
        last_good: names of the Mappings that are last good versions.
        errors_of_mappings: the first error about each Mapping, by its name.
        errors_of_releases: the first error about each GrayRelease, by its name.
    """

    def __init__(self, store: RuleStore) -> None:
        self.state = _state(store)
        files = store.rules.files.values() if store.rules else ()
        self.last_good = frozenset(name for file in files for _, name in file.in_error)
        unreached = [each for each in lint(store.table) if each.code == "never-matches"]
        self.unreached = {(each.file, each.line, each.mapping): each.message for each in unreached}
        errors = [each for each in store.diagnostics if each.severity == "error"]
        self.errors_of_mappings = {each.mapping: each for each in reversed(errors) if each.mapping is not None}
        self.errors_of_releases = {name: each for each in reversed(errors) if (name := _release_of(each)) is not None}
        found = dict.fromkeys((*store.diagnostics, *_about_all(store), *unreached))
        ordered = sorted(found, key=lambda each: (_SEVERITIES.index(each.severity), each.file, each.line or 0))
        self.problems = [self._problem(each, store.rules, store.table) for each in ordered]

    def _problem(self, found: Diagnostic, rules: "RuleSet | None", table: RouteTable) -> RuleProblem:
        label, meanwhile = self._meanwhile(found, rules, table)
        return {
            "severity": found.severity,
            "file": found.file,
            "line": found.line,
            "mapping": found.mapping,
            "code": found.code,
            "message": found.message,
            "hint": found.hint,
            "label": label,
            "meanwhile": meanwhile,
            "excerpt": excerpt(rules, found.file, found.line),
        }

    def _meanwhile(self, found: Diagnostic, rules: "RuleSet | None", table: RouteTable) -> tuple[str, str]:
        """What is live, and what goes on answering."""
        if found.code == _OUTSIDE:
            return "Not live", "The rules before this change stay in force."
        if found.severity != "error":
            if found.code == "never-matches":
                return "Live, but never reached", "It takes no requests; other rules answer."
            return "Live", "It is live as written."
        release = _release_of(found)
        if release in table.releases:
            return "Not live: last good kept", "The last good version of the release goes on deciding."
        if release is not None:
            return "Not live", "Nobody gets its gray versions."
        if found.mapping is None:
            kept = rules is not None and found.file in rules.files and bool(rules.files[found.file].mappings)
            return _of_file(kept)
        if found.mapping in self.last_good:
            return "Not live: last good kept", "The last good version goes on answering."
        if any(each.name == found.mapping for each in table.mappings):
            return "Live in part", "The Mapping answers, without what is wrong in it."
        return "Not live", "It takes no requests. The other rules of this file are not affected."


def _release_of(found: Diagnostic) -> str | None:
    """The name of the GrayRelease that a finding is about."""
    match = _RELEASE.match(found.message)
    return match and match[1]


def _of_file(kept: bool) -> tuple[str, str]:
    if kept:
        return "Not live: last good kept", "What was last read of this file goes on answering."
    return "Not live", "What is in error here has no effect. The other rules are not affected."


def _about_all(store: RuleStore) -> tuple[Diagnostic, ...]:
    """The error of a store that is in none of its findings, as that of a source that lost all rules."""
    error = store.error
    known = {(each.file, each.line) for each in store.diagnostics if each.severity == "error"}
    if error is None or (error.file, error.line) in known:
        return ()
    place = error.file or store.source_name
    message = error.message
    return (Diagnostic(severity="error", code=_OUTSIDE, message=message, file=place, line=error.line, hint=error.hint),)


def excerpt(
    rules: "RuleSet | None", file: str, line: int | None, *, before: int = _AROUND, behind: int = _AROUND
) -> list[ExcerptLine]:
    """The lines around a line of a file of rules; empty where the text is not known. Values of secrets are left out."""
    if rules is None or line is None or file not in rules.files:
        return []
    lines = rules.files[file].document.text.splitlines()
    first = max(line - before, 1)
    return [
        {"line": number, "text": without_secret(text)[:_MOST_CHARACTERS], "marked": number == line}
        for number, text in enumerate(lines[first - 1 : line + behind], first)
    ]


def without_secret(line: str) -> str:
    """A line of a document without the value that its name calls secret."""
    return _SECRET.sub(rf"\1 {NOT_SHOWN}", line)


def _state(store: RuleStore) -> tuple[object, ...]:
    # Not the table: an old one must not be kept.
    return ref(store.table), str(store.error), store.diagnostics


_known: WeakKeyDictionary[RuleStore, Findings] = WeakKeyDictionary()


def findings_of(store: RuleStore) -> Findings:
    """The findings about a store as it is now."""
    found = _known.get(store)
    if found is None or found.state != _state(store):
        found = _known[store] = Findings(store)
    return found
