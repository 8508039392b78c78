"""A request body as it goes out."""

from collections.abc import Iterator

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from canary_mw.exceptions import ClientError
from canary_mw.http.request_writer import BodyEncoder, iter_encoded

PIECES = st.lists(st.binary(max_size=5), max_size=6)


def written(pieces: list[bytes], length: int | None) -> tuple[list[bytes], bytes]:
    """What goes out while pieces come, and at the end."""
    framing = BodyEncoder(length)
    return [data for piece in pieces if (data := framing.add(piece))], framing.end()


@given(PIECES)
def test_a_body_of_a_length_goes_out_as_it_is(pieces: list[bytes]) -> None:
    data, last = written(pieces, sum(map(len, pieces)))
    assert [*data, last] == [piece for piece in pieces if piece] or (data, last) == ([], b"")


@given(PIECES)
def test_a_body_without_a_length_goes_out_in_chunks(pieces: list[bytes]) -> None:
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
    assert written(pieces, None) == (chunks, b"0\r\n\r\n")


@given(PIECES, st.integers(0, 30))
def test_a_body_of_another_length_does_not_look_complete(pieces: list[bytes], length: int) -> None:
    assume(length != sum(map(len, pieces)))
    out: list[bytes] = []
    with pytest.raises(ClientError, match=f"not {length} bytes long"):
        out.extend(iter_encoded(iter(pieces), length))
    assert len(b"".join(out)) < max(length, 1)


@given(PIECES, st.booleans())
def test_an_iterator_of_pieces_is_framed_alike(pieces: list[bytes], counted: bool) -> None:
    length = sum(map(len, pieces)) if counted else None
    last: list[bytes] = []

    def drained() -> Iterator[bytes]:
        last.append((yield from iter_encoded(iter(pieces), length)))

    assert (list(drained()), *last) == written(pieces, length)
