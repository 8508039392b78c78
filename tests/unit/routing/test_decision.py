from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rules import chosen, get, header, mapping, table

from canary_mw.routing.decision import decide, remainder_bounds
from canary_mw.routing.table import RouteTable
from canary_mw.rules.matchers import HostPattern


def shares(routes: RouteTable, target: str = "/svc/", headers: Any = ()) -> dict[str | None, float]:
    """Percents by Mapping name, from 2000 evenly spaced rolls."""
    steps = 2000
    counted = Counter(chosen(routes, get(target, headers), (step + 0.5) * 100 / steps) for step in range(steps))
    return {name: count * 100 / steps for name, count in counted.items()}


def test_the_weight_of_the_gray_mapping_is_its_share() -> None:
    routes = table(mapping("stable"), mapping("gray", weight=20))
    assert [chosen(routes, get(), roll) for roll in (0.0, 19.99, 20.0, 99.99)] == ["gray", "gray", "stable", "stable"]


def test_the_header_sends_a_request_to_gray_whatever_its_roll() -> None:
    routes = table(mapping("stable"), mapping("gray", weight=20), mapping("asked", conditions=header("gray")))
    assert shares(routes, headers={"gray": "true"}) == {"asked": 100}
    assert shares(routes) == {"gray": 20, "stable": 80}


def test_a_decision_names_mapping_group_and_variant() -> None:
    stable, gray = mapping("stable"), mapping("gray", weight=20)
    routes = table(stable, gray)
    decision = decide(routes, get(), 5)
    assert decision is not None
    assert (decision.mapping, decision.group, decision.variant) == (gray, routes.groups[0].name, "gray")
    assert (decision.local, decision.shadow) == (False, None)


def test_what_matches_nothing_has_no_decision() -> None:
    routes = table(mapping("a", host=HostPattern("a.com")))
    assert decide(routes, get(), 0) is None
    assert decide(routes, get("/other", {"host": "a.com"}), 0) is None
    assert decide(table(), get(), 0) is None


def test_what_the_weights_leave_falls_through_to_wider_groups() -> None:
    routes = table(mapping("one", weight=20), mapping("two", weight=30), mapping("root", "/"))
    assert shares(routes) == {"one": 20, "two": 30, "root": 50}


def test_the_same_roll_is_compared_in_every_group() -> None:
    """After failing 20 + 30 a roll is known to be over 50, so the second half of a 50/50 pair gets it all."""
    left, right = mapping("left", "/", weight=50), mapping("right", "/")
    routes = table(mapping("one", weight=20), mapping("two", weight=30), left, right)
    assert shares(routes) == {"one": 20, "two": 30, "right": 50}
    assert shares(routes, "/other") == {"left": 50, "right": 50}


def test_weights_leave_no_gap() -> None:
    assert shares(table(mapping("one", weight=20), mapping("two", weight=30))) == {"one": 40, "two": 60}
    assert shares(table(mapping("a", weight=0), mapping("b", weight=0))) == {None: 100}


def test_a_remainder_goes_to_the_first_group_that_has_a_share() -> None:
    none = [mapping("none", "/svc/longer/", weight=0), mapping("none2", "/svc/longer/", weight=0)]
    narrow = [mapping("one", weight=20), mapping("two", weight=30)]
    wide = [mapping("three", "/", weight=30), mapping("four", "/", weight=30)]
    routes = table(*none, *wide, *narrow)
    assert shares(routes, "/svc/longer/") == {"one": 20 + 16, "two": 30 + 24, "four": 10}


def test_in_a_middleware_the_wrapped_app_takes_the_remainder() -> None:
    assert shares(table(mapping("gray", weight=20), middleware=True)) == {"gray": 20, None: 80}
    assert shares(table(mapping("one", weight=20), mapping("two", weight=30), middleware=True)) == {
        "one": 20,
        "two": 30,
        None: 50,
    }


def test_the_remainder_is_divided_by_relative_weight_up_to_100() -> None:
    routes = table(mapping("a", weight=1), mapping("b", weight=1), mapping("c", weight=1))
    bounds = remainder_bounds(routes.groups[0], get(), 3.0)
    assert [decision.mapping.name for _, decision in bounds] == ["a", "b", "c"]
    assert [round(bound, 9) for bound, _ in bounds] == [round(3 + 97 / 3, 9), round(3 + 2 * 97 / 3, 9), 100.0]
    assert decide(routes, get(), 99.999999999999) is not None


def test_a_group_of_zeros_divides_nothing() -> None:
    routes = table(mapping("a", weight=0), mapping("b", weight=0))
    assert remainder_bounds(routes.groups[0], get(), 0.0) == []


def test_a_decision_holds_the_shadow_of_its_group() -> None:
    copy = mapping("copy", shadow=True)
    decision = decide(table(mapping("a"), copy), get(), 0)
    assert decision is not None
    assert decision.shadow is copy


SENT_TO_GRAY = {"via": "1.1 nginx, 1.1 canary-mw-other (gray)"}


def test_a_request_sent_to_the_local_service_is_not_decided_again() -> None:
    """Gray pods run the rules of the stable pods; another decision would send most of their requests back."""
    rules = [mapping("stable"), mapping("gray", weight=20)]
    for middleware in (True, False):
        routes = table(*rules, local=["gray"], middleware=middleware)
        assert shares(routes, headers=SENT_TO_GRAY) == {"gray": 100}
        assert shares(routes, headers={"via": "1.1 canary-mw-other (stable)"}) == {"gray": 20, "stable": 80}
        assert shares(routes) == {"gray": 20, "stable": 80}
    assert shares(table(*rules, local=["stable"]), headers=SENT_TO_GRAY) == {"gray": 20, "stable": 80}
    assert shares(table(*rules), headers=SENT_TO_GRAY) == {"gray": 20, "stable": 80}


def test_a_request_sent_to_the_local_service_does_not_fall_through_to_other_groups() -> None:
    with_gap = [mapping("gray", weight=20), mapping("other", weight=30), mapping("root", "/")]
    assert shares(table(*with_gap, local=["gray"]), headers=SENT_TO_GRAY) == {"gray": 100}
    sent_to_root = {"via": "1.1 canary-mw-other (root)"}
    assert shares(table(*with_gap, local=["root"]), headers=sent_to_root) == {"root": 100}


def test_a_copy_stays_with_the_shadow_that_it_was_sent_to() -> None:
    """A shadow pod runs the rules too, and no roll leads to its service."""
    routes = table(mapping("stable"), mapping("copy", shadow=True), local=["copy"])
    decision = decide(routes, get(headers={"via": "1.1 canary-mw-other (copy)"}), 0)
    assert decision is not None
    assert (decision.mapping.name, decision.local) == ("copy", True)
    assert chosen(routes, get()) == "stable"


def test_a_request_sent_here_by_a_rule_that_does_not_match_is_routed_as_usual() -> None:
    rules = [mapping("stable"), mapping("gray", conditions=header("gray"))]
    assert shares(table(*rules, local=["gray"]), headers=SENT_TO_GRAY) == {"stable": 100}


weights = st.lists(st.one_of(st.none(), st.integers(-5, 110)), min_size=1, max_size=5)


@given(weights, weights, st.booleans(), st.floats(0, 100, exclude_max=True))
def test_a_decision_depends_only_on_its_arguments(
    near: list[int | None], far: list[int | None], middleware: bool, roll: float
) -> None:
    rules = [mapping(f"n{number}", weight=weight) for number, weight in enumerate(near)]
    rules += [mapping(f"f{number}", "/", weight=weight) for number, weight in enumerate(far)]
    routes = table(*rules, middleware=middleware)
    again = table(*rules, middleware=middleware)
    assert chosen(routes, get(), roll) == chosen(routes, get(), roll) == chosen(again, get(), roll)


@given(weights, st.floats(0, 100, exclude_max=True))
def test_only_zeros_leave_a_request_that_matches_without_a_decision(given_: list[int | None], roll: float) -> None:
    routes = table(*(mapping(f"m{number}", weight=weight) for number, weight in enumerate(given_)))
    (group,) = routes.groups
    assert (decide(routes, get(), roll) is None) == (group.total <= 0)
