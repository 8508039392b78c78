import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import get, header

from canary_mw.exceptions import MappingError
from canary_mw.http.messages import RequestHead
from canary_mw.rules.matchers import (
    REGEX_MAX_SIZE,
    Condition,
    HostPattern,
    compile_regex,
    header_matcher,
    literal_prefix,
    query_matches,
    without_port,
)


def test_a_regex_that_re2_cannot_read_is_refused_with_the_reason() -> None:
    with pytest.raises(MappingError, match=r"regex '\(\?!a\)' is not RE2 syntax: .*\(RE2 has no lookaround"):
        compile_regex("(?!a)")


def test_a_regex_over_its_limit_is_refused_and_none_may_be_over_the_cap() -> None:
    with pytest.raises(MappingError, match=r"compiles to \d+ instructions, the limit is 200"):
        compile_regex("(a|b){150}", max_size=REGEX_MAX_SIZE)
    with pytest.raises(MappingError, match="the limit is 10000"):
        Condition("x", "(abc|bcd|cde|def|efg){1000}", regex=True)
    assert compile_regex("(a|b){150}").fullmatch(b"ab" * 75)


@pytest.mark.parametrize(
    ("name", "value", "regex", "sent", "holds"),
    [
        ("X-A", "1", False, [("x-a", "1")], True),
        ("x-a", "1", False, [("X-A", " 1\t")], True),
        ("x-a", "a", False, [("x-a", "A")], False),
        ("x-a", "1", False, [("x-a", "0"), ("x-a", "1")], True),
        ("x-a", "1", False, [("x-a", "0,1")], False),
        ("x-a", "1", False, [], False),
        ("x-a", "", False, [("x-a", "")], True),
        ("x-a", ".*", True, [("x-a", "")], True),
        ("x-a", ".*", True, [("x-b", "1")], False),
        ("x-a", "b+", True, [("x-a", "abb")], False),
        ("x-a", "b+", True, [("x-a", "a"), ("x-a", "bb")], True),
        (":path", "/svc/?q=1", False, [], True),
        (":path", "/svc/", False, [], False),
        (":method", "GET", False, [], True),
        (":method", "P.*", True, [], False),
        (":authority", r"example\.com", True, [("host", "Example.com:8080")], True),
        (":authority", "example.org", True, [], False),
        (":scheme", "http", False, [], True),
        ("host", "example.com", False, [("host", "example.com")], True),
    ],
)
def test_a_header_condition_holds_for_any_single_value(
    name: str, value: str, regex: bool, sent: list[tuple[str, str]], holds: bool
) -> None:
    assert header_matcher(Condition(name, value, regex))(get("/svc/?q=1", sent)) is holds


@pytest.mark.parametrize(
    ("value", "regex", "query", "holds"),
    [
        ("1", False, "q=1", True),
        ("1", False, "a&q=1&b", True),
        ("1", False, "q=0&q=1", False),
        ("2", False, "q=%32", False),
        ("1", False, "Q=1", False),
        ("1", False, "x=0;q=1", False),
        ("", False, "q", True),
        ("", False, "q=", True),
        (".*", True, "q", True),
        (".*", True, "p&&qq", False),
        (".*", True, "", False),
        ("a=b", False, "q=a=b", True),
        ("[0-9]+", True, "q=12", True),
        ("[0-9]+", True, "q=12x", False),
    ],
)
def test_a_query_condition_looks_at_the_first_parameter_undecoded(
    value: str, regex: bool, query: str, holds: bool
) -> None:
    assert query_matches(Condition("q", value, regex), get("/?" + query if query else "/")) is holds


def test_a_condition_as_text() -> None:
    assert [str(c) for c in (*header("x"), *header("x", "1"), *header("x", "1|2", regex=True))] == [
        "x present",
        "x = 1",
        "x ~ 1|2",
    ]


@pytest.mark.parametrize(
    ("pattern", "regex", "host", "accepted"),
    [
        ("*", False, b"", True),
        ("Example.com", False, b"example.com", True),
        ("example.com", False, b"www.example.com", False),
        ("*.example.com", False, b"a.b.example.com", True),
        ("*.example.com", False, b"example.com", False),
        ("www.*", False, b"www.example.com", True),
        ("www.*", False, b"example.com", False),
        ("a.*.com", False, b"a.b.com", False),
        ("a.*.com", False, b"a.*.com", True),
        (r"(www|m)\.Example\.com", True, b"m.example.com", True),
        (r"(www|m)\.example\.com", True, b"m.example.com.evil", False),
    ],
)
def test_a_host_pattern_is_exact_a_glob_at_one_end_or_a_regex(
    pattern: str, regex: bool, host: bytes, accepted: bool
) -> None:
    assert bool(HostPattern(pattern, regex).accepts(host)) is accepted


def test_a_port_is_removed_from_a_host_and_an_ipv6_address_is_kept() -> None:
    assert without_port(b"example.com:8080") == b"example.com"
    assert without_port(b"example.com:") == b"example.com"
    assert without_port(b"[::1]:80") == b"[::1]"
    assert without_port(b"[::1]") == b"[::1]"
    assert HostPattern("example.com:8080").has_port
    assert not HostPattern("example.com").has_port


regexes = st.recursive(
    st.sampled_from(["a", "b", "/", "/svc", r"\.", ".", "[ab]", "(?i:a)", r"\d", "^a", "a$", r"\ba", ""]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        inner.map(lambda text: f"({text})*"),
        inner.map(lambda text: f"({text})?"),
        inner.map(lambda text: f"({text})+"),
        inner.map(lambda text: f"({text}){{2}}"),
    ),
    max_leaves=6,
)


@given(regexes, st.data())
def test_every_match_of_a_regex_begins_with_its_literal_prefix(text: str, data: st.DataObject) -> None:
    pattern = compile_regex(text, max_size=10_000)
    path = data.draw(st.from_regex(re.compile(text, re.A), fullmatch=True))
    if pattern.fullmatch(path.encode()):
        assert path.encode().startswith(literal_prefix(pattern))


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("/svc/.*", b"/svc/"),
        ("/svc", b"/svc"),
        ("/a(b|c)", b"/a"),
        (".*", b""),
        (r"\C*", b""),
        ("", b""),
        ("(?i)/svc/a", b"/"),
    ],
)
def test_the_literal_prefix_of_a_regex_is_found_or_empty(text: str, literal: bytes) -> None:
    assert literal_prefix(compile_regex(text)) == literal


def test_a_head_without_a_host_matches_no_host_but_any() -> None:
    head = RequestHead("GET", "/")
    assert not header_matcher(Condition(":authority", ".+", True))(head)
    assert header_matcher(Condition(":authority", "", True))(head)


def test_host_patterns_of_the_same_text_and_kind_are_equal() -> None:
    assert HostPattern("a.com") == HostPattern("a.com")
    assert HostPattern("a.com") != HostPattern("a.com", regex=True)
    assert HostPattern("a.com") != "a.com"
    assert len({HostPattern("a.com"), HostPattern("a.com"), HostPattern("A.com")}) == 2
