"""The texts of lanes: lists, tags and baggage, from anybody."""

import pytest

from canary_mw.http.host_list import host_matcher
from canary_mw.http.lanes import (
    MAX_LANE_BYTES,
    Lane,
    baggage_lanes,
    has_lanes,
    lane_list,
    lanes_in,
    sent_value,
    with_lane,
    with_lane_headers,
    with_member,
    without_lanes,
    without_member,
)

LISTS = {
    b"a=b": {b"a": b"b"},
    b" a=b ,\tc=d\t": {b"a": b"b", b"c": b"d"},
    b"a=b, a=c": {b"a": b"b"},
    b"": {},
    b"a, =b, a=, a=b=c, a b=c, \xff=a, d=e": {b"d": b"e"},
    b"a" * 64 + b"=" + b"b" * 64: {b"a" * 64: b"b" * 64},
    b"a" * 65 + b"=b": {},
    b",".join(b"l%d=v" % number for number in range(20)): {b"l%d" % number: b"v" for number in range(16)},
}


@pytest.mark.parametrize("value", LISTS)
def test_a_list_is_read_entry_by_entry(value: bytes) -> None:
    assert lanes_in(value) == LISTS[value]


@pytest.mark.parametrize("over", range(12))
def test_an_entry_that_the_limit_cuts_is_left_out(over: int) -> None:
    """What is left of it would be the name of another variant."""
    filler = b"x" * 60 + b"=" + b"y" * 60
    head = b",".join([filler] * 8)
    name = b"n" * (MAX_LANE_BYTES - len(head) - len(b",=gray-two") + over)
    found = lanes_in(head + b"," + name + b"=gray-two")
    assert found.get(name) == (None if over else b"gray-two")
    assert set(found.values()) <= {b"y" * 60, b"gray-two"}


def test_one_entry_that_is_too_long_is_none() -> None:
    assert lanes_in(b"a=" + b"b" * 2000) == {}


def test_a_list_stays_within_its_limits() -> None:
    many = with_lane(b", ".join(b"l%d=v" % number for number in range(16)), b"own", b"gray")
    assert len(lanes_in(many)) == 16
    assert many.startswith(b"own=gray, l0=v")
    long = lane_list((b"%02d" % number + b"x" * 60, b"y" * 60) for number in range(16))
    assert 800 < len(long) <= MAX_LANE_BYTES


def test_a_decision_replaces_that_of_a_service_before() -> None:
    assert with_lane(b"b=x, a=old, b=z", b"a", b"new") == b"a=new, b=x"


@pytest.mark.parametrize(
    ("received", "variant", "sent"),
    [
        (b"", b"gray", b"gray"),
        (b"", b"stable", b""),
        (b"gray", b"stable", b""),
        (b"blue", b"stable", b"blue"),
        (b"blue", b"gray", b"gray"),
        (b"two words", b"stable", b""),
    ],
)
def test_a_tag_is_the_bare_variant(received: bytes, variant: bytes, sent: bytes) -> None:
    tag = Lane(b"svc", b"x-mse-tag", is_tag=True, variants=frozenset((b"gray",)))
    assert sent_value(tag, received, variant, b"stable") == sent


def test_baggage_keeps_the_members_of_others() -> None:
    others = b"user=1;meta, canary-lane-2=x"
    both = with_member(others, b"a=b, c=d")
    assert both == others + b",canary-lane=a%3Db%2C%20c%3Dd"
    assert baggage_lanes([(b"baggage", b"k=v"), (b"baggage", both)]) == b"a=b, c=d"
    assert without_member(both) == others
    assert with_member(both, b"a=z") == others + b",canary-lane=a%3Dz"
    assert without_member(b"canary-lane=a") == b""


def test_the_decision_takes_the_place_of_every_spelling() -> None:
    lane = Lane(b"a")
    given = [(b"x_canary-lane", b"a=forged"), (b"x-canary-lane", b"a=old, b=x"), (b"k", b"v")]
    found = with_lane_headers(given, lane, b"gray", b"stable", listed=False)
    assert found == [(b"k", b"v"), (b"x-canary-lane", b"a=gray, b=x")]


def test_baggage_goes_to_listed_hosts_only() -> None:
    lane = Lane(b"a", baggage=True)
    given = [(b"baggage", b"u=1,canary-lane=b%3Dx")]
    assert with_lane_headers(given, lane, b"gray", b"stable", listed=False) == [
        (b"baggage", b"u=1"),
        (b"x-canary-lane", b"a=gray, b=x"),
    ]
    assert with_lane_headers(given, lane, b"gray", b"stable", listed=True)[0] == (
        b"baggage",
        b"u=1,canary-lane=a%3Dgray%2C%20b%3Dx",
    )


def test_lanes_are_taken_out_in_whatever_form() -> None:
    names = frozenset((b"x-canary-lane", b"x_tag"))
    given = [
        *((name, b"a=b") for name in (b"x-canary-lane", b"x_canary_lane", b"x-tag", b"x_tag", b"x-other")),
        (b"baggage", b"u=1,canary-lane=a%3Db"),
    ]
    assert without_lanes(given, names, frozenset()) == [(b"x-other", b"a=b"), (b"baggage", b"u=1")]
    kept = without_lanes(given, names, frozenset((b"x_tag", b"baggage")))
    assert kept == [(b"x_tag", b"a=b"), (b"x-other", b"a=b"), given[-1]]


HOSTS = ["pay", "*.shop.svc", "search:8080", "10.0.0.0/8", "192.0.2.7", "[2001:db8::1]:443", "fd00::/8", "Über.example"]
LISTED = [
    *(("pay", 80), ("PAY", 1), ("pay.", 443), ("a.shop.svc", 1), ("a.b.shop.svc", 80), ("search", 8080)),
    *(("10.1.2.3", 1), ("::ffff:10.1.2.3", 1), ("192.0.2.7", 5), ("2001:db8::1", 443), ("[fd00::5]", 80)),
    ("xn--ber-goa.example", 80),
]
NOT_LISTED = [
    *(("shop.svc", 80), ("pay.evil", 80), ("evilpay", 80), ("notshop.svc", 80), ("search", 80), ("192.0.2.8", 80)),
    *(("2001:db8::1", 80), ("10.1", 80), ("0x0a.1.2.3", 80), ("10.1.2.3.evil", 80), ("", 80), ("x.shop.svc.evil", 80)),
]


@pytest.mark.parametrize(("host", "port"), LISTED)
def test_hosts_of_a_list(host: str, port: int) -> None:
    assert host_matcher(HOSTS)(host, port)


@pytest.mark.parametrize(("host", "port"), NOT_LISTED)
def test_hosts_off_the_list(host: str, port: int) -> None:
    assert not host_matcher(HOSTS)(host, port)


def test_an_empty_list_has_nobody() -> None:
    assert not host_matcher([])("pay", 80)


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "http://pay", "pay/x", "pay:0", "pay:x", "a b", "10.0.0.0/64", "a..b", "pay:", "*.*.x", "u@pay"],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a host: write a name, \*\.SUFFIX"):
        host_matcher([text])


@pytest.mark.parametrize(
    ("name", "lane", "holds"),
    [
        (b"x-canary-lane", b"x-canary-lane", True),
        (b"x_canary-lane", b"x-canary-lane", True),
        (b"x_canary_lane", b"x-canary-lane", True),
        (b"x-canary-lane", b"x_canary_lane", True),
        (b"x-canary-lan", b"x-canary-lane", False),
        (b"x-canary--lane", b"x-canary-lane", False),
        (b"-lane_", b"_lane-", True),
        (b"lane", b"lane", True),
        (b"a_b-c_d-e_f-g_h-i_j-k_l", b"a-b-c-d-e-f-g-h-i-j-k-l", True),
        (b"a-b-c-d-e-f-g-h-i-j-k_l", b"a_b_c_d_e_f_g_h_i_j_k_l", True),
        (b"a-b-c-d-e-f-g-h-i-j-k-m", b"a-b-c-d-e-f-g-h-i-j-k-l", False),
        (b"-" * 80, b"_" * 80, True),
    ],
)
def test_a_name_of_lanes_is_found_with_hyphens_and_with_underscores(name: bytes, lane: bytes, holds: bool) -> None:
    headers = [(b"host", b"shop"), (name, b"a=b"), (b"x_other", b"1")]
    assert has_lanes(headers, frozenset((lane, b"x-else"))) is holds
    assert not has_lanes(headers[:1], frozenset((lane,)))
