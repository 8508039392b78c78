"""The server name in the first bytes of a connection."""

import ssl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from canary_mw.server.tcp.client_hello import Start, server_name


def hello(name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    """The ClientHello of OpenSSL."""
    context = ssl.create_default_context()
    context.check_hostname, context.maximum_version = False, version
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


def in_records(data: bytes, size: int) -> bytes:
    """A handshake message in records of so many bytes."""
    message = data[5:]
    parts = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2) + part for part in parts)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["one.example", "a" * 63 + ".example"])
def test_the_name_is_found_once_the_message_is_complete(name: str, version: ssl.TLSVersion) -> None:
    whole = hello(name, version)
    assert server_name(whole) == name
    assert server_name(whole + b"more") == name
    assert {server_name(whole[:length]) for length in range(len(whole))} == {Start.INCOMPLETE}


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_message_may_be_in_several_records(size: int) -> None:
    whole = in_records(hello("one.example"), size)
    assert server_name(whole) == "one.example"
    assert server_name(whole[:-1]) is Start.INCOMPLETE


def test_a_connection_may_have_no_name_or_no_tls() -> None:
    assert server_name(hello(None)) == ""
    for data in (b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x00", b"\x16\x02", b"\x16\x03\x01\x00\x00"):
        assert server_name(data) is Start.OTHER
    # A handshake that begins with another message.
    assert server_name(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00") is Start.OTHER


def test_names_are_compared_in_lower_case_without_their_last_dot() -> None:
    data = hello("one.example")
    assert server_name(data.replace(b"one.example", b"ONE.exampl.")) == "one.exampl"


def test_a_message_without_end_is_given_up() -> None:
    records = b"\x16\x03\x01\x00\x01\x01" + b"\x16\x03\x01\x00\x01\xff" * 5000
    assert server_name(records) is Start.OTHER


@given(st.binary(max_size=300), st.integers(0, 600), st.binary(max_size=4))
@example(b"", 0, b"")
def test_no_bytes_are_an_error(data: bytes, position: int, other: bytes) -> None:
    assert isinstance(server_name(data), str | Start)
    whole = HELLO
    assert isinstance(server_name(whole[:position] + other + whole[position + len(other) :]), str | Start)


HELLO = hello("one.example")
