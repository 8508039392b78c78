"""Who gets which variant of a release: the order of choice, keys, lists, layers, holdouts, drained sessions."""

import hashlib
import json
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from rules import document, get

from canary_mw.http.messages import RequestHead
from canary_mw.inspection.explanation import explain
from canary_mw.routing.assignment import Assigned, CompiledRelease
from canary_mw.routing.decided import Decision
from canary_mw.routing.decision import decide
from canary_mw.routing.keys import client_key
from canary_mw.routing.person import Person
from canary_mw.routing.sticky import _murmur3_python, slot_function
from canary_mw.routing.table import RouteTable
from canary_mw.rules.release import HashFunction

MAPPINGS = document("svc", prefix="/svc/") + document("gray", prefix="/svc/", weight=0)
KEYS = [f"user-{number}" for number in range(3000)]
TRUSTED = Person(trusted=True)


def release(name: str = "r", **fields: Any) -> str:
    given = {"gray": {"gray": 20}, "sticky": [{"header": "k"}], **fields}
    return f"---\n{json.dumps({'apiVersion': 'canary-mw/v1', 'kind': 'GrayRelease', 'name': name, **given})}\n"


def routes(mappings: str = MAPPINGS, middleware: bool = False, local: Iterable[str] = (), **fields: Any) -> RouteTable:
    return RouteTable.from_yaml(mappings + release(**fields), middleware=middleware, local=[*local])


def assigned(table: RouteTable, head: RequestHead, person: Person | None = None, roll: float = 50.0) -> Assigned:
    decision = decide(table, head, roll, person)
    assert decision is not None
    assert decision.release is not None
    return decision.release


def told(table: RouteTable, headers: Any = (), target: str = "/svc/", person: Person | None = None) -> tuple[Any, str]:
    found = assigned(table, get(target, headers), person)
    return found.variant, found.reason


def users(release: CompiledRelease, keys: Iterable[str] = KEYS) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key in keys:
        found.setdefault(release.variant_of(key), set()).add(key)
    return found


def test_a_decision_tells_what_the_release_decided() -> None:
    table = routes()
    slot = int.from_bytes(hashlib.sha256(b"r:user-3").digest()[:8]) * 1_000_000 >> 64
    decision = decide(table, get("/svc/", {"k": "user-3"}), 50.0)
    assert decision is not None
    assert decision.release is not None
    assert decision.release[:7] == ("r", "gray" if slot < 200_000 else "stable", "sticky", slot, "header:k", None, None)
    assert decision.variant == ("gray" if slot < 200_000 else "stable")


def test_decisions_of_one_share_count_as_one() -> None:
    table = routes(choice={"query": "q"})
    one, same, other = (
        decide(table, get(f"/svc/?q={word}", {"k": key}), 1.0)
        for word, key in (("always", "a"), ("always", "b"), ("never", "a"))
    )
    assert one == same != other
    assert hash(one) == hash(same)


TAG = {"header": "X-MSE-Tag", "format": "tag"}
ORDER: list[tuple[dict[str, Any], dict[str, str], Person | None, tuple[str, str]]] = [
    # What decides, and a request that also has all that comes later.
    ({"enabled": False}, {"x-canary-lane": "r=gray"}, TRUSTED, ("stable", "disabled")),
    ({}, {"x-canary-lane": "r=gray"}, TRUSTED, ("gray", "lane")),
    ({}, {"x-canary-lane": "r=gone, r=gray"}, TRUSTED, ("stable", "lane")),
    ({"lane": "shop"}, {"x-canary-lane": "r=stable,shop=gray"}, TRUSTED, ("gray", "lane")),
    ({"propagate": TAG}, {"x-mse-tag": "gray"}, TRUSTED, ("gray", "lane")),
    ({"propagate": TAG}, {"x-mse-tag": "blue"}, TRUSTED, ("stable", "lane")),
    ({"propagate": TAG}, {"x-mse-tag": "r=gray", "x-gray": "never"}, TRUSTED, ("stable", "choice:header")),
    ({"propagate": TAG}, {"x-canary-lane": "r=gray", "x-gray": "never"}, TRUSTED, ("stable", "choice:header")),
    ({"propagate": {"baggage": True}}, {"baggage": "a=b,canary-lane=r%3Dgray"}, TRUSTED, ("gray", "lane")),
    (
        {"propagate": {"baggage": True}},
        {"baggage": "canary-lane=r%3Dstable", "x-canary-lane": "r=gray"},
        TRUSTED,
        ("gray", "lane"),
    ),
    (
        {"propagate": {"baggage": True}},
        {"baggage": "canary-lane=r%3Dgray", "x-canary-lane": "other=x"},
        TRUSTED,
        ("gray", "lane"),
    ),
    ({}, {"baggage": "canary-lane=r%3Dgray", "x-gray": "never"}, TRUSTED, ("stable", "choice:header")),
    (
        {"propagate": {"baggage": True}},
        {"baggage": "canary-lane=r%3Dgray", "x-gray": "never"},
        None,
        ("stable", "choice:header"),
    ),
    ({}, {"x-canary-lane": "r=gray", "x-gray": "never"}, None, ("stable", "choice:header")),
    ({}, {"x-canary-lane": "=; r gray", "x-gray": "never"}, TRUSTED, ("stable", "choice:header")),
    ({}, {"x-gray": "gray"}, None, ("gray", "choice:header")),
    ({}, {"x-gray": "what", "cookie": "g=always"}, None, ("gray", "choice:cookie")),
    ({}, {"cookie": 'a=b; g="always"'}, None, ("gray", "choice:cookie")),
    ({}, {}, None, ("stable", "list:never")),
    ({"never": {"ids": []}}, {}, None, ("gray", "list:always")),
    ({"never": {"ids": []}, "gray": {"gray": 100}}, {}, None, ("stable", "layer")),
    (
        {"never": {"ids": []}, "gray": {"gray": 100}, "layer": {"name": "l", "from": 0, "to": 100}},
        {},
        None,
        ("stable", "holdout"),
    ),
]


@pytest.mark.parametrize(("fields", "headers", "person", "expected"), ORDER)
def test_the_first_step_that_applies_decides(fields: Any, headers: Any, person: Any, expected: Any) -> None:
    everything = {
        "choice": {"header": "x-gray", "cookie": "g"},
        "never": {"ids": ["me"]},
        "gray": {"gray": {"weight": 100, "always": {"ids": ["me"]}}},
        "layer": {"name": "l", "from": 0, "to": 0.0001},
        "holdout": {"name": "h", "percent": 100},
    }
    assert told(routes(**{**everything, **fields}), {"k": "me", **headers}, person=person) == expected


def test_a_choice_may_need_trust() -> None:
    table = routes(choice={"header": "x-gray", "query": "g", "trusted": True})
    headers = {"x-gray": "always"}
    assert told(table, headers)[1] == "missing"
    assert told(table, headers, person=TRUSTED) == ("gray", "choice:header")
    signed = Person(is_signed=lambda head, name: name == b"x-gray")
    assert told(table, headers, person=signed) == ("gray", "choice:header")
    # A parameter cannot be signed.
    assert told(table, target="/svc/?g=always", person=signed)[1] == "missing"
    assert told(table, target="/svc/?g=always", person=TRUSTED) == ("gray", "choice:query")


@pytest.mark.parametrize(
    ("expression", "target", "headers", "key"),
    [
        ({"header": "K"}, "/svc/", [("k", ""), ("k", " b "), ("k", "c")], b"b"),
        ({"header": "k"}, "/svc/", [("k", "é")], "é".encode("latin-1")),
        ({"cookie": "k"}, "/svc/", [("cookie", "K=a; kk=b; k=; k=c")], b"c"),
        ({"cookie": "k"}, "/svc/", [("cookie", "a=b"), ("cookie", 'x=y;k="q r"; k=z')], b"q r"),
        ({"cookie": "k"}, "/svc/", [("cookie", 'k="')], b'"'),
        ({"query": "k"}, "/svc/?K=a&k=&k=b%20c+d%ff&k=e", [], b"b c d\xff"),
        ({"query": "k"}, "/svc/?%6b=a&k", [], None),
        ("client_ip", "/svc/", [], b"127.0.0.1"),
    ],
)
def test_a_key_is_read_as_it_is(expression: Any, target: str, headers: Any, key: bytes | None) -> None:
    table = routes(sticky=[expression])
    found = assigned(table, get(target, headers))
    if key is None:
        assert (found.reason, found.slot) == ("missing", None)
    else:
        assert found.slot == int.from_bytes(hashlib.sha256(b"r:" + key).digest()[:8]) * 1_000_000 >> 64


@pytest.mark.parametrize(
    ("client", "key"),
    [
        ("10.0.0.1", b"10.0.0.1"),
        ("::ffff:10.0.0.1", b"10.0.0.1"),
        ("2001:db8:1:2:aaaa::1", b"2001:db8:1:2::/64"),
        ("fe80::1%eth0", b"fe80::/64"),
        ("unix:", None),
        (None, None),
    ],
)
def test_a_client_is_known_by_its_address_or_network(client: str | None, key: bytes | None) -> None:
    assert client_key(client) == key


def test_the_client_is_the_one_that_trusted_proxies_have_seen() -> None:
    table = routes(sticky=["client_ip"], never={"ids": ["10.1.1.1"]})
    assert assigned(table, get(), Person(client="10.1.1.1")).reason == "list:never"
    assert assigned(table, get(client="10.1.1.1")).reason == "list:never"


ID = "A" * 22


@pytest.mark.parametrize("value", ["", "short", ID + "=", ID + ".", ID + ".abcde", ID + ".A", "é" * 22])
def test_a_cookie_that_is_none_of_ours_is_ignored(value: str) -> None:
    new = Person(new_id=lambda: b"B" * 22)
    found = assigned(routes(sticky=[]), get(headers={"cookie": f"cmw_id={value}"}), new)
    assert (found.reason, found.anonymous_id, found.issued) == ("new", b"B" * 22, None)


def test_an_anonymous_id_is_a_key() -> None:
    table = routes(sticky=[], never={"ids": [ID]})
    assert assigned(table, get(headers={"cookie": f"cmw_id={ID}.z1"})) == Assigned(
        "r", "stable", "list:never", key="cookie:cmw_id", anonymous_id=ID.encode(), issued=35 * 36 + 1
    )
    assert assigned(table, get(headers={"cookie": f"cmw_id={ID}"})).anonymous_id is None


def test_a_new_id_decides_the_request_that_draws_it() -> None:
    table = routes(sticky=[], gray={"gray": 50})
    for number in range(50):
        key = f"{number:022}".encode()
        first = assigned(table, get(), Person(new_id=lambda: key))  # noqa: B023 - called before the loop goes on
        later = assigned(table, get(headers={"cookie": f"cmw_id={key.decode()}"}))
        assert (first.reason, later.reason) == ("new", "sticky")
        assert (first.variant, first.slot) == (later.variant, later.slot)
    # Without a source of ids the roll gives one.
    assert assigned(table, get(), roll=1.0).anonymous_id != assigned(table, get(), roll=2.0).anonymous_id


def test_a_roll_divides_by_the_percents() -> None:
    table = routes(missing="roll", gray={"gray": 12.5})
    found = [assigned(table, get(), roll=roll / 10).variant for roll in range(1000)]
    assert Counter(found) == {"gray": 125, "stable": 875}
    exclusions: list[dict[str, Any]] = [
        {"layer": {"name": "l", "from": 0, "to": 100}},
        {"holdout": {"name": "h", "percent": 1}},
    ]
    for more in exclusions:
        assert told(routes(missing="roll", gray={"gray": 100}, **more)) == ("stable", "missing")


def test_several_stable_mappings_divide_what_is_stable() -> None:
    mappings = document("a", prefix="/svc/", weight=30) + document("b", prefix="/svc/", weight=10)
    mappings += document("gray", prefix="/svc/", weight=0)
    ways: list[tuple[dict[str, Any], dict[str, str]]] = [({}, {"k": "user-0"}), ({"missing": "roll"}, {})]
    for fields, headers in ways:
        table = routes(mappings, **fields)
        found = Counter(
            decision.mapping.name
            for roll in range(1000)
            if (decision := decide(table, get(headers=headers), roll / 10)) and decision.variant == "stable"
        )
        assert abs(found["a"] / sum(found.values()) - 0.75) < 0.01
    table = routes(mappings, stable="b")
    assert {d.mapping.name for r in range(100) if (d := decide(table, get(headers={"k": "user-0"}), r))} == {"b"}


def mapping_of(decision: Decision | None) -> str | None:
    return decision.mapping.name if decision else None


def test_a_variant_without_a_mapping_here_is_stable_here() -> None:
    mappings = MAPPINGS + document("pay", prefix="/pay/") + document("pay-v3", prefix="/pay/", weight=0)
    gray = {"v2": {"weight": 50, "mappings": ["gray"]}, "v3": {"weight": 50, "mappings": ["pay-v3"]}}
    table = routes(mappings, gray=gray)
    for key in KEYS[:50]:
        cart, pay = (decide(table, get(path, {"k": key}), 1.0) for path in ("/svc/", "/pay/"))
        assert cart is not None
        assert pay is not None
        assert cart.release == pay.release
        names = {"v2": ("gray", "pay"), "v3": ("svc", "pay-v3")}
        assert (cart.mapping.name, pay.mapping.name) == names[str(cart.release and cart.release.variant)]


def test_without_a_stable_mapping_a_middleware_goes_on_to_the_groups_behind() -> None:
    gray = document("gray", prefix="/svc/", weight=0)
    behind = gray + document("rest", prefix="/")
    never, always = {"q": "never"}, {"q": "always"}
    choice = {"header": "q"}
    local: dict[str, Any] = {"stable": "local"}
    for mappings, fields, expected in ((gray, {}, ""), (behind, {}, "rest"), (behind, local, "")):
        table = routes(mappings, middleware=True, choice=choice, **fields)
        stable, chosen = (decide(table, get(headers=headers), 1.0) for headers in (never, always))
        assert (mapping_of(stable), mapping_of(chosen)) == (expected, "gray")
        assert stable is not None
        assert stable.release is not None
        assert stable.release[:7] == ("r", "stable", "choice:header", None, None, None, None)
        assert stable.local == (expected == "")


def test_a_group_ahead_takes_its_requests_as_ever() -> None:
    ahead = document("qa", prefix="/svc/", headers="{x-qa: 'yes'}")
    table = routes(MAPPINGS + ahead, gray={"gray": 100})
    assert mapping_of(decide(table, get(headers={"x-qa": "yes", "k": "a"}), 1.0)) == "qa"
    assert mapping_of(decide(table, get(headers={"k": "a"}), 1.0)) == "gray"


def test_what_was_sent_to_this_service_stays_here_and_keeps_its_variant() -> None:
    table = routes(local=["gray"], middleware=True, gray={"gray": 50})
    for key in KEYS[:20]:
        decision = decide(table, get(headers={"via": "1.1 canary-mw-a (gray)", "k": key}), 1.0)
        assert decision is not None
        assert (decision.mapping.name, decision.sent) == ("gray", True)
        assert decision.release is not None
        assert decision.release[:7] == ("r", "gray", "sent", None, None, None, None)
    # A comment for another service, or one that is not believed, changes nothing.
    for headers, person in (
        ({"via": "1.1 a (other)"}, None),
        ({"via": "1.1 a (gray)"}, Person(is_sent=lambda *_: False)),
    ):
        assert assigned(table, get(headers={"k": "a", **headers}), person).reason == "sticky"


def test_a_drained_session_stays_until_the_variant_is_gone() -> None:
    cookie = {"cookie": "cmw_in_r=gray", "k": "me"}
    assert told(routes(gray={"gray": 0}, on_zero="drain"), cookie) == ("gray", "drain")
    assert told(routes(gray={"gray": 0}, on_zero="drain", missing="roll"), {"cookie": "cmw_in_r=gray"})[1] == "drain"
    assert told(routes(gray={"gray": 0}, on_zero="eject"), cookie) == ("stable", "sticky")
    assert told(routes(gray={"gray": 0}, on_zero="drain"), {**cookie, "cookie": "cmw_in_r=other"})[1] == "sticky"
    assert told(routes(gray={"gray": 0}, on_zero="drain", never={"ids": ["me"]}), cookie)[1] == "list:never"
    layer = {"name": "l", "from": 0, "to": 0.0001}
    assert told(routes(gray={"gray": 0}, on_zero="drain", layer=layer), cookie) == ("gray", "drain")
    unsigned = Person(verify_cookie=lambda name, value: None)
    assert told(routes(gray={"gray": 0}, on_zero="drain"), cookie, person=unsigned)[1] == "sticky"


def test_growing_only_adds_and_shrinking_only_removes() -> None:
    mappings = MAPPINGS + document("b", prefix="/svc/", weight=0)
    steps = [
        users(routes(mappings, gray={"gray": a, "b": b}).releases["r"])
        for a, b in ((5, 10), (20, 10), (20, 40), (2.5, 40))
    ]
    for before, after in pairwise(steps):
        assert before["b"] <= after["b"]
    assert steps[0]["gray"] <= steps[1]["gray"] == steps[2]["gray"] >= steps[3]["gray"]


def test_releases_overlap_by_their_salts_and_never_in_a_layer() -> None:
    second = document("a", prefix="/a/") + document("ag", prefix="/a/", weight=0)

    def gray_of_both(one: dict[str, Any], two: dict[str, Any]) -> tuple[set[str], set[str]]:
        text = MAPPINGS + second + release("one", gray={"gray": 10}, **one) + release("two", gray={"ag": 10}, **two)
        table = RouteTable.from_yaml(text)
        return users(table.releases["one"])["gray"], users(table.releases["two"])["ag"]

    one, two = gray_of_both({}, {})
    assert 10 < len(one & two) < 60
    one, two = gray_of_both({"salt": "s"}, {"salt": "s"})
    assert one == two
    layers = [{"layer": {"name": "l", "from": low, "to": low + 50}} for low in (0, 50)]
    one, two = gray_of_both(*layers)
    assert one
    assert two
    assert not one & two


def test_a_reload_that_moves_users_without_cause_is_reported() -> None:
    mappings = MAPPINGS + document("b", prefix="/svc/", weight=0)

    def moved(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        old, new = (routes(mappings, **fields) for fields in (before, after))
        table = old.rebuild(new.mappings, releases=new.documents)
        return [each.message for each in table.diagnostics if each.code == "split-moved"]

    both = {"gray": {"gray": 10, "b": 20}}
    assert moved(both, {"gray": {"gray": 20, "b": 5}}) == []
    assert moved(both, both) == []
    (text,) = moved(both, {"gray": {"b": 20, "gray": 10}})
    assert "40 %" in text
    (text,) = moved({**both, "salt": "a"}, {**both, "salt": "b"})
    assert "46 %" in text


def test_a_collision_is_named_with_its_percent() -> None:
    mappings = MAPPINGS + document("b", prefix="/svc/", weight=0) + document("c", prefix="/svc/", weight=0)
    table = routes(mappings, gray={"gray": 21, "b": 29, "c": 36})
    (found,) = [each for each in table.diagnostics if each.code == "split-collision"]
    assert "c meets other variants: 15 %" in found.message


def test_a_compiled_release_is_kept_while_its_document_is_the_same() -> None:
    old = routes()
    same = old.rebuild(old.mappings, releases=routes().documents)
    assert same.releases["r"] is old.releases["r"]
    assert same.groups == old.groups
    other = old.rebuild(old.mappings, releases=routes(gray={"gray": 21}).documents)
    assert other.releases["r"] is not old.releases["r"]
    assert other.groups != old.groups


@pytest.mark.parametrize(
    ("text", "hashed"),
    [(b"", 0), (b"a", 0x3C2569B2), (b"abc", 0xB3DD93FA), (b"abcd", 0x43ED676A), (b"Hello, world!", 0xC0363E43)],
)
def test_murmur3_in_python_is_that_of_everybody(text: bytes, hashed: int) -> None:
    assert _murmur3_python(text) == hashed


def test_an_installed_mmh3_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[bytes, int, bool]] = []

    def native(data: bytes, seed: int, signed: bool) -> int:
        called.append((data, seed, signed))
        return _murmur3_python(data)

    module = types.ModuleType("mmh3")
    module.hash = native  # type: ignore[attr-defined]
    plain = slot_function(HashFunction("unleash", "g"))(b"user")
    monkeypatch.setitem(sys.modules, "mmh3", module)
    assert slot_function(HashFunction("unleash", "g"))(b"user") == plain
    assert called == [(b"g:user", 0, False)]


def test_a_variant_of_a_key_needs_no_request() -> None:
    table = routes(never={"ids": ["user-1"]}, holdout={"name": "h", "percent": 10}, gray={"gray": 40})
    for key in KEYS[:300]:
        assert table.releases["r"].variant_of(key) == assigned(table, get(headers={"k": key})).variant
    assert table.releases["r"].variant_of(b"user-1") == "stable"
    assert {routes(enabled=False, gray={"gray": 100}).releases["r"].variant_of(key) for key in KEYS[:9]} == {"stable"}


SCRIPT = """
import hashlib, sys
from canary_mw import RouteTable
keys = [f"user-{number}" for number in range(100_000)]
digest, before = hashlib.sha256(), None
for a, b in ((5, 10), (20, 10), (20, 40), (2.5, 40)):
    gray = f"{{gray: {a}, b: {b}}}"
    release = RouteTable.from_yaml(sys.argv[1].replace("GRAY", gray)).releases["r"]
    found = [release.variant_of(key) for key in keys]
    for name, percent in (("gray", a), ("b", b)):
        assert abs(found.count(name) / 1000 - percent) < 0.3, (name, percent, found.count(name))
    sets = {name: {key for key, each in zip(keys, found) if each == name} for name in ("gray", "b")}
    for name, now in sets.items() if before else ():
        # Who grew only won users, who shrank only lost some.
        assert before[name] <= now or now <= before[name], name
    before = sets
    digest.update("".join(found).encode())
print(digest.hexdigest())
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_every_process_gives_100_000_users_the_same_variants() -> None:
    text = MAPPINGS + document("b", prefix="/svc/", weight=0) + release(gray={}).replace("{}", "GRAY")
    command = [sys.executable, "-c", SCRIPT, text]
    found = {
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_of_100_000_users_two_releases_share_as_many_as_chance_gives() -> None:
    second = document("a", prefix="/a/") + document("ag", prefix="/a/", weight=0)
    table = RouteTable.from_yaml(
        MAPPINGS + second + release("one", gray={"gray": 10}) + release("two", gray={"ag": 10})
    )
    keys = [f"user-{number}" for number in range(100_000)]
    one, two = users(table.releases["one"], keys)["gray"], users(table.releases["two"], keys)["ag"]
    assert 800 <= len(one & two) <= 1200


def test_explain_decide_and_variant_of_agree() -> None:
    mappings = MAPPINGS + document("b", prefix="/svc/", weight=0) + document("c", prefix="/svc/", weight=0)
    fields: dict[str, Any] = {
        "gray": {"gray": 12.5, "b": {"weight": 30, "at": 25, "grow": "down"}, "c": 7.0001},
        "layer": {"name": "l", "from": 10, "to": 90},
        "holdout": {"name": "h", "percent": 5},
        "never": {"ids": KEYS[:20]},
    }
    table = routes(mappings, **fields)
    for key in KEYS:
        head = get(headers={"k": key})
        (candidate,) = explain(table, head).candidates
        assert candidate.decision is not None
        told = candidate.decision.release
        assert told == assigned(table, head)
        assert told is not None
        assert told.variant == table.releases["r"].variant_of(key)
        assert candidate.percent == 100


class User:
    """The user of an app, with what may go wrong when one looks at it."""

    id = 42
    name = "anna"
    beta = True
    org = {"plan": "pro", "tags": ["a"]}  # noqa: RUF012 - as apps write it

    @property
    def broken(self) -> str:
        raise RuntimeError("the database is gone")

    def secret(self) -> str:
        raise AssertionError("nothing is called")


@pytest.mark.parametrize(
    ("user", "path", "key"),
    [
        (User(), "id", b"42"),
        (User(), "name", b"anna"),
        (User(), "org.plan", b"pro"),
        ({"org": {"id": "é"}}, "org.id", "é".encode()),
        ({"id": 0}, "id", b"0"),
        (User(), "beta", None),
        (User(), "broken", None),
        (User(), "secret", None),
        (User(), "org", None),
        (User(), "org.tags.0", None),
        (User(), "nothing.at.all", None),
        ({"id": 1.5}, "id", None),
        ({"id": ""}, "id", None),
        ("text", "id", None),
        (None, "id", None),
    ],
)
@pytest.mark.parametrize("kind", ["user", "session"])
def test_a_user_and_a_session_may_give_the_key(kind: str, user: Any, path: str, key: bytes | None) -> None:
    person = Person(user=user) if kind == "user" else Person(session=user)
    found = assigned(routes(sticky=[{kind: path}]), get(), person)
    if key is None:
        assert found.reason == "missing"
    else:
        slot = int.from_bytes(hashlib.sha256(b"r:" + key).digest()[:8]) * 1_000_000 >> 64
        assert (found.key, found.slot) == (f"{kind}:{path}", slot)


def test_a_user_of_a_header_and_of_the_app_is_one_user() -> None:
    table = routes(sticky=[{"header": "k"}, {"user": "id"}])
    assert assigned(table, get(headers={"k": "42"})).slot == assigned(table, get(), Person(user={"id": 42})).slot


PRO = Person(user={"plan": "pro", "age": 3}, session={"s": "1"}, predicates={"beta": True, "odd": False})


@pytest.mark.parametrize(
    ("audience", "person", "holds"),
    [
        ({"user": {"plan": ["team", "pro"]}}, PRO, True),
        ({"user": {"plan": "pro", "age": 3}}, PRO, True),
        ({"user": {"plan": "pro", "age": 4}}, PRO, False),
        ({"user": {"plan": "pro"}}, None, False),
        ({"user": {"plan": "pro"}, "session": {"s": 2}}, PRO, False),
        ({"session": {"s": 1}}, PRO, True),
        ({"predicate": "beta"}, PRO, True),
        ({"predicate": "odd"}, PRO, False),
        ({"predicate": "unknown"}, PRO, False),
        ({"predicate": "beta"}, Person(predicates={"beta": 1}), False),  # type: ignore[dict-item]
        ({"header": {"X-A": "b"}}, None, True),
        ({"header": {"x-a": "B"}}, None, False),
        ({"cookie": {"c": "d"}}, None, True),
        ({"query": {"q": "a b"}}, None, True),
        ({"client_ip": "127.0.0.0/8"}, None, True),
        ({"client_ip": ["10.0.0.0/8", "::/0"]}, None, False),
        ({"client_ip": ["10.0.0.0/8"]}, Person(client="::ffff:10.9.9.9"), True),
        ({"client_ip": ["10.0.0.0/8"]}, Person(client="unix"), False),
        ({"any": [{"user": {"plan": "x"}}, {"header": {"x-a": "b"}}]}, PRO, True),
        ({"any": [{"user": {"plan": "x"}}, {"header": {"x-a": "c"}}]}, PRO, False),
        ({"all": [{"user": {"plan": "pro"}}, {"header": {"x-a": "b"}}]}, PRO, True),
        ({"all": [{"user": {"plan": "pro"}}, {"header": {"x-a": "c"}}]}, PRO, False),
        ({"not": {"user": {"plan": "pro"}}}, PRO, False),
        ({"not": {"user": {"plan": "pro", "age": 9}}}, PRO, True),
        ({"not": {"not": {"user": {"plan": "pro"}}}}, PRO, True),
    ],
)
@pytest.mark.parametrize("key", [{"k": "a"}, {}])
def test_only_the_audience_is_drawn(audience: Any, person: Any, holds: bool, key: dict[str, str]) -> None:
    table = routes(audience=audience, gray={"gray": 100}, missing="roll")
    head = get("/svc/?q=a+b", {"x-a": "b", "cookie": "c=d", **key})
    drawn = ("gray", "sticky" if key else "roll")
    found = assigned(table, head, person)
    assert (found.variant, found.reason) == (drawn if holds else ("stable", "audience"))
    assert (found.key == "header:k") == bool(key)


def test_a_choice_and_a_list_pass_the_audience_by() -> None:
    fields: dict[str, Any] = {"audience": {"header": {"x-a": "b"}}, "choice": {"query": "q"}}
    table = routes(gray={"gray": {"weight": 5, "always": {"ids": ["me"]}}}, **fields)
    assert told(table, {"k": "me"}) == ("gray", "list:always")
    assert told(table, {"k": "other"}, "/svc/?q=always") == ("gray", "choice:query")
    assert told(table, {"k": "other"}) == ("stable", "audience")


def test_only_a_release_that_asks_for_the_user_looks_at_it() -> None:
    assert not routes().asks_person
    assert not routes(audience={"header": {"a": "b"}}).asks_person
    assert routes(sticky=[{"user": "id"}]).asks_person
    assert routes(audience={"any": [{"not": {"session": {"a": "b"}}}]}).asks_person


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (["user-7"], "user-7"),
        (["user-7", "user-8"], "user-7"),
        (["", "user-7", "user-8"], "user-7"),
        ([" \t", "", "user-7"], "user-7"),
        (["", " "], None),
        ([], None),
    ],
)
def test_the_first_line_of_a_header_that_says_something_is_the_key(lines: list[str], key: str | None) -> None:
    table = routes()
    head = RequestHead("GET", "/svc/", [("host", "shop"), *(("k", line) for line in lines), ("other", "x")])
    assert table.releases["r"].key_of(head, Person()) == (None if key is None else (key.encode(), "header:k"))
