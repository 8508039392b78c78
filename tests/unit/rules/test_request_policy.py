from ipaddress import ip_network

import pytest
from rules import get, read_rules

from canary_mw.exceptions import BadTarget, ClientError, Forbidden, HeadTooLarge
from canary_mw.http.messages import RequestHead
from canary_mw.routing.table import RouteTable
from canary_mw.rules.module import ModuleSettings
from canary_mw.rules.request_policy import AddressFilter, RequestPolicy


def addresses(*networks: str, allow: bool) -> AddressFilter:
    return AddressFilter(tuple(ip_network(network) for network in networks), allow)


def test_a_policy_without_settings_changes_nothing() -> None:
    head = get("//a%2Fb", {"x_y": "1"}, client=None)
    assert RequestPolicy().admit(head) is head


@pytest.mark.parametrize(
    ("path", "merged"), [("//", b"/"), ("/a//b///c", b"/a/b/c"), ("/a/b/", b"/a/b/"), ("/a%2F/b", b"/a%2F/b")]
)
def test_slashes_are_merged_before_matching(path: str, merged: bytes) -> None:
    head = RequestPolicy(merge_slashes=True).admit(get(path + "?x=//", {"x-a": "1"}))
    assert (head.path, head.query, head.header(b"x-a")) == (merged, b"?x=//", b"1")


@pytest.mark.parametrize(
    ("path", "refused"),
    [("/a%2Fb", True), ("/a%2fb", True), ("/a%5Cb", True), ("/a%5cb", True), ("/a/b", False), ("/a?b=%2F", False)],
)
def test_escaped_slashes_are_refused_if_configured(path: str, refused: bool) -> None:
    policy = RequestPolicy(reject_requests_with_escaped_slashes=True)
    if not refused:
        assert policy.admit(get(path))
        return
    with pytest.raises(BadTarget) as caught:
        policy.admit(get(path))
    assert caught.value.status_hint == 400


def test_headers_with_underscores_are_allowed_dropped_or_refused() -> None:
    head = get(headers=[("x_a", "1"), ("x-b", "2")])
    assert RequestPolicy(headers_with_underscores_action="ALLOW").admit(head) is head
    dropped = RequestPolicy(headers_with_underscores_action="DROP_HEADER").admit(head)
    assert dropped.headers == [(b"x-b", b"2")]
    assert head.header(b"x_a") == b"1", "the request itself is unchanged"
    with pytest.raises(BadTarget):
        RequestPolicy(headers_with_underscores_action="REJECT_REQUEST").admit(head)
    clean = get(headers={"x-b": "2"})
    assert RequestPolicy(headers_with_underscores_action="REJECT_REQUEST").admit(clean) is clean


def test_a_head_over_the_limit_is_refused_with_431() -> None:
    policy = RequestPolicy(max_request_headers_kb=1)
    assert policy.admit(get(headers={"x-a": "v" * 900}))
    with pytest.raises(HeadTooLarge, match="over 1 KiB") as caught:
        policy.admit(get(headers={"x-a": "v" * 1024}))
    assert caught.value.status_hint == 431
    with pytest.raises(HeadTooLarge):
        policy.admit(get("/" + "a" * 1024))


@pytest.mark.parametrize(
    ("client", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
    ],
)
def test_addresses_are_allowed_or_denied_by_their_network(client: str, inside: bool) -> None:
    allowed = addresses("10.0.0.0/8", "2001:db8::/32", allow=True)
    denied = addresses("10.0.0.0/8", "2001:db8::/32", allow=False)
    for _ in range(2):
        assert (allowed(client), denied(client)) == (inside, not inside)


@pytest.mark.parametrize("client", [None, "", "unix:/run/x"])
def test_a_client_without_an_address_is_in_no_network(client: str | None) -> None:
    assert not addresses("0.0.0.0/0", allow=True)(client)
    assert addresses("0.0.0.0/0", allow=False)(client)


def test_an_address_is_refused_with_403_before_other_checks() -> None:
    policy = RequestPolicy(address_filter=addresses("127.0.0.0/8", allow=False), max_request_headers_kb=1)
    with pytest.raises(Forbidden) as caught:
        policy.admit(get("/" + "a" * 2000))
    assert caught.value.status_hint == 403


def test_the_cache_of_addresses_is_bounded() -> None:
    allowed = addresses("10.0.0.0/8", allow=True)
    for number in range(5000):
        assert allowed(f"10.0.{number >> 8}.{number & 255}")
    assert len(allowed._cache) <= 4096


def test_policies_of_equal_settings_are_equal_whatever_they_have_cached() -> None:
    one, other = (RequestPolicy(address_filter=addresses("10.0.0.0/8", allow=True)) for _ in range(2))
    one.admit(get(client="10.0.0.1"))
    assert one == other
    assert one != RequestPolicy(address_filter=addresses("10.0.0.0/8", allow=False))


def test_a_table_uses_the_policy_of_its_module() -> None:
    rules = read_rules(
        """\
        apiVersion: getambassador.io/v2
        kind: Module
        name: ambassador
        config: {merge_slashes: true, ip_deny: [{peer: 10.0.0.0/8}]}
        """
    )
    table = RouteTable.build((), settings=rules.shared.settings)
    assert table.admit(get("/a//b")).path == b"/a/b"
    with pytest.raises(ClientError):
        table.admit(get(client="10.0.0.1"))
    head = RequestHead("GET", "/a//b")
    assert RouteTable.build((), settings=ModuleSettings()).admit(head) is head


@pytest.mark.parametrize(
    ("host", "port", "seen"),
    [
        ("a.example:8080", 8080, b"a.example"),
        ("a.example:8080", 80, b"a.example:8080"),
        ("a.example:8080", 0, b"a.example:8080"),
        ("a.example", 8080, b"a.example"),
        ("[::1]:8080", 8080, b"[::1]"),
    ],
)
def test_the_port_of_the_host_is_removed_if_it_is_the_server_port(host: str, port: int, seen: bytes) -> None:
    head = RequestHead("GET", "/", [("x-a", "1"), ("host", host)], server_port=port)
    assert RequestPolicy(strip_matching_host_port=True).admit(head).headers == [(b"x-a", b"1"), (b"host", seen)]
    assert RequestPolicy(merge_slashes=True).admit(head) is head
