import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary_mw.forwarding.hash_policy import hash_key
from canary_mw.http.messages import RequestHead
from canary_mw.rules.upstream import Cookie, LoadBalancerPolicy, LoadBalancing
from canary_mw.upstreams.load_balancers import MAGLEV_SIZE, HashTable, hash_table, pick

HASHING: tuple[LoadBalancerPolicy, ...] = ("ring_hash", "maglev")
_random = Random(7)
KEYS = [_random.getrandbits(64) for _ in range(3000)]

addresses = st.builds("10.{}.{}.{}:{}".format, *[st.integers(0, 255)] * 3, st.integers(1, 65535))
several = st.lists(addresses, min_size=2, max_size=12, unique=True).map(tuple)


@dataclass
class Server:
    in_flight: int = 0


def made(policy: LoadBalancerPolicy, names: tuple[str, ...]) -> HashTable:
    found = hash_table(policy, names)
    assert found is not None
    return found


def owners(policy: LoadBalancerPolicy, names: tuple[str, ...]) -> list[str]:
    """The endpoint of each of KEYS, by name."""
    return [names[made(policy, names).owner(key)] for key in KEYS]


def drawn(policy: LoadBalancerPolicy, count: int, key: int | None = None, requests: int = 3000) -> Counter[int]:
    """How often each of `count` idle endpoints is picked."""
    random = Random(1)
    names = tuple(f"10.0.0.{number}:80" for number in range(count))
    servers = [Server() for _ in names]
    looked_up = hash_table(policy, names)
    return Counter(pick(policy, servers, looked_up, key, turn, random.random) for turn in range(requests))


@pytest.mark.parametrize("policy", HASHING)
@settings(max_examples=15, deadline=None)
@given(names=several, seed=st.integers(0, 100))
def test_a_key_has_the_same_endpoint_in_whatever_order_they_are_named(
    policy: LoadBalancerPolicy, names: tuple[str, ...], seed: int
) -> None:
    shuffled = list(names)
    Random(seed).shuffle(shuffled)
    assert owners(policy, names) == owners(policy, tuple(shuffled))


@pytest.mark.parametrize("policy", HASHING)
def test_a_key_has_the_same_endpoint_in_every_process(policy: LoadBalancerPolicy) -> None:
    names = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
    code = f"from canary_mw.upstreams.load_balancers import hash_table; t = hash_table({policy!r}, {names!r}); " + (
        "print([t.owner(n * 0x9E3779B97F4A7C15 % 2**64) for n in range(40)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = made(policy, names)
    assert outputs == {f"{[here.owner(n * 0x9E3779B97F4A7C15 % 2**64) for n in range(40)]}\n"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("ring_hash", "1121011100202202221220011002222002200011"), ("maglev", "0000000022121212212022020000210021221212")],
)
def test_the_tables_are_those_of_every_release(policy: LoadBalancerPolicy, expected: str) -> None:
    found = made(policy, ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"))
    assert "".join(str(found.owner(n * 0x9E3779B97F4A7C15 % 2**64)) for n in range(40)) == expected


@settings(max_examples=15, deadline=None)
@given(names=several, more=addresses)
def test_on_a_ring_keys_move_to_a_new_endpoint_only(names: tuple[str, ...], more: str) -> None:
    if more in names:
        return
    before, after = owners("ring_hash", names), owners("ring_hash", (*names, more))
    moved = [new for old, new in zip(before, after, strict=True) if new != old]
    assert set(moved) <= {more}
    assert 0.5 < len(moved) / len(KEYS) * (len(names) + 1) < 1.6


@settings(max_examples=15, deadline=None)
@given(names=several, more=addresses)
def test_in_a_maglev_table_a_new_endpoint_moves_about_its_share_of_the_keys(names: tuple[str, ...], more: str) -> None:
    if more in names:
        return
    before, after = owners("maglev", names), owners("maglev", (*names, more))
    moved = sum(new != old for old, new in zip(before, after, strict=True))
    assert 0.5 < moved / len(KEYS) * (len(names) + 1) < 1.8


@pytest.mark.parametrize("policy", HASHING)
@settings(max_examples=15, deadline=None)
@given(names=several)
def test_every_endpoint_gets_about_its_share_of_the_keys(policy: LoadBalancerPolicy, names: tuple[str, ...]) -> None:
    shares = Counter(owners(policy, names))
    assert len(shares) == len(names)
    assert all(0.5 < count / len(KEYS) * len(names) < 1.6 for count in shares.values())


def test_the_ring_has_at_least_as_many_points_as_envoys_smallest_and_does_not_grow_for_ever() -> None:
    assert len(made("ring_hash", ("a:1", "b:1")).bounds) == 1024
    assert len(made("ring_hash", tuple(f"a:{n}" for n in range(1, 501))).bounds) <= 32768


def test_beyond_the_last_point_of_a_ring_its_first_endpoint_owns() -> None:
    ring = made("ring_hash", ("a:1", "b:1"))
    assert ring.owner(2**64 - 1) == ring.owner(0) == ring.owners[0]
    assert ring.owner(ring.bounds[0] - 1) == ring.owners[0]
    assert ring.owner(ring.bounds[0]) == ring.owners[1]


def test_the_maglev_table_is_full_and_its_size_is_prime() -> None:
    assert set(made("maglev", ("a:1", "b:1", "c:1")).owners) == {0, 1, 2}
    assert all(MAGLEV_SIZE % divisor for divisor in range(2, int(MAGLEV_SIZE**0.5) + 1))


def test_round_robin_takes_turns() -> None:
    turns = [pick("round_robin", [Server()] * 3, None, None, turn, lambda: 0.0) for turn in range(5, 11)]
    assert turns == [2, 0, 1, 2, 0, 1]


def test_least_request_prefers_the_less_loaded_of_two_different_ones() -> None:
    servers = [Server(5), Server(0), Server(9)]
    random = Random(3)
    picks = Counter(pick("least_request", servers, None, None, turn, random.random) for turn in range(3000))
    assert 2 not in picks
    assert picks[1] > picks[0] > 500


def test_least_request_spreads_over_idle_endpoints() -> None:
    assert all(800 < count < 1200 for count in drawn("least_request", 3).values())


@pytest.mark.parametrize("numbers", [(0.0, 0.0), (0.999999, 0.999999), (0.0, 0.999999), (0.5, 0.0)])
def test_the_bounds_of_the_random_numbers_name_endpoints(numbers: tuple[float, float]) -> None:
    rolls = iter(numbers)
    assert pick("least_request", [Server(), Server(), Server()], None, None, 0, rolls.__next__) in range(3)


@pytest.mark.parametrize("policy", HASHING)
def test_a_request_without_key_goes_anywhere(policy: LoadBalancerPolicy) -> None:
    assert all(800 < count < 1200 for count in drawn(policy, 3).values())


@pytest.mark.parametrize("policy", HASHING)
def test_a_key_goes_to_one_endpoint(policy: LoadBalancerPolicy) -> None:
    assert len(drawn(policy, 3, key=12345)) == 1


@pytest.mark.parametrize("policy", [*HASHING, "round_robin", "least_request"])
def test_one_endpoint_is_always_picked(policy: LoadBalancerPolicy) -> None:
    assert set(drawn(policy, 1, key=5, requests=20)) == {0}


def keyed(
    load_balancing: LoadBalancing, *headers: tuple[str, str], client: str | None = "192.0.2.1", new: bytes = b"x"
) -> tuple[int | None, bytes | None]:
    return hash_key(load_balancing, RequestHead("GET", "/", headers, client=client), lambda: new)


COOKIE = LoadBalancing("ring_hash", cookie=Cookie(b"sticky", b"/p", 60.0))


def test_a_client_without_cookie_gets_one_that_leads_to_the_same_endpoint() -> None:
    key, cookie = keyed(COOKIE)
    assert cookie is not None
    value, *rest = cookie.decode().split("; ")
    assert rest == ["Max-Age=60", "Path=/p", "HttpOnly"]
    name, _, text = value.partition("=")
    assert name == "sticky"
    assert text == f'"{int(text[1:-1], 16):016x}"'
    assert keyed(COOKIE, ("cookie", value)) == (key, None)
    assert keyed(COOKIE, ("cookie", value.replace('"', ""))) == (key, None)


def test_two_clients_get_different_cookies() -> None:
    assert keyed(COOKIE, new=b"one") != keyed(COOKIE, new=b"two")


def test_a_ttl_of_zero_is_a_session_cookie_and_a_missing_path_is_left_out() -> None:
    _, cookie = keyed(LoadBalancing("maglev", cookie=Cookie(b"sticky", ttl=0.0)))
    assert cookie is not None
    assert cookie.split(b"; ")[1:] == [b"HttpOnly"]


def test_a_cookie_without_ttl_is_read_but_never_issued() -> None:
    load_balancing = LoadBalancing("ring_hash", cookie=Cookie(b"sticky"))
    assert keyed(load_balancing) == (None, None)
    key, cookie = keyed(load_balancing, ("cookie", "sticky=abc"))
    assert key is not None
    assert cookie is None


@pytest.mark.parametrize(
    "line", ["sticky=abc", "a=b; sticky=abc", "sticky=abc;sticky=other", 'x="1";  sticky="abc" ; y']
)
def test_the_cookie_is_found_among_others(line: str) -> None:
    assert keyed(COOKIE, ("cookie", line)) == keyed(
        COOKIE, ("accept", "*/*"), ("cookie", "n=1"), ("cookie", "sticky=abc")
    )


@pytest.mark.parametrize("line", ["sticky", "sticky=", 'sticky=""', "Sticky=abc", "xsticky=abc", "other=1"])
def test_a_client_with_an_empty_or_another_cookie_gets_one(line: str) -> None:
    assert keyed(COOKIE, ("cookie", line))[1] is not None


def test_a_lone_quote_is_a_value() -> None:
    assert keyed(COOKIE, ("cookie", 'sticky="'))[1] is None


def test_a_header_is_the_key_and_without_it_a_request_has_none() -> None:
    load_balancing = LoadBalancing("maglev", header=b"x-user")
    alice, bob = keyed(load_balancing, ("x-user", "alice")), keyed(load_balancing, ("x-user", "bob"))
    assert None not in (alice[0], bob[0])
    assert alice != bob
    assert alice == keyed(load_balancing, ("x-user", "alice"), ("cookie", "sticky=abc"), client="192.0.2.9")
    assert keyed(load_balancing, ("x-other", "alice")) == (None, None)


def test_the_order_of_repeated_headers_does_not_matter() -> None:
    load_balancing = LoadBalancing("maglev", header=b"x-user")
    pairs = [("x-user", "a"), ("x-user", "b")]
    assert keyed(load_balancing, *pairs) == keyed(load_balancing, *reversed(pairs))
    assert keyed(load_balancing, *pairs) != keyed(load_balancing, pairs[0])


def test_the_address_of_the_client_is_a_key() -> None:
    load_balancing = LoadBalancing("ring_hash", source_ip=True)
    assert keyed(load_balancing, ("x-user", "a")) == keyed(load_balancing)
    assert keyed(load_balancing) != keyed(load_balancing, client="192.0.2.2")
    assert keyed(load_balancing, client=None) == (None, None)


def test_other_policies_have_no_key() -> None:
    assert keyed(LoadBalancing(), ("cookie", "sticky=abc")) == (None, None)
