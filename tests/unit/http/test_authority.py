import pytest

from canary_mw.exceptions import BadTarget
from canary_mw.http.authority import AbsoluteTarget, check_authority, split_absolute, with_host
from canary_mw.http.messages import RequestHead


@pytest.mark.parametrize(
    ("target", "scheme", "authority", "origin_form"),
    [
        (b"http://a.example/h/x?y", b"http", b"a.example", b"/h/x?y"),
        (b"HTTPS://A.Example:8443/", b"https", b"A.Example:8443", b"/"),
        (b"http://a.example", b"http", b"a.example", b"/"),
        (b"http://a.example?q=/", b"http", b"a.example", b"/?q=/"),
        (b"http://[::1]:80//b", b"http", b"[::1]:80", b"//b"),
        (b"http://a.example:/b", b"http", b"a.example:", b"/b"),
    ],
)
def test_an_absolute_target_has_scheme_authority_and_path(
    target: bytes, scheme: bytes, authority: bytes, origin_form: bytes
) -> None:
    assert split_absolute(target) == AbsoluteTarget(scheme, authority, origin_form)


@pytest.mark.parametrize("target", [b"/", b"//a.example/", b"*", b"", b"a.example:80", b"/http://a/", b"ftp://a/"])
def test_no_other_target_is_absolute(target: bytes) -> None:
    assert split_absolute(target) is None


@pytest.mark.parametrize(
    "authority",
    [
        *(b"", b":80", b"user@a.example", b"u:p@a.example", b"@a.example", b"a.example:99999", b"a.example:x", b"a,b"),
        *(b"[::g]", b"::1", b"a.example\\@b", b"a b", b"a%zz", b"a.example:80:80"),
    ],
)
def test_an_authority_that_is_no_host_is_refused(authority: bytes) -> None:
    for target in (b"http://" + authority + b"/a", b"https://" + authority):
        with pytest.raises(BadTarget) as caught:
            split_absolute(target)
        assert caught.value.status_hint == 400


@pytest.mark.parametrize(
    ("target", "host", "same"),
    [
        (b"http://a.example/", b"A.Example", True),
        (b"http://a.example:80/", b"a.example", True),
        (b"http://a.example/", b" a.example:80 ", True),
        (b"https://a.example/", b"a.example:443", True),
        (b"http://a.example:/", b"a.example", True),
        (b"http://[::1]/", b"[::1]:80", True),
        (b"http://a.example/", b"a.example:443", False),
        (b"https://a.example/", b"a.example:80", False),
        (b"http://a.example:8080/", b"a.example", False),
        (b"http://a.example/", b"b.example", False),
        (b"http://a.example/", b"a.example.", False),
        (b"http://a.example/", b"", False),
    ],
)
def test_hosts_compare_without_case_and_default_port(target: bytes, host: bytes, same: bool) -> None:
    absolute = split_absolute(target)
    assert absolute is not None
    check_authority(absolute, [])
    if same:
        check_authority(absolute, [host])
    else:
        with pytest.raises(BadTarget):
            check_authority(absolute, [host])


def test_a_host_is_replaced_in_its_place_and_stays_repeated() -> None:
    assert with_host([(b"x", b"1"), (b"host", b"b")], b"a") == [(b"x", b"1"), (b"host", b"a")]
    assert with_host([(b"host", b"b"), (b"host", b"c")], b"a") == [(b"host", b"a")] * 2
    assert with_host([(b"x", b"1")], b"a") == [(b"host", b"a"), (b"x", b"1")]


def test_a_head_of_an_absolute_target_has_its_host() -> None:
    head = RequestHead("GET", "http://a.example/h?q", {"host": "b.example", "x": "1"})
    assert (head.host, head.path, head.query) == (b"a.example", b"/h", b"?q")
    assert RequestHead("GET", "/h", {"host": "b.example"}).host == b"b.example"
