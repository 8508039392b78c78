"""Encoding of request bodies."""

from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from canary_mw.exceptions import ClientError
from canary_mw.http.request_writer import BodyEncoder, iter_encoded

CHUNKS = st.lists(st.binary(max_size=5), max_size=6)


def written(chunks: list[bytes], length: int | None) -> tuple[list[bytes], bytes]:
    """The bytes sent for the chunks, and at the end."""
    encoder = BodyEncoder(length)
    return [data for chunk in chunks if (data := encoder.encode(chunk))], encoder.finish()


@given(CHUNKS)
def test_a_body_with_a_length_is_sent_unchanged(chunks: list[bytes]) -> None:
    data, last = written(chunks, sum(map(len, chunks)))
    assert [*data, last] == [chunk for chunk in chunks if chunk] or (data, last) == ([], b"")


@given(CHUNKS)
def test_a_body_without_a_length_is_sent_chunked(chunks: list[bytes]) -> None:
    coded = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk]
    assert written(chunks, None) == (coded, b"0\r\n\r\n")


@given(CHUNKS, st.integers(0, 30))
def test_a_body_of_another_length_does_not_look_complete(chunks: list[bytes], length: int) -> None:
    assume(length != sum(map(len, chunks)))
    out: list[bytes] = []
    with pytest.raises(ClientError, match=f"not {length} bytes long"):
        out.extend(iter_encoded(iter(chunks), length))
    assert len(b"".join(out)) < max(length, 1)


@given(CHUNKS, st.booleans())
def test_an_iterator_of_chunks_is_encoded_alike(chunks: list[bytes], counted: bool) -> None:
    length = sum(map(len, chunks)) if counted else None
    last: list[bytes] = []

    def drained() -> Iterator[bytes]:
        last.append((yield from iter_encoded(iter(chunks), length)))

    assert (list(drained()), *last) == written(chunks, length)
