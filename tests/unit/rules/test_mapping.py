from math import inf

import pytest
from rules import header, mapping, substitution

from canary_mw.exceptions import MappingError
from canary_mw.http.headers import is_header_name
from canary_mw.rules.matchers import Condition, HostPattern


def test_a_mapping_with_a_bad_regex_prefix_cannot_be_made() -> None:
    with pytest.raises(MappingError):
        mapping(prefix="/(", prefix_kind="regex")


@pytest.mark.parametrize(
    ("kind", "case_sensitive", "path", "accepted"),
    [
        ("plain", True, "/svc/", True),
        ("plain", True, "/svc/a", True),
        ("plain", True, "/svc", False),
        ("plain", True, "/Svc/", False),
        ("plain", False, "/SVC/A", True),
        ("exact", True, "/svc/", True),
        ("exact", True, "/svc/a", False),
        ("exact", False, "/SVC/", True),
        ("regex", True, "/svc/", True),
        ("regex", True, "/svc/a", False),
        ("regex", False, "/SVC/", False),
    ],
)
def test_a_prefix_is_plain_exact_or_a_regex_for_the_whole_path(
    kind: str, case_sensitive: bool, path: str, accepted: bool
) -> None:
    rule = mapping(prefix="/svc/", prefix_kind=kind, case_sensitive=case_sensitive)
    assert rule.accepts_path(path.encode()) is accepted


def test_a_prefix_without_a_slash_matches_longer_names() -> None:
    assert mapping(prefix="/svc").accepts_path(b"/svcfoo")


@pytest.mark.parametrize(
    ("pattern", "replacement", "path", "result"),
    [
        ("/svc/(.*)", r"/v2/\1", "/svc/a/b", "/v2/a/b"),
        ("a", "b", "/a/a", "/b/b"),
        ("a", r"[\0]", "/a", "/[a]"),
        ("a", r"\\", "/a", "/\\"),
        ("x", "y", "/a", "/a"),
        ("/.*", "", "/a", "/a"),
        ("(a)|(b)", r"<\1\2>", "/ab", "/<a><b>"),
        ("a*", "-", "/aa/", "-/-/-"),
        ("a", r"\1", "/a", "/a"),
    ],
)
def test_a_regex_rewrite_replaces_every_match(pattern: str, replacement: str, path: str, result: str) -> None:
    assert substitution(pattern, replacement).apply(path.encode()) == result.encode()


def test_regex_rewrites_are_equal_by_their_texts() -> None:
    first = [substitution(f"/{number}/(.*)", "/a") for number in range(200)]
    # RE2 keeps the last 128 patterns, so these are compiled again.
    again = [substitution(f"/{number}/(.*)", "/a") for number in range(200)]
    assert first == again
    assert first[0] != first[1]
    assert first[0] != substitution("/0/(.*)", "/b")


def test_a_substitution_without_its_group_is_not_usable() -> None:
    assert substitution("(a)", r"\1").usable
    assert not substitution("(a)", r"\2").usable
    assert substitution("(a)(b)", r"\2\\9\0").highest_reference == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (mapping(), mapping(prefix="/other/")),
        (mapping(), mapping(prefix_kind="exact")),
        (mapping(), mapping(precedence=1)),
        (mapping(), mapping(host=HostPattern("example.com"))),
        (mapping(), mapping(method=Condition(":method", "GET"))),
        (mapping(), mapping(conditions=header("x"))),
        (mapping(conditions=header("x", "1")), mapping(conditions=header("X", "1"))),
        (mapping(), mapping(query=header("x"))),
    ],
)
def test_mappings_that_match_differently_belong_to_different_groups(one: object, other: object) -> None:
    assert getattr(one, "key", 1) != getattr(other, "key", 2)


def test_mappings_that_match_alike_belong_to_one_group() -> None:
    assert mapping().key == mapping("b", weight=20, rewrite="/x", timeout_ms=1, case_sensitive=False).key
    assert mapping(conditions=header("x", "1")).key == mapping(conditions=header("x", "1", regex=True)).key
    assert str(mapping("shop")) == "shop"


def test_the_rank_has_lengths_first_then_texts() -> None:
    rule = mapping(
        prefix="/svc/",
        precedence=3,
        host=HostPattern("a.b", regex=True),
        method=Condition(":method", "PUT"),
        conditions=header("x-a"),
        query=(Condition("q", "1"),),
    )
    lengths = len("x-a") + len(".*") + 1 + len(":authority") + len("a.b") + 1 + len(":method") + len("PUT")
    assert rule.rank == [
        3,
        len("/svc/"),
        lengths,
        len("q") + len("1"),
        "/svc/",
        "PUT",
        "x-a-.*",
        ":authority-a.b",
        ":method-PUT",
        "q-1",
    ]
    assert mapping().rank == [0, 5, len(":authority*"), 0, "/svc/", "GET", ":authority-*"]


def test_a_header_name_is_a_token() -> None:
    assert is_header_name("x-A_1!")
    assert not any(is_header_name(text) for text in ("", "a b", "a:", "é", "a\n"))


def test_a_connect_timeout_of_0_is_none() -> None:
    assert (mapping(connect_timeout_ms=0).connect_timeout, mapping(connect_timeout_ms=70).connect_timeout) == (
        inf,
        0.07,
    )
