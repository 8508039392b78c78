"""The targets of our gRPC client: frames that a server sends, and messages in them."""

from canary_mw.client.grpc.call import Call
from canary_mw.client.grpc.session import Session
from canary_mw.exceptions import UpstreamConnectError
from canary_mw.forwarding.protobuf.auth import CHECK_REQUEST, CHECK_RESPONSE
from canary_mw.forwarding.protobuf.codec import decode, encode
from canary_mw.forwarding.protobuf.rate_limit import RATE_LIMIT_RESPONSE

_HEADERS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"a"),
    (b"te", b"trailers"),
]


def grpc_answers(data: bytes) -> None:
    """Two calls on a connection; the first byte says in how many pieces the rest comes."""
    session = Session("a:1")
    calls = [Call("a:1", _HEADERS, b"m" * size) for size in (3, 100_000)]
    ended: list[Call] = []
    for call in calls:
        call.on_end = lambda call=call: ended.append(call)
        session.open(call)
    size = data[0] + 1 if data else 1
    for at in range(1, len(data), size):
        session.receive(data[at : at + size])
        # Nothing makes us say more than we are asked for.
        assert len(session.outgoing()) <= 300_000
    assert ended == [call for call in ended if call.ended]
    if session.error is not None:
        assert all(call.ended for call in calls)
        assert session.room == 0
    assert {call.stream for call in calls if not call.ended} == session.calls.keys()
    session.lose(UpstreamConnectError("over", sent=True))
    assert sorted(map(id, ended)) == sorted(map(id, calls))
    for call in calls:
        assert (call.answer is None) != (call.error is None)


def grpc_messages(data: bytes) -> None:
    """A message is read, or is none; what was read is written and read again without a change."""
    for table in (CHECK_REQUEST, CHECK_RESPONSE, RATE_LIMIT_RESPONSE):
        try:
            found = decode(table, data)
        except ValueError:
            continue
        again = decode(table, encode(table, found))
        assert encode(table, again) == encode(table, found)
