"""What another canary-mw has sent to the local service, by the comment in `via`, which anybody can write."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rules import chosen, get, header, mapping, table

from canary_mw.http.messages import RequestHead
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.person import Person
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping, Redirect
from canary_mw.rules.matchers import HostPattern

ROLLS = [(step + 0.5) / 2 for step in range(200)]


def via(service: str, **more: str) -> dict[str, str]:
    return {"via": f"1.1 nginx, 1.1 x ({service})", **more}


def outcomes(routes: RouteTable, headers: Any = (), target: str = "/svc/") -> set[str | None]:
    return {chosen(routes, get(target, headers), roll) for roll in ROLLS}


def sent(routes: RouteTable, headers: Any, roll: float = 50.0) -> Decision:
    decision = decide(routes, get(headers=headers), roll)
    assert decision is not None
    return decision


SPECIFIC: list[dict[str, Any]] = [
    {"prefix": "/svc/login/"},
    {"prefix": "/svc/login/", "prefix_kind": "exact"},
    {"conditions": header("user")},
    {"host": HostPattern("a.com")},
    {"precedence": 1},
    {"redirect": Redirect(host="new.com"), "precedence": 1},
]


@pytest.mark.parametrize("middleware", [True, False])
@pytest.mark.parametrize("more", SPECIFIC, ids=["prefix", "exact", "header", "host", "precedence", "redirect"])
def test_a_false_via_leads_nobody_past_a_more_specific_mapping(more: dict[str, Any], middleware: bool) -> None:
    rules = [mapping("shop"), mapping("shop-gray", weight=50), mapping("auth", **more)]
    routes = table(*rules, local=["shop"], middleware=middleware)
    headers = {"host": "a.com", "user": "x"}
    assert outcomes(routes, headers, "/svc/login/") == {"auth"}
    assert outcomes(routes, via("shop", **headers), "/svc/login/") == {"auth"}


def test_a_false_via_gets_nobody_what_has_no_share() -> None:
    for weights in ((None, 100), (0, 100)):
        routes = table(mapping("shop", weight=weights[0]), mapping("shop-gray", weight=weights[1]), local=["shop"])
        assert outcomes(routes, via("shop")) == {"shop-gray"}


def test_a_gray_pod_answers_what_it_was_sent_while_gray_has_no_share_of_its_own() -> None:
    """Its testers are sent by a header that it may not get to see."""
    dark = [mapping("shop"), mapping("shop-gray", weight=0)]
    dark.append(mapping("testers", service="shop-gray", conditions=header("gray")))
    assert outcomes(table(*dark, local=["shop-gray"]), via("shop-gray")) == {"shop-gray"}
    labelled = mapping("g", service="shop-gray", weight=0, variant="gray")
    assert outcomes(table(mapping("s", weight=100), labelled, local=["shop-gray"]), via("shop-gray")) == {"g"}


def test_a_later_group_counts_where_weights_lead_to_it_and_not_otherwise() -> None:
    with_gap = [mapping("gray", weight=20), mapping("other", weight=30), mapping("root", "/")]
    assert outcomes(table(*with_gap, local=["root"]), via("root")) == {"root"}
    whole = [mapping("gray", weight=20), mapping("other"), mapping("root", "/")]
    assert outcomes(table(*whole, local=["root"]), via("root")) == {"gray", "other"}
    # The rolls over 50 have all gone to the second half of the wider group.
    halves = [*with_gap[:2], mapping("left", "/", weight=50), mapping("right", "/")]
    assert outcomes(table(*halves, local=["left"]), via("left")) == {"gray", "other", "right"}
    assert outcomes(table(*halves, local=["right"]), via("right")) == {"right"}


def test_what_was_sent_says_so_and_what_was_drawn_does_not() -> None:
    routes = table(mapping("shop"), mapping("shop-gray", weight=20), local=["shop-gray"])
    by_via = sent(routes, via("shop-gray"), roll=5.0)
    drawn = sent(routes, {}, roll=5.0)
    assert (by_via.mapping, by_via.variant, by_via.local) == (drawn.mapping, drawn.variant, True)
    assert (by_via.sent, drawn.sent) == (True, False)
    assert not any(share.decision.sent for group in routes.groups for share in group.shares)


def test_mappings_of_one_service_are_drawn_as_ever() -> None:
    """The comment does not tell them apart."""
    rules = [mapping("new", service="shop", weight=30), mapping("old", service="shop"), mapping("far", weight=20)]
    routes = table(*rules, local=["shop"])
    found = [decide(routes, get(headers=via("shop")), roll) for roll in ROLLS]
    names = [each.mapping.name for each in found if each is not None]
    assert all(each is not None and each.sent for each in found)
    assert names.count("new") == 100  # 60 of its own, and those of the far one
    assert names.count("old") == 100


@pytest.mark.parametrize("values", [["1.1 a (shop)"], ["1.1 a", "1.1 b (shop)"], ["1.1 a (shop), 1.1 nginx"]])
def test_the_comment_counts_in_every_line_of_via(values: list[str]) -> None:
    routes = table(mapping("shop"), mapping("gray", weight=50), local=["shop"])
    assert outcomes(routes, [("via", value) for value in values]) == {"shop"}


def test_a_mapping_of_the_other_case_is_not_sent_to() -> None:
    rules = [mapping("shop", case_sensitive=False), mapping("gray", case_sensitive=True, weight=50)]
    routes = table(*rules, local=["gray"])
    assert outcomes(routes, via("gray")) == {"gray"}
    assert outcomes(routes, via("gray"), "/SVC/") == {"shop"}


def test_the_caller_says_what_is_believed() -> None:
    routes = table(mapping("shop"), mapping("gray", weight=50), local=["shop"])
    asked: list[bytes] = []

    def believes(head: RequestHead, comment: bytes) -> bool:
        asked.append(comment)
        return head.has(b"x-signed")

    found = {decide(routes, get(headers=via("shop")), roll, Person(is_sent=believes)) for roll in ROLLS}
    assert {each.mapping.name for each in found if each} == {"shop", "gray"}
    assert decide(routes, get(headers=via("shop", **{"x-signed": "1"})), 5.0, Person(is_sent=believes)) in found ^ {
        group.sent_shares[0].decision for group in routes.groups
    }
    asked.clear()
    decide(routes, get(), 5.0, Person(is_sent=believes))
    assert asked == []


prefixes = st.sampled_from(["/", "/svc/", "/svc/a/"])
members = st.lists(
    st.tuples(prefixes, st.one_of(st.none(), st.integers(0, 100)), st.booleans(), st.sampled_from("abcd")),
    min_size=1,
    max_size=7,
)


@pytest.mark.slow
@given(members, st.sampled_from("abcd"), st.booleans())
def test_a_false_via_gives_nothing_that_no_roll_gives(rules: list[Any], local: str, middleware: bool) -> None:
    made: list[Mapping] = [
        mapping(f"m{number}", prefix, service, weight=weight, conditions=header("user") if user else ())
        for number, (prefix, weight, user, service) in enumerate(rules)
    ]
    routes = table(*made, local=[local], middleware=middleware)
    for headers in ({}, {"user": "x"}):
        # The bounds of shares are whole percents, and those of a remainder fractions of them.
        possible = {chosen(routes, get("/svc/a/", headers), roll / 7 + 0.01) for roll in range(700)}
        for roll in (0.0, 50.0, 99.9):
            found = decide(routes, get("/svc/a/", via(local, **headers)), roll)
            name = None if found is None else found.mapping.name
            dark = found is not None and found.sent and found.mapping.weight == 0
            assert name in possible or dark
            if found is not None and found.sent:
                assert found.local
