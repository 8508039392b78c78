"""Findings about rules that are valid but probably not intended; `canary-mw check` reports them."""

import re
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as Dict
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from canary_mw.config.document import Diagnostic
from canary_mw.config.variables import unlisted_variables
from canary_mw.http.headers import has_control
from canary_mw.http.messages import RequestHead
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.wording import quoted

if TYPE_CHECKING:
    from canary_mw.config.parser import RuleSet

# A dot segment, a backslash, or an escaped unreserved character: a normalised path holds none of them.
_NOT_NORMAL = re.compile(r"/\.{1,2}/|\\|%(?:2[DE]|3\d|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])", re.I)
# What a regex holds and a path hardly ever; a lone * is that of a glob.
_REGEX = re.compile(r"^\^|\.[*+]|\\[dDwWsS.]|\[.+\]|[)\]}][*+?]|\(.*\|.*\)|\{\d+(,\d*)?\}|\$$")
_REGEX_VALUE = re.compile(r"^\^|\.[*+]|\$$")
_METHOD = re.compile(r"[A-Z]+(-[A-Z]+)*")
# What no name or value of a query parameter holds as it is sent.
_NOT_IN_QUERY = re.compile(r"[^\x21-\x7e]|[#&]")


def lint(table: RouteTable, *, shadow_writes: bool = False) -> list[Diagnostic]:
    """Check a table for what is legal and probably not meant.

    These are Mappings that can never match, lone weights, weights between equals, texts that look like regexes,
    rewrites that double a slash, and shadows that get writes.

    Args:
        shadow_writes: every shadow gets copies of writes, as set by `CANARY_MW_SHADOW_WRITES`.
    """
    found: list[Diagnostic] = []
    for group in table.groups:
        found += _covered(group, table)
        found += _without_share(group)
        found += _lone_weight(group, table.middleware)
        found += _same_service(group)
        for mapping in group.mappings:
            found += list(_looks_like_regex(mapping)) or _unreachable(mapping)
            found += _unmet(mapping)
            found += _regex_values(mapping)
            found += _doubles_slash(mapping)
        if group.shadow is not None:
            found += _copies_writes(group.shadow, shadow_writes)
    return sorted(found, key=lambda d: (d.file, d.line or 0))


def lint_variables(rules: "RuleSet", environ: Dict[str, str]) -> list[Diagnostic]:
    """Notices about variables that are put into these rules with `environ`, but would not be by a middleware."""
    return [
        found
        for name, file in rules.files.items()
        for found in unlisted_variables(file.reading.variables, environ, name)
    ]


def _warning(code: str, mapping: Mapping, message: str, hint: str) -> Diagnostic:
    return Diagnostic(
        severity="warning",
        code=code,
        message=f"Mapping {mapping.name}: {message}",
        file=mapping.file,
        line=mapping.line or None,
        mapping=mapping.name,
        hint=hint,
    )


def _unreachable(mapping: Mapping) -> Iterator[Diagnostic]:
    """A prefix that no normalised path can begin with."""
    if mapping.prefix_kind == "regex":
        return
    prefix = mapping.prefix
    if not prefix.startswith("/"):
        hint = f"write /{prefix.lstrip('*')}"
        yield _warning("never-matches", mapping, f"prefix {prefix} can never match: every path begins with /", hint)
        return
    if _NOT_NORMAL.search(prefix):
        hint = "write the prefix in the form that RFC 3986, section 6.2.2, normalises it to"
        yield _warning("never-matches", mapping, f"prefix {prefix} can never match: paths are normalised first", hint)
    elif "?" in prefix:
        hint = "write query_parameters: for what stands behind the ?"
        yield _warning("never-matches", mapping, f"prefix {prefix} can never match: a path holds no query", hint)
    elif not prefix.isascii() or " " in prefix or "#" in prefix:
        hint = "percent-encode it"
        yield _warning("never-matches", mapping, f"prefix {prefix} can never match: paths are percent-encoded", hint)


def _looks_like_regex(mapping: Mapping) -> Iterator[Diagnostic]:
    """A prefix that is compared as a text, and looks like a regex or a glob."""
    prefix = mapping.prefix
    if mapping.prefix_kind == "regex":
        return
    if _REGEX.search(prefix):
        text = f"prefix {prefix} looks like a regex, and is compared as a text"
        yield _warning("looks-like-regex", mapping, text, "write prefix_regex: true")
    elif "*" in prefix and prefix.startswith("/"):
        text = f"prefix {prefix} looks like a pattern, and is compared as a text, with its *"
        hint = (
            "leave the * out: a prefix matches each path that begins with it; or write a regex and prefix_regex: true"
        )
        yield _warning("looks-like-regex", mapping, text, hint)


def _regex_values(mapping: Mapping) -> Iterator[Diagnostic]:
    """Values of headers and query parameters that are compared as texts, and look like regexes."""
    for kind, conditions in (("header", mapping.conditions), ("query parameter", mapping.query)):
        for condition in conditions:
            if not condition.regex and _REGEX_VALUE.search(condition.value):
                text = f"{kind} {condition}: the value looks like a regex, and is compared as a text"
                attribute = "regex_headers" if kind == "header" else "regex_query_parameters"
                yield _warning("looks-like-regex", mapping, text, f"move it to {attribute}")


def _lone_weight(group: MappingGroup, middleware: bool) -> Iterator[Diagnostic]:
    """A Mapping with a weight that divides nothing. In a middleware the app takes the rest."""
    mapping = group.first
    if (
        middleware
        or group.governed
        or len(group.members) != 1
        or mapping.percent in (None, 100)
        or mapping.wrong_weight
    ):
        return
    text = f"its weight {mapping.weight} divides nothing: alone in its group, it gets all requests"
    hint = "add the Mapping of the stable version, with the same prefix and conditions and without weight"
    yield _warning("lone-weight", mapping, text, f"{hint}; in a middleware the app takes the rest: check --local NAME")


def _same_service(group: MappingGroup) -> Iterator[Diagnostic]:
    """Members that send the same request to the same service: their weights divide nothing."""
    if not (group.weighted or group.governed):
        return
    for one, other in combinations(group.members, 2):
        if one.service == other.service and _apart_from_share(other) == _apart_from_share(one):
            divides = "the release divides" if group.governed else "the weights divide"
            text = f"it leads to {other.service.text} as {one.name} does: {divides} nothing"
            hint = (
                "name the service of its own version; Argo Rollouts writes the canary's name in place of stableService,"
                " so that the service of the base Mapping has to name stableService"
            )
            yield _warning("same-service", other, text, hint)
            return


def _apart_from_share(mapping: Mapping) -> Mapping:
    return replace(mapping, name="", weight=None, variant=None, extras={})


def _unmet(mapping: Mapping) -> Iterator[Diagnostic]:
    """Exact conditions that no request meets."""
    for condition in (each for each in (mapping.method, *mapping.conditions) if each is not None and not each.regex):
        value = condition.value
        if condition.key == b":method" and not _METHOD.fullmatch(value):
            text = f"method {value} can never match: methods are in capitals, and this is no regex"
            yield _warning("never-matches", mapping, text, f"write {value.upper()}, or method_regex: true")
        elif condition.key == b":path" and not mapping.accepts_path(value.partition("?")[0].encode()):
            text = f":path {value} can never match: it does not begin with the prefix"
            yield _warning("never-matches", mapping, text, "change one of them")
        elif value != value.strip(" \t") or has_control(value):
            text = (
                f"header {condition.name} is never {quoted(value)}: a value has no blanks around it, and no line ends"
            )
            yield _warning("never-matches", mapping, text, "leave them out")
    for condition in mapping.query:
        written = condition.name if condition.regex else f"{condition.name}{condition.value}"
        if _NOT_IN_QUERY.search(written) or "=" in condition.name:
            text = f"query parameter {condition} can never match: parameters are compared as they are sent"
            yield _warning("never-matches", mapping, text, "percent-encode it")


def _doubles_slash(mapping: Mapping) -> Iterator[Diagnostic]:
    if mapping.redirect or mapping.shadow or mapping.prefix_kind != "plain" or mapping.regex_rewrite:
        return
    if mapping.rewrite and mapping.rewrite.endswith("/") and not mapping.prefix.endswith("/"):
        text = f"{mapping.prefix}/a becomes {mapping.rewrite}/a, with two slashes"
        yield _warning("double-slash", mapping, text, f'write prefix: {mapping.prefix}/, or rewrite: ""')


def _copies_writes(mapping: Mapping, shadow_writes: bool) -> Iterator[Diagnostic]:
    if mapping.shadow_writes or shadow_writes:
        text = f"writes are copied to {mapping.service.text} too: a POST is carried out twice"
        yield _warning("shadow-writes", mapping, text, "switch shadow_writes off unless that service keeps nothing")


def _without_share(group: MappingGroup) -> Iterator[Diagnostic]:
    """Mappings that get no share because of the weights of others; a weight 0 is meant."""
    low = 0.0
    for bound, decision in group.shares:
        mapping = decision.mapping
        if bound <= low and mapping.wrong_weight:
            text = f"gets no request: its weight {mapping.weight} counts as 0"
            yield _warning("never-matches", mapping, text, "write a percentage, 0 to 100")
        elif bound <= low and mapping.weight != 0:
            text = "gets no request: the weights of its group leave nothing"
            yield _warning("never-matches", mapping, text, "lower a weight, or remove it")
        low = max(low, bound)


def _covered(group: MappingGroup, table: RouteTable) -> Iterator[Diagnostic]:
    """A group all of whose requests an earlier group takes."""
    first = group.first
    if first.prefix_kind == "regex" or not first.prefix.startswith("/") or not first.prefix.isascii():
        return
    for other in _candidates(first, table):
        if table.order[other] < table.order[group] and other.total >= 100 and _covers(other, group):
            text = f"can never match: {other.name} comes first and takes every request that it could get"
            for mapping in group.mappings:
                yield _warning("never-matches", mapping, text, "lower the precedence of the other, or narrow it")
            return


def _candidates(mapping: Mapping, table: RouteTable) -> Iterable[MappingGroup]:
    head = RequestHead("GET", "/", {"host": mapping.host.text} if mapping.host.kind == "exact" else ())
    head.path = mapping.prefix_bytes
    return table.candidates(head)


def _covers(wide: MappingGroup, narrow: MappingGroup) -> bool:
    """Whether `wide` matches every request that `narrow` matches; False where that cannot be decided easily."""
    a, b = wide.first, narrow.first
    if (
        a.prefix_kind == "regex"
        or (a.prefix_kind == "exact" and b.prefix_kind != "exact")
        or not (a.case_sensitive and b.case_sensitive)
    ):
        return False
    path = a.prefix == b.prefix if a.prefix_kind == "exact" else b.prefix.startswith(a.prefix)
    host = a.host.kind == "any" or a.host.text == b.host.text
    method = a.method is None or a.method == b.method
    return path and host and method and {*a.conditions} <= {*b.conditions} and {*a.query} <= {*b.query}
