from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import chosen, document, get, header, mapping, substitution, table

from canary_mw.exceptions import ConfigError
from canary_mw.http.messages import RequestHead
from canary_mw.routing.group import MappingGroup
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping, Redirect
from canary_mw.rules.matchers import Condition, HostPattern


def weighted(*weights: int | None) -> list[Mapping]:
    return [mapping(f"m{number}", weight=weight) for number, weight in enumerate(weights)]


def names(routes: RouteTable) -> list[str]:
    return [group.name for group in routes.groups]


def variants(routes: RouteTable) -> dict[str, str]:
    return {share.decision.mapping.name: share.decision.variant for group in routes.groups for share in group.shares}


@pytest.mark.parametrize(("weights", "shares"), [([20, None], [20, 80]), ([60, 60], [60, 40]), ([0, None], [100])])
def test_relative_weights_are_what_each_decision_gets(weights: list[int | None], shares: list[int]) -> None:
    (group,) = table(*weighted(*weights)).groups
    assert [weight for weight, _ in group.relative_weights(get())] == shares


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapping("a", prefix="/", precedence=1), mapping("b", prefix="/long/")),
        (mapping("a", prefix="/long/"), mapping("b", prefix="/l/", conditions=header("x-very-long-header"))),
        (mapping("a", conditions=header("x-long", "value")), mapping("b", conditions=header("x", "1"))),
        (mapping("a", conditions=header("x")), mapping("b", conditions=header("x", "1"))),
        (mapping("a", host=HostPattern("www.example.com")), mapping("b", host=HostPattern("*.com"))),
        (mapping("a", host=HostPattern("a.com")), mapping("b", host=HostPattern("*.com"))),
        (mapping("a", host=HostPattern("a.com", True)), mapping("b", host=HostPattern("b.com"))),
        (mapping("a", method=Condition(":method", "GET")), mapping("b")),
        (mapping("a", query=(Condition("q", "1"),)), mapping("b")),
        (mapping("a", conditions=header("x", "1")), mapping("b", query=(Condition("long-name", "long-value"),))),
        (mapping("a", prefix="/b/"), mapping("b", prefix="/a/")),
        (mapping("a", prefix="/a/", prefix_kind="exact"), mapping("b", prefix="/a/")),
        (mapping("a", prefix="/a/"), mapping("b", prefix="/a/", prefix_kind="regex")),
        (mapping("a", prefix="/long.*", prefix_kind="regex"), mapping("b", prefix="/long")),
        (mapping("a", method=Condition(":method", "PUT")), mapping("b", method=Condition(":method", "GET"))),
    ],
)
def test_the_more_specific_group_comes_first_however_they_are_written(first: Mapping, second: Mapping) -> None:
    assert names(table(first, second)) == names(table(second, first)) == ["a", "b"]


def test_of_equally_specific_groups_the_later_comes_first() -> None:
    one = mapping("one", conditions=header("a", "b-c"))
    two = mapping("two", conditions=header("a-b", "c"))
    assert names(table(one, two)) == ["two", "one"]
    assert names(table(two, one)) == ["one", "two"]


def test_a_group_ranks_by_its_highest_member() -> None:
    exact = mapping("exact", conditions=header("x", "aa"))
    regex = mapping("regex", conditions=header("x", "aa", regex=True))
    other = mapping("other", conditions=header("y", "aa"))
    assert names(table(exact, other)) == ["other", "exact"]
    assert names(table(exact, regex, other)) == ["exact + regex", "other"]


def test_a_table_gives_the_position_of_each_group() -> None:
    routes = table(mapping("b", "/b/"), mapping("root", "/"), mapping("a", "/a/"))
    assert [(routes.order[group], group.name) for group in routes.groups] == [(0, "b"), (1, "a"), (2, "root")]
    assert repr(routes) == "<RouteTable 3 Mappings in 3 groups>"
    assert [m.name for m in routes.mappings] == ["b", "root", "a"]


def test_document_order_does_not_matter_for_groups_of_different_rank() -> None:
    rules = [mapping("a", "/a/"), mapping("root", "/"), mapping("x", "/a/", conditions=header("x"))]
    assert {tuple(names(table(*order))) for order in permutations(rules)} == {("x", "a", "root")}


def test_the_weightless_mapping_is_stable_and_the_others_gray() -> None:
    assert variants(table(*weighted(20, None))) == {"m0": "gray", "m1": "stable"}
    assert variants(table(*weighted(None, None))) == {"m0": "stable", "m1": "stable"}


def test_without_a_weightless_mapping_the_heaviest_is_stable() -> None:
    assert variants(table(*weighted(20, 70, 10))) == {"m0": "gray", "m1": "stable", "m2": "gray"}
    assert variants(table(*weighted(20))) == {"m0": "stable"}


def test_in_a_middleware_mappings_with_a_weight_are_gray() -> None:
    assert variants(table(*weighted(20), middleware=True)) == {"m0": "gray"}
    assert variants(table(*weighted(20, 70), middleware=True)) == {"m0": "gray", "m1": "gray"}
    assert variants(table(*weighted(20, None), middleware=True)) == {"m0": "gray", "m1": "stable"}


@pytest.mark.parametrize(
    "narrow",
    [
        {"conditions": header("gray")},
        {"query": (Condition("gray", "1"),)},
        {"method": Condition(":method", "GET")},
    ],
)
def test_a_group_that_narrows_another_and_leads_to_another_service_is_gray(narrow: dict[str, Any]) -> None:
    assert variants(table(mapping("a"), mapping("b", **narrow))) == {"a": "stable", "b": "gray"}


@pytest.mark.parametrize(
    "other",
    [
        mapping("b", service="a", conditions=header("gray")),
        mapping("b", prefix="/other/", conditions=header("gray")),
        mapping("b", prefix_kind="exact", conditions=header("gray")),
        mapping("b", host=HostPattern("b.com"), conditions=header("gray")),
        mapping("b", prefix_kind="regex"),
    ],
)
def test_a_group_of_the_same_service_or_another_prefix_or_host_narrows_nothing(other: Mapping) -> None:
    assert variants(table(mapping("a"), other)) == {"a": "stable", "b": "stable"}


def test_groups_with_different_conditions_do_not_narrow_each_other() -> None:
    one = mapping("a", conditions=header("x", "1"))
    two = mapping("b", conditions=(*header("x", "2"), *header("y")))
    assert variants(table(one, two)) == {"a": "stable", "b": "stable"}


@pytest.mark.parametrize("narrow", [{"conditions": header("gray")}, {"query": (Condition("gray", "1"),)}])
def test_in_a_middleware_a_group_for_a_header_or_a_parameter_narrows_the_app(narrow: dict[str, Any]) -> None:
    alone = mapping("b", **narrow)
    assert variants(table(alone, middleware=True)) == {"b": "gray"}
    assert variants(table(alone, middleware=True, local=["b"])) == {"b": "stable"}
    assert variants(table(alone)) == {"b": "stable"}
    # Where a wider group leads to the same service, it is no other version.
    assert variants(table(mapping("a", service="b"), alone, middleware=True)) == {"a": "stable", "b": "stable"}


def test_in_a_middleware_a_group_for_a_method_may_lead_to_any_service() -> None:
    assert variants(table(mapping("b", method=Condition(":method", "POST")), middleware=True)) == {"b": "stable"}


def test_a_narrowing_group_is_gray_as_a_whole() -> None:
    rules = [mapping("b", conditions=header("gray"), weight=50), mapping("c", conditions=header("gray"))]
    assert variants(table(mapping("a"), *rules)) == {"a": "stable", "b": "gray", "c": "gray"}


def test_a_mapping_may_set_its_variant() -> None:
    assert variants(table(mapping("a", variant="gray"), mapping("b", weight=1, variant="stable"))) == {
        "a": "gray",
        "b": "stable",
    }


@pytest.mark.parametrize("local", ["b", "b:80"])
def test_the_local_service_is_always_stable(local: str) -> None:
    routes = table(mapping("a"), mapping("b", weight=20), local=[local])
    assert variants(routes) == {"a": "stable", "b": "stable"}
    assert {s.decision.mapping.name: s.decision.local for s in routes.groups[0].shares} == {"a": False, "b": True}


def test_a_redirect_takes_its_whole_group() -> None:
    redirect = mapping("r", redirect=Redirect(host="example.com"))
    for rules, refused in (
        ((redirect, mapping("a")), "Mapping a is left out: r redirects the whole group"),
        ((mapping("a"), redirect), "Mapping r is left out: a redirect takes its whole group, and a is in it"),
        ((redirect, mapping("r2", redirect=Redirect(host="b"))), "r2 is left out: a redirect takes its whole group"),
    ):
        routes = table(*rules)
        (finding,) = routes.diagnostics
        assert (finding.severity, finding.code, finding.mapping) == ("error", "group-refused", rules[1].name)
        assert refused in finding.message
        assert chosen(routes, get(), 99.9) == rules[0].name


def test_a_group_has_one_shadow_that_gets_only_copies() -> None:
    shadow = mapping("copy", shadow=True, weight=10)
    routes = table(shadow, mapping("a"), mapping("copy2", shadow=True))
    assert [d.message for d in routes.diagnostics] == [
        "Mapping copy2 is left out: the group has the shadow copy already"
    ]
    (share,) = routes.groups[0].shares
    assert (share.decision.mapping.name, share.decision.shadow) == ("a", shadow)
    alone = table(shadow)
    assert alone.groups[0].name == "copy"
    assert alone.groups[0].first is shadow
    assert chosen(alone, get()) is None


def test_a_redirect_has_a_shadow_too() -> None:
    (group,) = table(mapping("r", redirect=Redirect(host="h")), mapping("copy", shadow=True)).groups
    assert group.name == "r + copy"
    assert group.shares[0].decision.shadow is not None


@pytest.mark.parametrize(
    ("weights", "code", "severity"),
    [
        ((20, 30), "weights-hole", "warning"),
        ((20, 30, 120), "weights-hole", "warning"),
        ((0, 0), "weights-hole", "warning"),
        ((0, 120), "weights-hole", "warning"),
    ],
)
def test_weights_that_make_less_than_100_are_reported(
    weights: tuple[int | None, ...], code: str, severity: str
) -> None:
    rules = [mapping(f"m{n}", weight=weight, file="rules.yaml", line=n + 1) for n, weight in enumerate(weights)]
    (finding,) = table(*rules).diagnostics
    last = max(n for n, weight in enumerate(weights) if weight is not None)
    assert (finding.severity, finding.code) == (severity, code)
    assert (finding.file, finding.line, finding.mapping) == ("rules.yaml", last + 1, f"m{last}")
    assert f"add up to {sum(w for w in weights if w is not None and w <= 100)}" in finding.message
    assert finding.hint


@pytest.mark.parametrize("weights", [(20, None), (20, 80), (None, None), (20,), (0,), (100,)])
def test_weights_that_add_up_to_100_or_of_a_single_mapping_are_fine(weights: tuple[int | None, ...]) -> None:
    assert table(*weighted(*weights)).diagnostics == ()


def test_in_a_middleware_less_than_100_is_no_finding() -> None:
    assert table(*weighted(20, 30), middleware=True).diagnostics == ()
    assert table(*weighted(20), middleware=True).diagnostics == ()


def test_a_finding_about_a_mapping_without_a_line_has_none() -> None:
    assert table(*weighted(20, 30)).diagnostics[0].line is None


def test_the_first_failing_test_of_a_group_can_be_named() -> None:
    rule = mapping(
        host=HostPattern("example.com"),
        method=Condition(":method", "GET"),
        conditions=(*header("x", "1"), *header("y")),
        query=(Condition("q", "a|b", True),),
    )
    (group,) = table(rule).groups
    full = {"host": "Example.com:80", "x": "1", "y": ""}
    assert group.mismatch(get("/svc/?q=a", full)) is None
    failed = [
        group.mismatch(head)
        for head in (
            get("/other"),
            get("/svc/?q=a", {**full, "host": "b.com"}),
            RequestHead("POST", "/svc/?q=a", full),
            get("/svc/?q=a", {**full, "x": "2"}),
            get("/svc/?q=a", {"host": "example.com", "x": "1"}),
            get("/svc/", full),
        )
    ]
    assert [test and test.text for test in failed] == [
        "prefix /svc/",
        "host example.com",
        "method = GET",
        "header x = 1",
        "header y present",
        "query q ~ a|b",
    ]


@pytest.mark.parametrize(
    ("rule", "text", "path", "holds"),
    [
        (mapping(prefix_kind="exact"), "prefix_exact /svc/", "/svc/a", False),
        (mapping(prefix_kind="exact"), "prefix_exact /svc/", "/svc/", True),
        (mapping(case_sensitive=False), "prefix /svc/ (any case)", "/SVC/a", True),
        (mapping(prefix="/s.*/", prefix_kind="regex"), "prefix_regex /s.*/", "/svc/", True),
        (mapping(prefix="/s.*/", prefix_kind="regex"), "prefix_regex /s.*/", "/svc/a", False),
    ],
)
def test_each_kind_of_prefix_is_tested_by_its_group(rule: Mapping, text: str, path: str, holds: bool) -> None:
    test = table(rule).groups[0].tests[0]
    assert test.text == text
    assert bool(test.matches(get(path))) is holds


def test_a_pattern_with_a_port_sees_the_port() -> None:
    routes = table(mapping(host=HostPattern("example.com:8080")))
    assert chosen(routes, get(headers={"host": "example.com:8080"})) == "a"
    assert chosen(routes, get(headers={"host": "example.com"})) is None
    assert chosen(routes, get(headers={"host": "example.com:80"})) is None


def test_each_member_of_a_mixed_group_keeps_its_own_case() -> None:
    routes = table(mapping("either", case_sensitive=False, weight=30), mapping("strict"))
    (group,) = routes.groups
    assert [chosen(routes, get("/svc/"), roll) for roll in (29.9, 30)] == ["either", "strict"]
    assert [chosen(routes, get("/SVC/"), roll) for roll in (29.9, 30)] == ["either", "either"]
    assert [(weight, d.mapping.name) for weight, d in group.relative_weights(get("/SVC/"))] == [(30, "either")]


def test_the_remainder_of_a_mixed_group_is_divided_by_the_weights_that_the_request_can_get() -> None:
    one = mapping("one", case_sensitive=False, weight=20)
    two = mapping("two", case_sensitive=False, weight=30)
    routes = table(one, two, mapping("strict"))
    counted = [chosen(routes, get("/SVC/"), roll + 0.5) for roll in range(100)]
    assert {name: counted.count(name) for name in counted} == {"one": 40, "two": 60}


def test_a_mixed_group_that_gives_the_request_nothing_takes_nothing() -> None:
    off = mapping("off", case_sensitive=False, weight=0)
    half = mapping("half", "/SVC/", weight=50)
    routes = table(off, mapping("strict"), half, mapping("none", "/SVC/", weight=0))
    assert [chosen(routes, get("/SVC/"), roll) for roll in (0, 49.9, 50, 99.9)] == ["half"] * 4


def test_a_group_is_made_for_a_mapping() -> None:
    group = MappingGroup(mapping())
    assert group.add(mapping()) is None
    assert group.first.name == "a"
    assert not group.weighted
    assert table(mapping(regex_rewrite=substitution("a", "b"), weight=1)).groups[0].weighted


def test_a_table_is_built_from_a_text() -> None:
    routes = RouteTable.from_yaml(document("a", prefix="/svc/") + document("b", prefix="/svc/", weight=20))
    assert [chosen(routes, get(), roll) for roll in (19.9, 20)] == ["b", "a"]
    assert RouteTable.from_yaml(document("a", weight=20, xyzzy=1), middleware=True).groups[0].total == 20
    assert variants(RouteTable.from_yaml(document("a", weight=20), middleware=True, local=["a"])) == {"a": "stable"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (document(weight="x"), "rules:7: Mapping a: weight must be a whole number, not the text 'x'"),
        (document(service=5), "rules:6: Mapping a: service must be a text, not the number 5 (put it in quotes)"),
        ("---\nkind: {Mapp\n", "rules:2: a map has no `}`"),
        (
            document("a", prefix="/s/", weight=60) + document("b", prefix="/s/", weight=50),
            "rules:9: Mapping b: the weights of a + b add up to 110, more than 100",
        ),
    ],
)
def test_a_text_with_an_error_gives_no_table(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RouteTable.from_yaml(text)
    assert str(caught.value).startswith(message)


DRAWN = [
    mapping(name, prefix, weight=weight, conditions=conditions, host=HostPattern(host), case_sensitive=strict)
    for number, (prefix, weight, conditions, host, strict) in enumerate(
        [
            ("/a/", None, (), "*", True),
            ("/a/", 20, (), "*", True),
            ("/a/", 90, (), "*", True),
            ("/a/", None, header("x"), "*", True),
            ("/a/", None, header("x", "1"), "*", True),
            ("/A/", None, (), "*", False),
            ("/a/", None, (), "a.com", True),
            ("/b", None, (), "*", True),
            ("/", 50, (), "*", True),
        ]
    )
    for name in (f"m{number}", "here" if number % 2 else f"n{number}")
]
DRAWN += [mapping("get", "/a/", method=Condition(":method", "GET")), mapping("copy", "/b", shadow=True)]


def described(routes: RouteTable) -> list[Any]:
    """Everything of a table that affects a request."""
    groups = [(g.name, g.rank, g.total, g.shares, g.sent_shares, [t.text for t in g.tests]) for g in routes.groups]
    shares = [[(s.bound, s.decision.mapping, s.decision.variant, s.decision.local) for s in g[3]] for g in groups]
    rest = [(name, rank, total, tests) for name, rank, total, _, _, tests in groups]
    order = [routes.order[group] for group in routes.groups]
    return [rest, shares, order, routes.has_exceptions, routes.middleware, routes.mappings, routes.diagnostics]


@given(st.lists(st.sampled_from(DRAWN), max_size=8), st.lists(st.sampled_from(DRAWN), max_size=8), st.booleans())
def test_a_rebuilt_table_that_reuses_groups_equals_a_new_one(
    before: list[Mapping], after: list[Mapping], middleware: bool
) -> None:
    options: Any = {"local": ["here"], "middleware": middleware}
    old, new = table(*before, **options), table(*after, **options)
    rebuilt = old.rebuild(after)
    assert described(rebuilt) == described(new)
    assert described(old.rebuild(before)) == described(old)
    assert all(one is other for one, other in zip(old.rebuild(before).groups, old.groups, strict=True))
    for path in ("/a/", "/A/x", "/b"):
        head = get(path, {"x": "1", "host": "a.com"})
        assert [g.name for g in rebuilt.candidates(head)] == [g.name for g in new.candidates(head)]


def test_a_mapping_that_only_moved_is_taken_from_the_new_rules() -> None:
    old, new = mapping(file="f", line=1), mapping(file="f", line=2)
    assert old == new
    assert table(old).rebuild([new]).groups[0].first is new
