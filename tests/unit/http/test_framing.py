"""Which request heads are refused before any of them is used."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_mw.exceptions import BadTarget, ClientError, HeadTooLarge
from canary_mw.http.authority import check_host
from canary_mw.http.framing import MAX_FIELDS, MAX_HEAD, MAX_LENGTH, body_framing, check_head, well_formed
from canary_mw.http.messages import BodyFraming

HOST = (b"host", b"shop.example")
Pair = tuple[bytes, bytes]


def check(*headers: Pair, method: str = "GET", target: bytes = b"/", version: str = "1.1") -> None:
    check_head(method, target, headers, version)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ((b"content-length", b"0"),),
        ((b"content-length", b"5 "),),
        ((b"content-length", b"%d" % MAX_LENGTH),),
        ((b"transfer-encoding", b"Chunked"),),
        ((b"x-empty", b""), (b"x-tab", b"a\tb"), (b"x-latin", b"\xe4\xff"), (b"x_under|~!", b"1")),
        ((b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"accept", b"x"), (b"accept", b"x")),
        tuple((b"x-%d" % n, b"v") for n in range(MAX_FIELDS - 1)),
    ],
)
def test_unambiguous_heads_are_accepted(headers: tuple[Pair, ...]) -> None:
    check(HOST, *headers)


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (((b"content-length", b"5"), (b"transfer-encoding", b"chunked")), "at once"),
        (((b"content-length", b"5"), (b"content-length", b"5")), "several Content-Length"),
        (((b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")), "several Transfer-Encoding"),
        *(
            (((b"content-length", value),), "not a number")
            for value in (b"", b"+5", b"-5", b"5, 5", b"5 5", b"0x5", b"1_0", b"5.0", b"\xb2", b"%d" % (MAX_LENGTH + 1))
        ),
        (((b"content-length", b"0" * 20),), "not a number"),
        *(
            (((b"transfer-encoding", value),), "not chunked alone")
            for value in (
                b"",
                b",chunked",
                b"gzip, chunked",
                b"chunked, identity",
                b"identity",
                b'"chunked"',
                b"xchunked",
            )
        ),
        *((((name, b"v"),), "not a token") for name in (b"", b"x y", b"x:", b"x\t", b"\xe4", b"x\0")),
        *((((b"x-a", b"1%b2" % bytes([c])),), "control byte") for c in (*range(9), *range(10, 32), 127)),
        (((b"x-fold", b"one\r\n two"),), "control byte"),
        (((b"host", b"shop.example"),), "several Host"),
    ],
)
def test_ambiguous_heads_are_refused(headers: tuple[Pair, ...], text: str) -> None:
    with pytest.raises(ClientError, match=text) as caught:
        check(HOST, *headers)
    assert caught.value.status_hint == 400


@pytest.mark.parametrize(
    "value",
    [
        b"shop",
        b"shop.example.",
        b"a_b-c~d",
        b"SHOP.example:8443",
        b"shop:",
        b"127.0.0.1:65535",
        b"[::1]",
        b"[2001:db8::1]:80",
        b"%41",
        b" shop ",
    ],
)
def test_names_and_addresses_are_hosts(value: bytes) -> None:
    check_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b":80",
        b"a b",
        b"a b<",
        b"a,b",
        b"user@shop",
        b"a/b",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"shop:80:80",
        b"shop:port",
        b"shop:65536",
        b"shop:123456",
        b"::1",
        b"[::1",
        b"[::1]x",
        b"[1::2::3]",
        b"[shop]",
        b"%zz",
        b"sh\xc3\xb6p",
        b"a" * 400,
    ],
)
def test_other_values_are_not_hosts(value: bytes) -> None:
    with pytest.raises(ClientError, match="Host"):
        check((b"host", value))


def test_a_host_is_required_of_http_1_1_alone() -> None:
    with pytest.raises(ClientError, match="no Host"):
        check()
    check(version="1.0")
    check(version="2")
    with pytest.raises(ClientError, match="Host"):
        check((b"host", b"a b"), version="1.0")


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "3.0", ""])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(ClientError, match="version"):
        check(HOST, version=version)


def test_http_1_0_has_no_transfer_encoding() -> None:
    with pytest.raises(ClientError, match=r"HTTP/1\.0"):
        check(HOST, (b"transfer-encoding", b"chunked"), version="1.0")
    check(HOST, (b"content-length", b"5"), version="1.0")


@pytest.mark.parametrize("method", ["CONNECT", "get", "FOO", "GE T", "G\r\n", ""])
def test_unknown_methods_and_connect_are_refused(method: str) -> None:
    with pytest.raises(ClientError, match="method"):
        check(HOST, method=method)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", b"/a?b=c%20d"),
        ("GET", b"//shop/"),
        ("GET", b"http://shop/a"),
        ("GET", b"HTTPS://shop"),
        ("OPTIONS", b"*"),
    ],
)
def test_paths_and_absolute_urls_are_targets(method: str, target: bytes) -> None:
    check(HOST, method=method, target=target)


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"x",
        b"*",
        b"shop:80",
        b"@shop/",
        b"ftp://shop/",
        b"http:///a",
        b"http://",
        b"http://?a",
        b"http:/a",
        b"://a",
    ]
    + [b"/%b" % bytes([c]) for c in (0, 9, 10, 13, 32, 35, 127, 128, 255)],
)
def test_other_targets_are_refused(target: bytes) -> None:
    with pytest.raises(BadTarget):
        check(HOST, target=target)


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ([(b"x-%d" % n, b"v") for n in range(MAX_FIELDS)], b"/"),
        ([(b"x", b"v")] * MAX_FIELDS, b"/"),
        ([(b"x-big", b"a" * MAX_HEAD)], b"/"),
        ([(b"a" * MAX_HEAD, b"")], b"/"),
        ([], b"/" + b"a" * MAX_HEAD),
    ],
)
def test_a_head_that_is_too_large_is_refused_with_431(headers: list[Pair], target: bytes) -> None:
    with pytest.raises(HeadTooLarge) as caught:
        check(HOST, *headers, target=target)
    assert caught.value.status_hint == 431


def test_the_framing_of_a_body_follows_from_its_headers() -> None:
    assert body_framing({}) is None
    assert body_framing({b"content-length": b"007"}) == BodyFraming(7)
    assert body_framing({b"transfer-encoding": b"CHUNKED"}) == BodyFraming(None)


def test_well_formed_looks_at_names_and_values() -> None:
    assert well_formed([b"a", b"B"], [b"x y\t", b""])
    assert not well_formed([b"a "], [b"x"])
    assert not well_formed([b"a"], [b"x\r\ny: z"])


FRAMING = st.sampled_from([b"content-length", b"transfer-encoding", b"host", b"x"])
VALUES = st.one_of(st.binary(max_size=12), st.sampled_from([b"5", b"chunked", b"shop", b"5,5"]))


@given(st.lists(st.tuples(FRAMING, VALUES), max_size=6), st.binary(max_size=8), st.sampled_from(["1.0", "1.1"]))
def test_an_accepted_head_has_one_host_and_at_most_one_framing(
    headers: list[Pair], target: bytes, version: str
) -> None:
    try:
        check_head("POST", target, headers, version)
    except ClientError:
        return
    names = [name for name, _ in headers]
    assert names.count(b"host") == 1 or (version == "1.0" and b"host" not in names)
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert not any(set(b"\r\n\0") & set(value) for _, value in headers)
