"""Encoded response heads: exactly one framing, and nothing ambiguous."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary_mw.http.messages import RawHeaders
from canary_mw.http.response_writer import STATUS_LINES, RenderedHead, encode_chunk, render_head

LENGTH = (b"content-length", b"5")


def head(
    status: int = 200, headers: RawHeaders = (), method: str = "GET", version: str = "1.1", *, closes: bool = False
) -> RenderedHead:
    return render_head(status, headers, method, version, closes=closes)


def lines(found: RenderedHead) -> list[bytes]:
    """The lines of a head; the first is the status line."""
    assert found.data.endswith(b"\r\n\r\n")
    return found.data[:-4].split(b"\r\n")


def test_a_length_is_kept_and_no_header_is_added() -> None:
    found = head(200, [(b"x-a", b"1"), LENGTH])
    assert lines(found) == [b"HTTP/1.1 200 OK", b"x-a: 1", b"content-length: 5"]
    assert found[1:] == (False, False, 5, False)


def test_without_a_length_the_body_is_chunked() -> None:
    found = head(404)
    assert lines(found) == [b"HTTP/1.1 404 Not Found", b"transfer-encoding: chunked"]
    assert found[1:] == (False, True, None, False)


def test_to_http_1_0_a_body_without_a_length_ends_with_the_connection() -> None:
    found = head(version="1.0")
    assert lines(found) == [b"HTTP/1.1 200 OK", b"connection: close"]
    assert found[1:] == (False, False, None, True)
    assert head(headers=[LENGTH], version="1.0")[1:] == (False, False, 5, False)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204), ("HEAD", 204)])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_response_without_a_body_has_no_framing(method: str, status: int, version: str) -> None:
    assert head(status, (), method, version)[1:] == (True, False, None, False)
    assert lines(head(status, (), method, version))[1:] == []
    kept = [] if status == 204 else [b"content-length: 5"]
    # A length does not announce a body here.
    assert head(status, [LENGTH], method, version)[1:] == (True, False, None, False)
    assert lines(head(status, [LENGTH], method, version))[1:] == kept


def test_the_last_response_of_a_connection_has_connection_close() -> None:
    found = head(headers=[LENGTH], closes=True)
    assert (lines(found)[1:], found.closes) == ([b"content-length: 5", b"connection: close"], True)


@pytest.mark.parametrize(
    ("value", "closes"), [(b"close", True), (b"Close, x-a", True), (b"keep-alive", False), (b"x-a", False)]
)
def test_the_connection_header_is_replaced_but_its_close_counts(value: bytes, closes: bool) -> None:
    found = head(headers=[(b"connection", value), LENGTH])
    assert lines(found)[1:] == [b"content-length: 5", *[b"connection: close"] * closes]
    assert found.closes is closes


def test_the_transfer_encoding_of_an_app_is_ignored() -> None:
    coding = (b"Transfer-Encoding", b"gzip, chunked")
    assert lines(head(headers=[coding, LENGTH]))[1:] == [b"content-length: 5"]
    assert lines(head(headers=[coding]))[1:] == [b"transfer-encoding: chunked"]


def test_names_become_lower_case_and_repeated_ones_stay_in_order() -> None:
    cookies = [(b"Set-Cookie", b"a=b"), (b"X-A", b"B"), (b"set-cookie", b"c=d"), (b"Content-Length", b"0")]
    assert lines(head(headers=cookies))[1:] == [b"set-cookie: a=b", b"x-a: B", b"set-cookie: c=d", b"content-length: 0"]


@pytest.mark.parametrize(
    "value", [b"", b"+5", b"-5", b"5 ", b" 5", b"5, 5", b"0x5", b"1_0", b"\xb2", b"five"], ids=bytes.hex
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_length_that_is_not_a_number_is_not_written(value: bytes, method: str) -> None:
    with pytest.raises(RuntimeError, match="Content-Length is not one number"):
        head(headers=[(b"content-length", value)], method=method)


@pytest.mark.parametrize("others", [[LENGTH], [(b"Content-Length", b"5")], [(b"content-length", b"6")]])
def test_two_lengths_are_not_written(others: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(RuntimeError, match="Content-Length is not one number"):
        head(headers=[LENGTH, *others])


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0", b"\x01", b"\x1f", b"\x7f"])
@pytest.mark.parametrize("before", [[], [(b"x-a", b"fine")]], ids=["once", "repeated"])
def test_control_bytes_are_not_written(byte: bytes, before: list[tuple[bytes, bytes]]) -> None:
    """Neither in the only header of a name, nor in a repeated one."""
    for bad in ((b"x-a", b"1" + byte + b"2"), (b"x-a" + byte, b"1")):
        with pytest.raises(RuntimeError, match="bytes that it must not"):
            head(headers=[*before, bad, *before])


@pytest.mark.parametrize("name", [b"x a", b"x:a", b"x(a", b"\xe4", b'x"a'])
def test_a_name_is_a_token(name: bytes) -> None:
    with pytest.raises(RuntimeError, match="bytes that it must not"):
        head(headers=[(name, b"1")])


@pytest.mark.parametrize("status", [0, 99, 100, 101, 103, 199])
def test_an_informational_or_invalid_status_is_not_written(status: int) -> None:
    with pytest.raises(RuntimeError, match="not that of a final response"):
        head(status)


def test_every_status_has_a_status_line() -> None:
    assert head(599, [LENGTH]).data == b"HTTP/1.1 599 \r\ncontent-length: 5\r\n\r\n"
    assert STATUS_LINES[418].startswith(b"HTTP/1.1 418 ")
    assert min(STATUS_LINES) == 100
    assert max(STATUS_LINES) == 599


def test_a_chunk_has_its_size_and_the_last_one_ends_the_body() -> None:
    assert encode_chunk(b"x" * 26, last=False) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert encode_chunk(b"hi", last=True) == b"2\r\nhi\r\n0\r\n\r\n"
    assert encode_chunk(b"", last=True) == b"0\r\n\r\n"
    # An empty chunk would end the body.
    assert encode_chunk(b"", last=False) == b""


names = st.sampled_from(
    [b"x-a", b"X-A", b"set-cookie", b"connection", b"Transfer-Encoding", b"content-length", b"date"]
)
values = st.sampled_from([b"", b"5", b"close", b"chunked", b"a\tb", b"\xe4", b"0", b"keep-alive"])


@given(
    st.integers(200, 599),
    st.lists(st.tuples(names, values), max_size=5),
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.sampled_from(["1.0", "1.1"]),
    st.booleans(),
)
def test_a_client_parses_the_response_that_was_written(
    status: int, headers: list[tuple[bytes, bytes]], method: str, version: str, closes: bool
) -> None:
    try:
        found = render_head(status, headers, method, version, closes=closes)
    except RuntimeError:
        return
    body = b"" if found.empty else b"x" * (5 if found.length is None else found.length)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")], http_version="1.1"))
    client.send(h11.EndOfMessage())
    client.receive_data(found.data + (encode_chunk(body, last=True) if found.chunked else body))
    if found.closes:
        client.receive_data(b"")
    assert isinstance(client.next_event(), h11.Response)
    got = b""
    while isinstance(event := client.next_event(), h11.Data):
        got += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert got == body
    assert (client.their_state is h11.DONE) is not found.closes
