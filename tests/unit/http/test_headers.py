import pytest

from canary_mw.http import headers
from canary_mw.http.headers import are_tokens


def test_names_that_nobody_sends_again_make_room_for_those_of_every_request() -> None:
    for number in range(3000):
        assert are_tokens([b"host", b"x-%d" % number])
    assert are_tokens([b"x-never-seen-before"])
    assert len(headers._known_tokens) <= 1024 + 2
    assert {b"host", b"x-never-seen-before"} <= headers._known_tokens


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"caf\xe9", b"a" * 41])
def test_what_is_no_token_or_long_is_not_remembered(name: bytes) -> None:
    assert are_tokens([b"host", name]) == (name == b"a" * 41)
    assert name not in headers._known_tokens
