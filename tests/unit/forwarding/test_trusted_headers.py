"""Which headers are trusted, by the peer's address or by a signature; and the command that signs."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from canary_mw.cli.main import main
from canary_mw.exceptions import ConfigError
from canary_mw.forwarding.trusted_headers import MAX_SIGNATURES, MIN_KEY_LENGTH, SIGNATURE, TrustedHeaders
from canary_mw.http.messages import RequestHead
from canary_mw.middleware.trust import read_keys, trusted_headers

OLD, NEW = b"0" * MIN_KEY_LENGTH, b"1" * MIN_KEY_LENGTH
NOW = 1_800_000_000
GRAY = (b"gray", b"true")
HOST = (b"host", b"shop")


def known(*names: str, keys: tuple[bytes, ...] = ()) -> TrustedHeaders:
    found = TrustedHeaders.from_settings(names, keys)
    assert found is not None
    return found


def signed(name: str, value: str, expires: int = NOW + 1, key: bytes = NEW) -> tuple[bytes, bytes]:
    """The header with the signature of one other."""
    return SIGNATURE, known(name, keys=(key,)).sign(name, value, expires)[1].encode()


SIGNED = known("gray", keys=(NEW, OLD))


def test_without_names_there_is_nothing_to_check() -> None:
    assert TrustedHeaders.from_settings(()) is None
    assert TrustedHeaders.from_settings(("", " , ")) is None
    assert trusted_headers((), None) is None


def test_a_trusted_header_counts_from_trusted_peers_only() -> None:
    headers = [HOST, GRAY, (b"x-user-group", b"staff"), (b"x-other", b"1"), GRAY]
    both = known("Gray", "X-User-Group")
    assert both.strip_untrusted(headers, True, NOW) == headers
    assert both.strip_untrusted(headers, False, NOW) == [HOST, (b"x-other", b"1")]
    assert known("gray, x-user-group") == both


def test_the_result_is_a_new_list_so_that_trailers_cannot_be_added_to_it() -> None:
    headers = [HOST]
    kept = known("gray").strip_untrusted(headers, False, NOW)
    headers.append(GRAY)
    assert kept == [HOST]


@pytest.mark.parametrize("alias", [b"x_user_group", b"x-user_group", b"x_user-group"])
@pytest.mark.parametrize("trusted", [True, False])
def test_an_alias_of_the_header_under_wsgi_is_removed_too(alias: bytes, trusted: bool) -> None:
    # A trusted peer may remove the name that it knows and forward this one.
    assert known("x-user-group").strip_untrusted([HOST, (alias, b"staff")], trusted, NOW) == [HOST]


def test_a_name_with_underscores_is_not_its_alias() -> None:
    mine, other = (b"x_group", b"a"), (b"x-group", b"b")
    assert known("x_group").strip_untrusted([mine, other], True, NOW) == [mine]
    assert known("x_group").strip_untrusted([mine, other], False, NOW) == []


@pytest.mark.parametrize("trusted", [True, False])
def test_with_keys_a_signature_counts_and_the_peer_does_not(trusted: bool) -> None:
    assert SIGNED.strip_untrusted([HOST, GRAY], trusted, NOW) == [HOST]
    headers = [HOST, GRAY, signed("gray", "true")]
    assert SIGNED.strip_untrusted(headers, trusted, NOW) == headers


def test_all_keys_verify_and_the_first_signs() -> None:
    for key in (OLD, NEW):
        assert GRAY in SIGNED.strip_untrusted([GRAY, signed("gray", "true", key=key)], False, NOW)
    assert GRAY not in SIGNED.strip_untrusted([GRAY, signed("gray", "true", key=b"2" * MIN_KEY_LENGTH)], False, NOW)
    assert SIGNED.sign("gray", "true", NOW) == known("gray", keys=(NEW,)).sign("gray", "true", NOW)


def test_a_signature_is_for_one_name_one_value_and_a_time() -> None:
    def is_valid(name: bytes, value: bytes, now: float = NOW, *, signature: tuple[bytes, bytes]) -> bool:
        kept = known("gray", "beta", keys=(NEW,)).strip_untrusted([(name, value), signature], False, now)
        return (name, value) in kept

    mine = signed("gray", "true", NOW + 10)
    assert is_valid(b"gray", b"true", signature=mine)
    assert is_valid(b"gray", b"true", NOW + 9.9, signature=mine)
    assert not is_valid(b"gray", b"true", NOW + 10, signature=mine)
    assert not is_valid(b"gray", b"True", signature=mine)
    assert not is_valid(b"beta", b"true", signature=mine)
    renamed = (SIGNATURE, mine[1].replace(b"gray", b"beta"))
    assert not is_valid(b"beta", b"true", signature=renamed)
    prolonged = (SIGNATURE, mine[1].replace(b"%d" % (NOW + 10), b"%d" % (NOW + 9999)))
    assert not is_valid(b"gray", b"true", signature=prolonged)


def test_a_signed_header_that_is_repeated_is_not_trusted() -> None:
    headers = [HOST, GRAY, (b"gray", b"false"), signed("gray", "true")]
    assert SIGNED.strip_untrusted(headers, False, NOW) == [HOST, headers[-1]]
    assert SIGNED.strip_untrusted([GRAY, GRAY, headers[-1]], False, NOW) == [headers[-1]]


def test_whitespace_around_a_value_and_within_a_signature_is_ignored() -> None:
    name, text = signed("gray", "true")
    padded = b" \t" + text.replace(b";", b" ; ") + b" "
    headers = [(b"gray", b"true \t"), (name, padded)]
    assert SIGNED.strip_untrusted(headers, False, NOW) == headers


def test_signatures_of_several_headers_come_in_one_line_or_in_many() -> None:
    both = known("gray", "x-user-group", keys=(NEW,))
    headers_to_sign = [GRAY, (b"x-user-group", b"a,b;c")]
    first, second = signed("gray", "true"), signed("X-User-Group", "a,b;c")
    for lines in ([first, second], [(SIGNATURE, first[1] + b", " + second[1])]):
        assert both.strip_untrusted([*headers_to_sign, *lines], False, NOW) == [*headers_to_sign, *lines]


def test_signatures_over_the_maximum_are_ignored() -> None:
    name, text = signed("gray", "true")
    noise = b"x;exp=1;sig=" + b"0" * 64
    last = b",".join([noise] * (MAX_SIGNATURES - 1) + [text])
    assert GRAY in SIGNED.strip_untrusted([GRAY, (name, last)], False, NOW)
    assert GRAY not in SIGNED.strip_untrusted([GRAY, (name, noise + b"," + last)], False, NOW)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b",,",
        b"gray",
        b"gray;exp=9999999999;sig=",
        b"gray;exp=-1;sig=" + b"0" * 64,
        b"gray;exp=" + b"9" * 5000 + b";sig=" + b"0" * 64,
        b"gray;exp=9999999999;sig=" + b"0" * 64,
        b"gray;exp=9999999999;sig=" + b"\xff" * 64,
        b"\x00;\xff=",
    ],
)
def test_an_invalid_signature_verifies_nothing(text: bytes) -> None:
    assert SIGNED.strip_untrusted([GRAY, (SIGNATURE, text)], False, NOW) == [(SIGNATURE, text)]


@given(st.lists(st.tuples(st.sampled_from([b"gray", SIGNATURE, b"x"]), st.binary(max_size=40))))
def test_random_signatures_are_invalid(headers: list[tuple[bytes, bytes]]) -> None:
    kept = SIGNED.strip_untrusted(headers, True, NOW)
    assert kept == [pair for pair in headers if pair[0] != b"gray"]


@given(st.text(st.characters(max_codepoint=255, min_codepoint=32, exclude_characters="\x7f"), max_size=20))
def test_a_signed_header_is_trusted(value: str) -> None:
    bare, text = SIGNED.sign("Gray", value, NOW + 1)
    head = RequestHead("GET", "/", [("gray", bare), (SIGNATURE, text)])
    assert list(head.headers) == SIGNED.strip_untrusted(head.headers, False, NOW)


@pytest.mark.parametrize(
    ("names", "keys", "message"),
    [
        (["a b"], (), "'a b' is not the name of a header"),
        (["gräy"], (), "not the name"),
        (["gray:"], (), "not the name"),
        (["Host"], (), "cannot be left to trusted peers"),
        (["transfer-encoding"], (), "cannot be left"),
        (["Via"], (), "cannot be left"),
        (["canary-mw-signature"], (), "cannot be left"),
        ([], (NEW,), "no header to verify"),
        (["gray"], (NEW, NEW[:-1]), "header key 2 has fewer than 32 characters"),
    ],
)
def test_names_and_keys_that_cannot_work_are_refused(names: list[str], keys: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrustedHeaders.from_settings(names, keys)


def test_keys_are_not_in_the_repr() -> None:
    assert NEW.decode() not in repr(SIGNED)


def test_keys_come_from_a_file_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"# since May\r\n" + NEW + b" \r\n\n" + OLD)
    assert read_keys(path) == (NEW, OLD)
    path.write_text("# none yet\n")
    with pytest.raises(ConfigError, match=f"{path}: there is no header key"):
        read_keys(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_keys(tmp_path)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_bytes(NEW + b"\n" + OLD)
    return path


def test_the_command_prints_headers_that_are_trusted(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canary_mw.cli.main.time", lambda: float(NOW))
    arguments = ["sign", "gray=true", "X-User-Group=a=b", "--key-file", str(key_file), "--valid", "1h30m"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[:2] == ["gray: true", "X-User-Group: a=b"]
    assert set(re.findall(r"exp=(\d+)", lines[2])) == {str(NOW + 5400)}
    headers = RequestHead("GET", "/", [line.split(": ", 1) for line in lines]).headers  # type: ignore[misc]
    both = known("gray", "x-user-group", keys=(OLD, NEW))
    assert both.strip_untrusted(headers, False, NOW + 5399) == list(headers)
    assert both.strip_untrusted(headers, False, NOW + 5400) == [headers[2]]


def test_the_command_finds_its_keys_by_the_variable_of_the_proxy(key_file: Path) -> None:
    result = CliRunner().invoke(main, ["sign", "gray=true"], env={"CANARY_MW_HEADER_KEY_FILE": str(key_file)})
    assert result.exit_code == 0, result.output
    assert result.output.startswith("gray: true\ncanary-mw-signature: gray;exp=")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gray"], "'gray' is not NAME=VALUE"),
        (["=true"], "is not NAME=VALUE"),
        (["host=a"], "cannot be left"),
        (["gray,beta=true"], "'gray,beta' is not the name"),
        (["gray=\u20ac"], "the value of gray cannot stand in a header"),
        (["gray=a\r\nb"], "the value of gray holds a control character"),
        (["gray=true", "--valid", "soon"], "'soon' is not a duration"),
        (["gray=true", "--key-file", "/nowhere"], "/nowhere: the header keys cannot be read"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_signed_is_an_error(arguments: list[str], message: str, key_file: Path) -> None:
    result = CliRunner().invoke(main, ["sign", "--key-file", str(key_file), *arguments])
    assert result.exit_code == 2
    assert message in result.output
