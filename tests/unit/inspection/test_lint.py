import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import get, header, mapping, table

from canary_mw.config.document import Diagnostic
from canary_mw.exceptions import BadTarget
from canary_mw.inspection.lint import lint
from canary_mw.rules.mapping import Mapping, Redirect
from canary_mw.rules.matchers import Condition, HostPattern


def found(*mappings: Mapping, middleware: bool = False) -> list[Diagnostic]:
    return lint(table(*mappings, middleware=middleware))


def codes(*mappings: Mapping) -> list[tuple[str, str | None]]:
    return [(d.code, d.mapping) for d in found(*mappings)]


def test_ordinary_rules_give_no_findings() -> None:
    assert found(mapping("root", "/"), mapping("stable"), mapping("gray", weight=20)) == []


def test_weights_between_mappings_of_one_service_are_reported() -> None:
    # What Argo Rollouts makes where the service of the base does not name stableService.
    (finding,) = found(mapping("shop", service="of-all"), mapping("shop-canary", weight=20, service="of-all"))
    assert (finding.severity, finding.code, finding.mapping) == ("warning", "same-service", "shop-canary")
    assert "stableService" in (finding.hint or "")


def test_versions_that_one_service_tells_apart_are_not_reported() -> None:
    service = "of-all"
    assert found(mapping("shop", service=service), mapping("gray", weight=20, service=service, rewrite="/v2/")) == []
    assert found(mapping("shop", service=service), mapping("gray", service=service)) == []


@pytest.mark.parametrize(
    ("prefix", "kind", "hint"),
    [
        ("svc/", "plain", "write /svc/"),
        ("svc", "exact", "write /svc"),
        ("*/svc", "plain", "write //svc"),
        ("/a/../b", "plain", "RFC 3986"),
        ("/a/./b", "exact", "RFC 3986"),
        ("/a\\b", "plain", "RFC 3986"),
        ("/%61", "plain", "RFC 3986"),
        ("/%7e", "plain", "RFC 3986"),
        ("/a b", "plain", "percent-encode"),
        ("/é/", "plain", "percent-encode"),
        ("/a?b=1", "plain", "query_parameters"),
        ("/a#b", "exact", "percent-encode"),
    ],
)
def test_a_prefix_that_no_path_begins_with_is_reported(prefix: str, kind: str, hint: str) -> None:
    rule = mapping(prefix=prefix, prefix_kind=kind, rewrite="/x", file="rules.yaml", line=7)
    (finding,) = found(rule)
    assert (finding.severity, finding.code, finding.mapping) == ("warning", "never-matches", "a")
    assert (finding.file, finding.line) == ("rules.yaml", 7)
    assert finding.message.startswith(f"Mapping a: prefix {prefix} can never match")
    assert hint.removeprefix("write //") in (finding.hint or "")


@given(st.text(alphabet="ab/.%2eEfF4~-\\ #é", max_size=6).map(lambda tail: "/" + tail), st.data())
def test_a_prefix_that_some_path_has_is_not_reported(path: str, data: st.DataObject) -> None:
    try:
        normal = get(path).path.decode()
    except BadTarget:
        return
    prefix = normal[: data.draw(st.integers(1, len(normal)))]
    rule = mapping(prefix=prefix, rewrite=None)
    assert rule.accepts_path(normal.encode())
    assert found(rule) == []


def test_a_regex_prefix_is_not_checked() -> None:
    assert found(mapping(prefix="[/]a b", prefix_kind="regex")) == []


@pytest.mark.parametrize(
    ("rule", "doubles"),
    [
        (mapping(prefix="/svc"), True),
        (mapping(prefix="/svc", rewrite="/api/"), True),
        (mapping(prefix="/svc", rewrite="/api"), False),
        (mapping(prefix="/svc", rewrite=None), False),
        (mapping(prefix="/svc/"), False),
        (mapping(prefix="/svc", prefix_kind="exact"), False),
        (mapping(prefix="/svc", redirect=Redirect(host="h")), False),
        (mapping(prefix="/svc", shadow=True), False),
    ],
)
def test_a_rewrite_that_doubles_a_slash_is_reported(rule: Mapping, doubles: bool) -> None:
    findings = found(rule)
    assert [d.code for d in findings] == ["double-slash"] * doubles
    if doubles:
        assert f"/svc/a becomes {rule.rewrite}/a, with two slashes" in findings[0].message
        assert findings[0].hint == 'write prefix: /svc/, or rewrite: ""'


def test_a_weightless_mapping_without_a_share_is_reported() -> None:
    assert codes(mapping("stable"), mapping("gray", weight=100)) == [("never-matches", "stable")]
    assert codes(mapping("stable"), mapping("gray", weight=99)) == []
    assert codes(mapping("stable"), mapping("one", weight=60), mapping("two", weight=50)) == [
        ("never-matches", "stable")
    ]


def test_a_weight_of_0_is_no_finding() -> None:
    assert codes(mapping("stable"), mapping("gray", weight=0)) == []


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (mapping(method=Condition(":method", "get")), "method get can never match"),
        (mapping(conditions=header(":method", "post")), "method post can never match"),
        (mapping(method=Condition(":method", "GET|POST")), "method GET|POST can never match"),
        (mapping(conditions=header(":path", "/other?q")), ":path /other?q can never match"),
        (mapping(conditions=header("gray", " true")), "header gray is never ' true'"),
        (mapping(conditions=header("gray", "true\n")), 'header gray is never "true\\n"'),
        (mapping(query=(Condition("q", "a b"),)), "query parameter q = a b can never match"),
        (mapping(query=(Condition("q", "\u00e9"),)), "can never match"),
        (mapping(query=(Condition("a&b", ".*", regex=True),)), "can never match"),
        (mapping(query=(Condition("a=b", "c"),)), "can never match"),
    ],
)
def test_an_exact_condition_that_no_request_meets_is_reported(rule: Mapping, problem: str) -> None:
    (finding,) = found(rule)
    assert (finding.severity, finding.code) == ("warning", "never-matches")
    assert problem in finding.message


def test_conditions_that_requests_meet_are_not_reported() -> None:
    conditions = (
        *header("gray", "a b"),
        *header(":path", "/svc/a?q"),
        *header("x", ""),
        *header("y", " .*", regex=True),
    )
    query = (Condition("q", "a%20b"), Condition("r", " ", regex=True))
    assert found(mapping(method=Condition(":method", "M-SEARCH"), conditions=conditions, query=query)) == []


def test_every_mapping_that_gets_nothing_because_of_weights_is_reported() -> None:
    assert codes(mapping("stable"), mapping("gray", weight=120)) == [("never-matches", "gray")]
    assert codes(mapping("one", weight=100), mapping("two", weight=50), mapping("none")) == [
        ("never-matches", "two"),
        ("never-matches", "none"),
    ]
    (finding,) = found(mapping("stable"), mapping("gray", weight=-5))
    assert finding.message == "Mapping gray: gets no request: its weight -5 counts as 0"
    assert codes(mapping("alone", weight=120)) == []


def test_weightless_mappings_without_a_share_by_rounding_are_reported() -> None:
    free = [mapping(f"f{number}") for number in range(4)]
    assert [name for _, name in codes(mapping("gray", weight=98), *free)] == ["f0", "f1", "f2"]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (mapping("wide", "/", precedence=1), mapping("narrow", "/svc/")),
        (mapping("wide", "/svc/", precedence=1), mapping("narrow", "/svc/a/")),
        (mapping("wide", "/svc/", precedence=1), mapping("narrow", "/svc/", prefix_kind="exact")),
        (mapping("wide", "/svc/", prefix_kind="exact", precedence=1), mapping("narrow", "/svc/", prefix_kind="exact")),
        (
            mapping("wide", "/svc/", precedence=1, conditions=header("x")),
            mapping("narrow", "/svc/", conditions=(*header("x"), *header("y"))),
        ),
        (
            mapping("wide", "/svc/", precedence=1),
            mapping("narrow", "/svc/", host=HostPattern("a.com"), query=(Condition("q", "1"),)),
        ),
        (
            mapping("wide", "/svc/", precedence=1, host=HostPattern("a.com"), method=Condition(":method", "GET")),
            mapping(
                "narrow", "/svc/", host=HostPattern("a.com"), method=Condition(":method", "GET"), prefix_kind="exact"
            ),
        ),
        (mapping("wide", "/", precedence=1, redirect=Redirect(host="h")), mapping("narrow", "/svc/")),
    ],
)
def test_a_mapping_whose_requests_an_earlier_one_takes_is_reported(wide: Mapping, narrow: Mapping) -> None:
    (finding,) = found(narrow, wide)
    assert (finding.severity, finding.code, finding.mapping) == ("warning", "never-matches", "narrow")
    assert "wide comes first and takes every request that it could get" in finding.message


@pytest.mark.parametrize(
    ("other", "mine"),
    [
        (mapping("other", "/svc/a/"), mapping("mine", "/svc/")),
        (mapping("other", "/svc/", precedence=1, conditions=header("x")), mapping("mine", "/svc/")),
        (mapping("other", "/svc/", precedence=1, query=(Condition("q", "1"),)), mapping("mine", "/svc/")),
        (mapping("other", "/svc/", precedence=1, method=Condition(":method", "GET")), mapping("mine", "/svc/")),
        (mapping("other", "/svc/", precedence=1, host=HostPattern("a.com")), mapping("mine", "/svc/")),
        (mapping("other", "/svc/", precedence=1, prefix_kind="exact"), mapping("mine", "/svc/")),
        (mapping("other", "/svc/.*", precedence=1, prefix_kind="regex"), mapping("mine", "/svc/")),
        (mapping("other", "/svc/", precedence=1), mapping("mine", "/svc/.*", prefix_kind="regex")),
        (mapping("other", "/svc/", precedence=1), mapping("mine", "/svc/", case_sensitive=False)),
        (mapping("other", "/svc/", precedence=1, shadow=True), mapping("mine", "/svc/")),
        (
            mapping("other", "/svc/", precedence=1, conditions=header("x", "1")),
            mapping("mine", "/svc/", conditions=header("x", "1", regex=True)),
        ),
    ],
)
def test_a_mapping_that_gets_some_request_is_not_reported(other: Mapping, mine: Mapping) -> None:
    assert codes(mine, other) == []


def test_an_earlier_group_that_takes_less_than_100_lets_requests_through() -> None:
    half = [mapping("one", precedence=1, weight=20), mapping("two", precedence=1, weight=30)]
    assert codes(*half, mapping("rest")) == []


def test_each_mapping_of_a_covered_group_is_reported_once() -> None:
    rules = [mapping("wide", "/", precedence=2), mapping("wider", "/", precedence=1, conditions=header("x"))]
    rules += [mapping("stable"), mapping("gray", weight=20)]
    assert [d.mapping for d in found(*rules)] == ["wider", "stable", "gray"]


def test_findings_come_in_the_order_of_files_and_lines() -> None:
    rules = [
        mapping("c", "/c", file="b.yaml", line=1),
        mapping("b", "/b", file="a.yaml", line=9),
        mapping("a", "/a", file="a.yaml", line=2),
    ]
    assert [(d.file, d.line) for d in found(*rules)] == [("a.yaml", 2), ("a.yaml", 9), ("b.yaml", 1)]


def test_a_shadow_that_copies_writes_is_reported() -> None:
    copy = mapping("copy", service="store", shadow=True, shadow_writes=True, file="rules.yaml", line=3)
    (finding,) = found(mapping(), copy)
    assert (finding.severity, finding.code, finding.mapping, finding.line) == ("warning", "shadow-writes", "copy", 3)
    assert "writes are copied to store too: a POST is carried out twice" in finding.message
    assert codes(mapping(), mapping("copy", shadow=True)) == []
    assert codes(mapping(), mapping("b", weight=1, shadow_writes=True)) == []


@pytest.mark.parametrize(
    "prefix",
    [
        "/api/v[0-9]+/",
        "/a/.*",
        "/a/.+/b",
        r"/v\d/",
        "^/a/",
        "/a/b$",
        "/(a|b)/",
        "/a{2}/",
        "/a(bc)?/",
        ".*/a",
        "/a/*",
        "/*/a",
    ],
)
@pytest.mark.parametrize("kind", ["plain", "exact"])
def test_a_prefix_that_looks_like_a_regex_and_is_none_is_reported(prefix: str, kind: str) -> None:
    assert codes(mapping(prefix=prefix, prefix_kind=kind, rewrite="/x")) == [("looks-like-regex", "a")]
    assert codes(mapping(prefix=prefix, prefix_kind="regex")) == [] or "*" in prefix


@pytest.mark.parametrize(
    "prefix", ["/a.b/", "/a+b/", "/~a/", "/a(b)/", "/a$b/", "/$a/", "/a=1;b=2/", "/a.b-c_d/", "/a,b!/"]
)
def test_a_prefix_with_characters_of_ordinary_paths_is_no_regex(prefix: str) -> None:
    assert codes(mapping(prefix=prefix, rewrite=None)) == []


@pytest.mark.parametrize("value", [".*gray=1.*", "^gray", "gray$", "a.+"])
def test_a_header_or_parameter_that_looks_like_a_regex_and_is_none_is_reported(value: str) -> None:
    condition = (Condition("cookie", value),)
    assert codes(mapping(conditions=condition)) == [("looks-like-regex", "a")]
    assert codes(mapping(query=condition))[-1] == ("looks-like-regex", "a")
    assert codes(mapping(conditions=(Condition("cookie", value, regex=True),))) == []


@pytest.mark.parametrize("weight", [0, 1, 20, 99])
def test_a_weight_that_divides_nothing_is_reported(weight: int) -> None:
    alone = mapping(weight=weight, file="rules.yaml", line=7)
    (finding,) = found(alone)
    assert (finding.severity, finding.code, finding.line) == ("warning", "lone-weight", 7)
    assert f"weight {weight} divides nothing" in finding.message
    # Other conditions make another group.
    others = mapping("stable", conditions=header("gray")), mapping("root", "/")
    assert codes(alone, *others) == [("lone-weight", "a")]


def test_a_weight_that_divides_something_is_not_reported() -> None:
    assert found(mapping(weight=20), mapping("b")) == []
    assert found(mapping(weight=100)) == []
    # The app takes the rest.
    assert found(mapping(weight=20), middleware=True) == []
    shadow = mapping("copy", weight=20, shadow=True)
    assert found(mapping(), shadow) == []
