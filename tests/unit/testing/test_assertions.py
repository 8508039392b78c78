"""`load_rules`, `route` and `assert_share`."""

from pathlib import Path
from typing import Any

import pytest
from servers import mapping

from canary_mw.exceptions import ClientError, ConfigError
from canary_mw.routing.table import RouteTable
from canary_mw.testing import assert_share, load_rules, route

MAPPINGS = (
    mapping("stable", "/shop/", "shop-stable")
    + mapping("gray", "/shop/", "shop-gray", weight="20")
    + mapping("testers", "/shop/", "shop-gray", headers="{gray: 'true'}")
    + mapping("host", "/host/", "other", host="shop.example")
    + mapping("moved", "/old/", "shop", host_redirect="true", path_redirect="/new/")
)
RELEASE = """---
apiVersion: canary-mw/v1
kind: GrayRelease
name: pay-2026
gray: {v2: {weight: 20, mappings: [pay-gray]}, v3: {weight: 5, mappings: [pay-next]}}
sticky: [{header: x-user}, client_ip]
choice: {header: x-version, trusted: true}
"""
PAY = (
    mapping("pay-stable", "/pay", "pay")
    + mapping("pay-gray", "/pay", "pay-gray", weight="0")
    + mapping("pay-next", "/pay", "pay-next", weight="0")
    + RELEASE
)


@pytest.fixture(scope="module")
def shop() -> RouteTable:
    return load_rules(MAPPINGS)


@pytest.fixture(scope="module")
def pay() -> RouteTable:
    return load_rules(PAY)


@pytest.mark.parametrize(
    ("path", "more", "expected"),
    [
        ("/shop/", {}, (None, None, "weight", {"gray": 20, "stable": 80})),
        ("/shop/?page=2", {"headers": {"gray": "true"}}, ("gray", "testers", "mapping", {"gray": 100})),
        ("/shop/", {"headers": [("gray", "true")], "method": "POST"}, ("gray", "testers", "mapping", {"gray": 100})),
        ("/host/", {"headers": {"Host": "shop.example"}}, ("stable", "host", "mapping", {"stable": 100})),
        ("/host/", {}, (None, None, "nobody", {None: 100})),
        ("/old/", {}, ("stable", "moved", "mapping", {"stable": 100})),
    ],
)
def test_the_route_of_a_request(shop: RouteTable, path: str, more: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = route(shop, path, **more)
    assert (found.variant, found.mapping, found.reason, found.shares) == expected


def test_the_app_of_a_middleware_takes_what_no_mapping_takes() -> None:
    rules = load_rules(mapping("gray", "/shop/", "shop-gray", weight="20"), local="shop", middleware=True)
    assert route(rules, "/shop/").shares == {"gray": 20, "stable": 80}
    found = route(rules, "/elsewhere")
    assert (found.variant, found.mapping, found.reason) == ("stable", None, "app")


def test_the_variables_of_the_process_do_not_name_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_MW_LOCAL", "shop-gray")
    rules = load_rules(MAPPINGS, local="shop-stable", middleware=True)
    assert "the wrapped app answers" in route(rules, "/shop/").explain.splitlines()[3]


def test_a_route_explains_itself(shop: RouteTable) -> None:
    found = route(shop, "/shop/", headers={"gray": "true"})
    assert found.explain.splitlines()[:2] == ["GET /shop/:", "100 %  gray  testers  -> shop-gray"]
    assert "  + testers: prefix /shop/, header gray = true" in found.explain
    assert str(found).startswith("Route(variant='gray', mapping='testers', reason='mapping', shares={'gray': 100")
    assert str(found).endswith(found.explain)


def test_a_release_names_the_variant_and_the_reason(pay: RouteTable) -> None:
    by_user = {user: route(pay, "/pay", headers={"x-user": user}) for user in map(str, range(100))}
    release = pay.releases["pay-2026"]
    assert {user: found.variant for user, found in by_user.items()} == {
        user: release.variant_of(user) for user in by_user
    }
    assert {found.reason for found in by_user.values()} == {"sticky"}
    assert {(found.variant, found.mapping) for found in by_user.values()} == {
        ("stable", "pay-stable"),
        ("v2", "pay-gray"),
        ("v3", "pay-next"),
    }


def test_the_client_and_its_trust_count(pay: RouteTable) -> None:
    headers = {"x-version": "v3"}
    chosen = route(pay, "/pay", headers=headers, trusted=True)
    assert (chosen.variant, chosen.reason) == ("v3", "choice:header")
    assert route(pay, "/pay", headers=headers).reason == "sticky"
    release = pay.releases["pay-2026"]
    for client in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        assert route(pay, "/pay", client=client).variant == release.variant_of(client)


def test_what_is_drawn_has_no_variant_but_shares() -> None:
    rules = load_rules(
        PAY.replace("sticky: [{header: x-user}, client_ip]", "sticky: [{header: x-user}]\nmissing: roll")
    )
    found = route(rules, "/pay")
    assert (found.variant, found.mapping, found.reason) == (None, None, "roll")
    assert found.shares == {"v2": 20, "v3": 5, "stable": 75}


def test_a_request_that_no_server_would_take_is_an_error(shop: RouteTable) -> None:
    with pytest.raises(ClientError):
        route(shop, "shop/")


def test_rules_are_read_from_a_file_a_directory_or_a_text(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(MAPPINGS)
    for given in (file, str(file), tmp_path, MAPPINGS):
        assert [each.name for each in load_rules(given).mappings][:2] == ["stable", "gray"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.yaml", "no such file or directory: none.yaml.*a text of rules has a line break"),
        ("kind: Mapping\nname: [", "rules"),
        (MAPPINGS.replace("20", "heavy"), "rules:\\d+: .*weight must be a whole number"),
        (RELEASE, "pay-gray"),
    ],
)
def test_rules_with_an_error_are_not_loaded(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_rules(given)


KEYS = [str(number) for number in range(20_000)]


def test_shares_of_keys_are_within_their_tolerance(pay: RouteTable) -> None:
    assert_share(pay, "pay-2026", KEYS, {"v2": 20, "v3": 5, "stable": 75}, tolerance=1)
    assert_share(pay, "pay-2026", iter(KEYS), {"v2": 20.5}, tolerance=1.5)
    assert_share(pay, "pay-2026", [b"42"], {pay.releases["pay-2026"].variant_of("42"): 100})


def test_a_share_that_is_another_one_is_told_with_all_shares(pay: RouteTable) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_share(pay, "pay-2026", KEYS, {"v2": 30})
    first, *rest = str(caught.value).splitlines()
    assert first == "the shares of pay-2026 among 20000 keys, with a tolerance of 0.3:"
    assert rest[0].startswith("  stable: 7")
    assert rest[1].endswith(" %, expected 30 %")
    assert "by chance by up to 1.0 points" in rest[-1]
    with pytest.raises(AssertionError) as caught:
        assert_share(pay, "pay-2026", KEYS, {"v2": 30}, tolerance=2)
    assert "by chance" not in str(caught.value)


@pytest.mark.parametrize(
    ("release", "keys", "shares", "message"),
    [
        ("pay", KEYS, {"v2": 20}, "no release 'pay' is in force, only: pay-2026"),
        ("pay-2026", KEYS, {"v2": 20, "v4": 20}, "pay-2026 has no variant v4, only: stable, v2, v3"),
        ("pay-2026", [], {"v2": 20}, "there are no keys"),
    ],
)
def test_a_share_that_cannot_be_asserted_is_another_error(
    pay: RouteTable, release: str, keys: list[str], shares: dict[str, float], message: str
) -> None:
    with pytest.raises((LookupError, ValueError), match=message):
        assert_share(pay, release, keys, shares)
