"""The tests by which a group takes a request, each with its text in an explanation."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from canary_mw.http.messages import RequestHead
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.matchers import HostPattern, header_matcher, query_matches, without_port


class MatchTest(NamedTuple):
    """One condition that a request must meet, and its text in an explanation.

    Attributes:
        checked_by_index: true for every group that the index returns for a request, so routing skips the test.
    """

    text: str
    matches: Callable[[RequestHead], object]
    checked_by_index: bool = False


def match_tests(first: Mapping, mappings: list[Mapping]) -> Iterable[MatchTest]:
    """The tests of a group by its first Mapping, cheapest first.

    Args:
        mappings: all Mappings of the group, which may differ in `case_sensitive`.
    """
    folded = any(not m.case_sensitive for m in mappings)
    if first.prefix_kind == "plain" and not folded:
        yield MatchTest(f"prefix {first.prefix}", _path_starts_with(first.prefix_bytes), checked_by_index=True)
    elif first.prefix_kind == "regex":
        yield MatchTest(f"prefix_regex {first.prefix}", lambda head: first.accepts_path(head.path))
    else:
        text = (
            f"prefix{'_exact' if first.prefix_kind == 'exact' else ''} {first.prefix}{' (any case)' if folded else ''}"
        )
        yield MatchTest(text, lambda head: any(m.accepts_path(head.path) for m in mappings))
    if first.host.kind != "any":
        yield MatchTest(f"host {first.host.text}", _host_matcher(first.host), checked_by_index=True)
    if first.method is not None:
        accepts = first.method.accepts
        yield MatchTest(str(first.method).removeprefix(":"), lambda head: accepts(head.method.encode("latin-1")))
    for condition in first.conditions:
        yield MatchTest(f"header {condition}", header_matcher(condition))
    for condition in first.query:
        yield MatchTest(f"query {condition}", partial(query_matches, condition))


def _path_starts_with(prefix: bytes) -> Callable[[RequestHead], bool]:
    return lambda head: head.path.startswith(prefix)


def _host_matcher(pattern: HostPattern) -> Callable[[RequestHead], object]:
    def matches(head: RequestHead) -> object:
        host = (head.host or b"").lower()
        return pattern.accepts(host if pattern.has_port else without_port(host))

    return matches
