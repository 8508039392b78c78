from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import get, header, mapping, table

from canary_mw.http.messages import RequestHead
from canary_mw.routing import index as index_module
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.index import HostIndex, PrefixSet
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.matchers import HostPattern


def test_a_prefix_set_gives_every_stored_prefix_of_a_text_the_longest_first() -> None:
    stored = PrefixSet({b"": 0, b"/a": 1, b"/a/b": 2, b"/a/b/c": 3, b"/ab": 4, b"/b": 5})
    assert [*stored.chain(b"/a/b/d")] == [2, 1, 0]
    assert [*stored.chain(b"/abc")] == [4, 1, 0]
    assert [*stored.chain(b"x")] == [0]
    assert [*PrefixSet({b"/a": 1}).chain(b"/")] == []
    assert [*PrefixSet[int]({}).chain(b"/")] == []


@given(st.sets(st.text("ab/", max_size=5), max_size=20), st.text("ab/", max_size=8))
def test_a_prefix_set_agrees_with_a_linear_scan(texts: set[str], text: str) -> None:
    stored = PrefixSet({item.encode(): item for item in texts})
    scanned = sorted((item for item in texts if text.startswith(item)), key=len, reverse=True)
    assert [*stored.chain(text.encode())] == scanned


prefixes = st.text("aAb/", max_size=5).map(lambda tail: "/" + tail)
regex_prefixes = st.sampled_from(
    ["/a.*", "/a/[ab]*", "/.*", "/(a|b)/.*", "(?i)/a.*", "/a/?", ".*b", "", "/ab+", "/a|/b"]
)
hosts = st.sampled_from(
    ["*", "a.com", "A.com", "b.com", "a.com:80", "*.com", "*a.com", "a.*", "a*", "*:80", "*.b.com", "x", "**"]
).map(HostPattern)
host_regexes = st.sampled_from([r"a\.com", r".*\.com", r"\w+", r"\W+", r"\D+", r"\d+", "a.com:80", "A.*"]).map(
    lambda text: HostPattern(text, regex=True)
)
rules = st.lists(
    st.one_of(
        st.tuples(prefixes, st.sampled_from(["plain", "exact"])),
        st.tuples(regex_prefixes, st.just("regex")),
    ).flatmap(
        lambda pair: st.fixed_dictionaries(
            {
                "prefix": st.just(pair[0]),
                "prefix_kind": st.just(pair[1]),
                "host": st.one_of(hosts, host_regexes),
                "case_sensitive": st.booleans(),
                "precedence": st.integers(-1, 1),
                "conditions": st.sampled_from([(), header("x"), header("x", "1")]),
            }
        )
    ),
    max_size=14,
)
heads = st.builds(
    RequestHead,
    st.just("GET"),
    prefixes,
    st.one_of(
        st.just({}),
        st.sampled_from(["a.com", "A.COM", "a.com:80", "b.com:8080", "x", "12", "::", "a.b.com", "", "a.com:"]).map(
            lambda host: {"host": host}
        ),
    ),
)


def built(drawn: list[dict[str, Any]]) -> RouteTable:
    return table(*(mapping(f"m{number}", **more) for number, more in enumerate(drawn)))


def scan(routes: RouteTable, head: RequestHead) -> list[MappingGroup]:
    return [group for group in routes.groups if group.mismatch(head) is None]


@given(rules, st.lists(heads, min_size=1, max_size=6))
def test_the_index_loses_no_group_that_matches_and_keeps_the_order(
    drawn: list[dict[str, Any]], requests: list[RequestHead]
) -> None:
    routes = built(drawn)
    for head in requests:
        found = routes.candidates(head)
        assert [routes.order[group] for group in found] == sorted({routes.order[group] for group in found})
        assert [group for group in found if group.mismatch(head) is None] == scan(routes, head)


@given(rules, st.lists(heads, min_size=1, max_size=6))
def test_an_index_that_merges_nothing_finds_the_same(drawn: list[dict[str, Any]], requests: list[RequestHead]) -> None:
    merged = built(drawn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "MAX_MERGED", 1)
        walked = built(drawn)
    for head in requests:
        assert [walked.order[g] for g in walked.candidates(head)] == [merged.order[g] for g in merged.candidates(head)]


def test_a_chain_of_prefixes_too_long_to_merge_is_found_by_a_walk() -> None:
    deep = [mapping(f"m{length}", "/" + "a" * length) for length in range(index_module.MAX_MERGED + 10)]
    found = table(*deep).candidates(get("/" + "a" * 1000))
    assert [group.first.name for group in found] == [rule.name for rule in reversed(deep)]


@pytest.mark.parametrize(
    ("path", "names"),
    [("/a/b/x", ["b", "a", "root"]), ("/a/b", ["a", "root"]), ("/a/c/d/", ["d", "a", "root"]), ("/x/b/", ["root"])],
)
def test_prefixes_in_prefixes_are_found_the_longest_first(path: str, names: list[str]) -> None:
    prefixes = {"root": "/", "a": "/a/", "b": "/a/b/", "d": "/a/c/d/"}
    routes = table(*(mapping(name, prefix) for name, prefix in prefixes.items()))
    assert [group.first.name for group in routes.candidates(get(path))] == names


def test_host_regexes_that_differ_in_case_only_are_two() -> None:
    digits = mapping("digits", host=HostPattern(r"\d+", regex=True))
    others = mapping("others", host=HostPattern(r"\D+", regex=True))
    for first, second in ((digits, others), (others, digits)):
        routes = table(first, second)
        assert [g.name for g in scan(routes, get(headers={"host": "12"}))] == ["digits"]
        assert [g.name for g in routes.candidates(get(headers={"host": "12"}))] == ["digits"]
        assert [g.name for g in routes.candidates(get(headers={"host": "ab"}))] == ["others"]


@pytest.mark.parametrize(
    "made",
    [
        lambda n: mapping(f"m{n}", f"/svc{n}/"),
        lambda n: mapping(f"m{n}", f"/svc{n}/", prefix_kind="exact"),
        lambda n: mapping(f"m{n}", f"/svc{n}/[a-z]+", prefix_kind="regex"),
        lambda n: mapping(f"m{n}", "/", host=HostPattern(f"h{n}.example.com")),
        lambda n: mapping(f"m{n}", "/", host=HostPattern(f"*.h{n}.example.com")),
    ],
)
def test_a_request_sees_few_groups_however_many_there_are(made: Callable[[int], Mapping]) -> None:
    routes = table(*(made(number) for number in range(2000)))
    for host in ("h7.example.com", "www.h7.example.com"):
        assert len(routes.candidates(get("/svc7/abc", {"host": host}))) <= 1


def test_a_path_without_any_prefix_finds_nothing() -> None:
    assert table(mapping(prefix="/svc/")).candidates(get("/other")) == ()
    assert table().candidates(get("/other")) == ()
    assert HostIndex(table(mapping()).groups).find(b"a.com", b"/other") == ()
    with_hosts = table(mapping(prefix="/svc/", host=HostPattern("a.com")))
    assert with_hosts.candidates(get("/svc/", {"host": "b.com"})) == ()
    assert with_hosts.candidates(get("/svc/")) == ()


def test_folded_and_plain_prefixes_are_both_found_and_each_group_once() -> None:
    either = mapping("either", "/Svc/", case_sensitive=False)
    strict = mapping("strict", "/Svc/", weight=10)
    routes = table(either, strict, mapping("root", "/"))
    assert [g.name for g in routes.candidates(get("/SVC/a"))] == ["either + strict", "root"]
    assert [g.name for g in routes.candidates(get("/Svc/a"))] == ["either + strict", "root"]
