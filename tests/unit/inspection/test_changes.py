"""What a reload has changed, in words."""

import pytest
from servers import mapping

from canary_mw.inspection import changes as module
from canary_mw.inspection.changes import MAX_LINES, describe_changes
from canary_mw.routing.table import RouteTable

STABLE = mapping("stable", "/shop/", "shop-stable")


def changes(before: str, after: str, *, middleware: bool = False) -> list[str]:
    """The lines about two texts of rules."""
    one, other = (RouteTable.from_yaml(text, middleware=middleware) for text in (before, after))
    return describe_changes(one, other)


def gray(**more: object) -> str:
    return mapping("gray", "/shop/", "shop-gray", **more)


def test_a_weight_is_told_as_shares() -> None:
    (line,) = changes(STABLE + gray(weight=20), STABLE + gray(weight=50))
    assert line == "/shop/: shop-gray 20 % to 50 %, shop-stable 80 % to 50 %"


def test_a_weight_that_is_left_out_is_told_as_shares() -> None:
    """What a typo in the attribute does, where it is no error."""
    (line,) = changes(STABLE + gray(weight=20), STABLE + gray())
    assert "shop-gray 20 % to 50 %" in line


def test_in_a_middleware_the_rest_is_told_too() -> None:
    (line,) = changes(gray(weight=20), gray(weight=50), middleware=True)
    assert line == "/shop/: shop-gray 20 % to 50 %, the rest 80 % to 50 %"


def test_the_place_of_a_share_is_told_with_its_conditions() -> None:
    condition = {"headers": "{x-user: 'a'}", "method": "GET", "host": "shop.example"}
    before = mapping("stable", "/shop/", "shop-stable", **condition) + gray(weight=1, **condition)
    (line,) = changes(before, before.replace("weight: 1", "weight: 99"))
    assert line.startswith("/shop/ (host shop.example, GET, x-user = a): ")


def test_mappings_that_come_and_go_are_told() -> None:
    other = mapping("cart", "/cart/", "cart")
    assert changes(STABLE, STABLE + other) == ["Mapping cart is added: /cart/ to cart"]
    assert changes(STABLE + other, STABLE) == ["Mapping cart is removed: /cart/ to cart"]
    assert changes(STABLE, STABLE + gray(weight=5)) == [
        "/shop/: shop-gray 0 % to 5 %, shop-stable 100 % to 95 %",
        "Mapping gray is added: /shop/ to shop-gray",
    ]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"timeout_ms": 500}, "timeout_ms None to 500"),
        ({"rewrite": "/a/"}, "rewrite / to /a/"),
        ({"retry_policy": "{retry_on: 5xx}"}, "retry_policy"),
        ({"circuit_breakers": "[{max_requests: 5}]"}, "limits, timeouts or endpoints"),
    ],
)
def test_other_attributes_are_named(more: dict[str, object], words: str) -> None:
    assert changes(gray(), gray(**more)) == [f"Mapping gray is changed: {words}"]


def test_another_service_is_told() -> None:
    before, after = mapping("a", "/a/", "one"), mapping("a", "/a/", "two")
    assert "Mapping a is changed: service one to two" in changes(before, after)


def test_the_module_is_told() -> None:
    module = "---\napiVersion: getambassador.io/v2\nkind: Module\nmetadata: {name: ambassador}\nspec: {config: %s}\n"
    assert changes(STABLE, STABLE + module % "{max_request_headers_kb: 5}") == ["the settings of the Module changed"]


def test_what_is_the_same_is_not_told() -> None:
    assert changes(STABLE + gray(weight=20), STABLE + gray(weight=20)) == []
    table = RouteTable.from_yaml(STABLE)
    assert describe_changes(table, table) == []


def test_many_changes_are_a_few_lines_and_a_number() -> None:
    many = "".join(mapping(f"m{number}", f"/{number}/", "shop") for number in range(300))
    lines = changes(STABLE, STABLE + many)
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == f"and {300 - MAX_LINES} more"


def test_far_more_changes_are_not_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COUNTED", 20)
    many = "".join(mapping(f"m{number}", f"/{number}/", "shop") for number in range(30))
    assert changes(STABLE, STABLE + many)[-1] == "and more than 10 more"


def test_a_name_cannot_begin_a_line() -> None:
    assert all(line.isprintable() for line in changes(STABLE, mapping('"a\\nb"', "/a/", "shop")))


RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: checkout
gray: {gray: %s}
sticky: [{header: x-user-id}]
"""


def test_the_shares_of_a_release_are_told() -> None:
    rules = STABLE + gray(weight=0)
    assert "GrayRelease checkout is added: gray 10 %, stable 90 %" in changes(rules, rules + RELEASE % 10)
    assert changes(rules + RELEASE % 10, rules + RELEASE % 25) == [
        "GrayRelease checkout: gray 10 % to 25 %, stable 90 % to 75 %"
    ]
    assert "GrayRelease checkout is removed" in changes(rules + RELEASE % 10, rules)


def test_the_shares_of_a_group_are_those_that_its_release_gives() -> None:
    rules = STABLE + gray(weight=20)
    (release, group) = sorted(changes(rules, rules + RELEASE % 10))
    assert release == "/shop/: shop-gray 20 % to 10 %, shop-stable 80 % to 90 %"
    assert group == "GrayRelease checkout is added: gray 10 %, stable 90 %"
    assert changes(rules + RELEASE % 20, rules) == ["GrayRelease checkout is removed"]
