"""The session of an HTTP/2 connection, fed with any bytes: it never raises, and keeps nothing of calls that ended."""

from typing import Any

import pytest
from grpc_peer import HEADERS, OK, frame, go_away, prefixed
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from canary_mw.client.extra import importing_grpc
from canary_mw.client.grpc.call import Call
from canary_mw.client.grpc.frames import FrameSplitter, GoAway
from canary_mw.client.grpc.requests import call_headers, check_protocol, response_head
from canary_mw.client.grpc.session import MAX_CALLS, Session
from canary_mw.exceptions import UpstreamConnectError, UpstreamProtocolError
from canary_mw.forwarding.messages import UpstreamRequest
from canary_mw.rules.upstream import Origin

ORIGIN = Origin("http", "auth", 50051)
REQUEST = UpstreamRequest("auth", "POST", b"/a.B/C", [])


def new_call(message: bytes = b"ask") -> Call:
    return Call("auth:50051", call_headers(ORIGIN, REQUEST, 1.0), message)


def with_server() -> tuple[Session, H2Connection]:
    """A session whose server has got its preface."""
    session, server = Session("auth:50051"), H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(session.outgoing())
    session.receive(server.data_to_send())
    return session, server


def answered() -> bytes:
    """What a server sends for one call."""
    session, server = with_server()
    session.open(new_call())
    server.receive_data(session.outgoing())
    server.send_headers(1, HEADERS)
    server.send_data(1, prefixed(b"yes"))
    server.send_headers(1, OK, end_stream=True)
    return server.data_to_send()


ANSWER = answered()
# The headers of an answer, in the coding of HTTP/2.
BEGUN = b"\x88\x5f\x10application/grpc"


def run(data: bytes, pieces: int = 1) -> tuple[Session, Call]:
    session, _ = with_server()
    call = new_call()
    session.open(call)
    session.outgoing()
    size = max(len(data) // pieces, 1)
    for at in range(0, len(data), size):
        session.receive(data[at : at + size])
        session.outgoing()
    return session, call


@pytest.mark.parametrize("pieces", [1, 2, 7, len(ANSWER)])
def test_an_answer_may_come_in_any_pieces(pieces: int) -> None:
    session, call = run(ANSWER, pieces)
    assert call.answer == (0, "", b"yes")
    assert session.calls == {}
    assert session.room == MAX_CALLS


@given(st.binary(max_size=200))
def test_any_bytes_end_the_connection_or_are_waited_behind(data: bytes) -> None:
    session, call = run(data)
    assert call.answer is None
    assert session.error is not None or not call.ended or session.calls == {}


frames = st.builds(
    lambda kind, payload, flags, stream: frame(kind, payload, flags=flags, stream=stream),
    st.integers(0, 12),
    st.one_of(
        st.binary(max_size=40), st.sampled_from([b"\x88", prefixed(b"yes"), b"\0" * 8, b"\x88\x5f\x10application/grpc"])
    ),
    st.integers(0, 255),
    st.sampled_from([0, 1, 1, 1, 2, 3, 2**31]),
)


@given(st.lists(frames, max_size=12), st.integers(1, 9))
def test_any_frames_end_calls_and_raise_nothing(sent: list[bytes], pieces: int) -> None:
    session, call = run(b"".join(sent), pieces)
    if session.error is not None:
        assert call.ended
        assert session.room == 0
    session.lose(UpstreamConnectError("over", sent=True))
    assert call.ended
    assert session.calls == {}


@given(st.integers(0, len(ANSWER) - 1), st.integers(0, 255), st.booleans())
def test_an_answer_with_one_wrong_byte_ends_the_call_or_is_waited_for(at: int, byte: int, cut: bool) -> None:
    changed = ANSWER[:at] + bytes((byte,)) + (b"" if cut else ANSWER[at + 1 :])
    session, call = run(changed, 3)
    session.lose(UpstreamConnectError("over", sent=True))
    assert call.ended


def test_a_loss_is_told_to_each_call_by_an_error_of_its_own() -> None:
    session, server = with_server()
    calls = [new_call(), new_call()]
    for call in calls:
        session.open(call)
    server.receive_data(session.outgoing())
    server.send_headers(3, HEADERS)
    session.receive(server.data_to_send())
    session.lose(UpstreamConnectError("gone", sent=True))
    first, second = (call.error for call in calls)
    assert isinstance(first, UpstreamConnectError)
    # Its answer has begun: it is not asked again.
    assert isinstance(second, UpstreamProtocolError)


def test_goaway_spares_what_the_server_has_begun() -> None:
    session, server = with_server()
    calls = [new_call() for _ in range(3)]
    for call in calls:
        session.open(call)
    server.receive_data(session.outgoing())
    session.receive(go_away(3, text=b"bye"))
    assert [call.ended for call in calls] == [False, False, True]
    assert calls[2].error is not None
    assert not calls[2].error.sent
    assert "bye" in str(calls[2].error)
    late = new_call()
    session.open(late)
    assert isinstance(late.error, UpstreamConnectError)
    for stream in (1, 3):
        server.send_headers(stream, HEADERS)
        server.send_data(stream, prefixed(b""))
        server.send_headers(stream, OK, end_stream=True)
    session.receive(server.data_to_send())
    assert [call.answer for call in calls] == [(0, "", b""), (0, "", b""), None]


def test_a_connection_keeps_little_of_the_calls_that_have_ended() -> None:
    session, server = with_server()
    for stream in range(1, 2061, 2):
        session.open(new_call(b""))
        server.receive_data(session.outgoing())
        server.send_headers(stream, [*HEADERS, *OK], end_stream=True)
        session.receive(server.data_to_send())
    # What is late for the first call is no fault yet; it is as old as can be.
    session.receive(frame(8, b"\0\0\0\1", stream=1))
    assert session.error is None
    assert len(session._h2._closed_streams) == 1000


def test_a_server_that_takes_no_calls_gets_none() -> None:
    session, server = with_server()
    server.update_settings({3: 0})
    session.receive(server.data_to_send())
    assert session.retired
    assert session.room == 0


def test_frames_are_cut_wherever_they_are_split() -> None:
    data = frame(4) + frame(6, b"12345678") + go_away(5, 2, b"x\xff") + frame(8, b"\0\0\0\1")
    for size in range(1, len(data) + 1):
        splitter = FrameSplitter("a:1")
        found: list[Any] = []
        for at in range(0, len(data), size):
            found += splitter.feed(data[at : at + size])
        assert [each for each in found if isinstance(each, GoAway)] == [GoAway(5, 2, "x\\xff")]
        assert b"".join(each for each in found if isinstance(each, bytes)) == data.replace(go_away(5, 2, b"x\xff"), b"")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.0, b"1000m"),
        (0.0, b"0m"),
        (-3.0, b"0m"),
        (0.0001, b"1m"),
        (99_999.999, b"99999999m"),
        (100_000.0, b"100000S"),
        (1e12, b"99999999S"),
    ],
)
def test_a_timeout_fits_the_digits_of_the_protocol(seconds: float, text: bytes) -> None:
    assert dict(call_headers(ORIGIN, REQUEST, seconds))[b"grpc-timeout"] == text


def test_without_a_deadline_none_is_sent() -> None:
    assert b"grpc-timeout" not in dict(call_headers(ORIGIN, REQUEST, float("inf")))


def test_a_text_beside_a_status_is_a_header_that_can_be_sent() -> None:
    call = new_call()
    call.take_trailers([(b"grpc-status", b"3"), (b"grpc-message", b"a%0d%0aset-cookie: x %zz")])
    call.finish()
    assert call.answer is not None
    (_, status), (_, text) = response_head(call.answer).headers
    assert (status, text) == (b"3", b"a%0D%0Aset-cookie%3A x %25zz")


def test_a_server_that_chooses_http1_gets_no_call() -> None:
    check_protocol(ORIGIN, "h2")
    check_protocol(ORIGIN, None)
    with pytest.raises(UpstreamConnectError, match=r"speaks http/1\.1 over TLS, not HTTP/2"):
        check_protocol(ORIGIN, "http/1.1")


def test_without_the_extra_a_call_says_which_it_needs() -> None:
    with pytest.raises(UpstreamConnectError, match=r"pip install 'canary-mw\[grpc\]'"), importing_grpc():
        raise ImportError("No module named 'h2'")
