"""Contexts of traces in headers: what is read, what is passed over, and what is written."""

import pytest
from collector import PARENT, TRACE

from canary_mw.forwarding.tracing.context import TraceContext, received, with_context
from canary_mw.forwarding.tracing.sampling import is_sampled
from canary_mw.rules.filters.traces import Mode, Sampling

B3: tuple[Mode, ...] = ("B3",)
W3C: tuple[Mode, ...] = ("TRACE_CONTEXT",)
KNOWN = TraceContext(TRACE, PARENT, None, sampled=True)


def read(modes: tuple[Mode, ...], **headers: str) -> TraceContext | None:
    return received(modes, {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})


@pytest.mark.parametrize(("word", "sampled"), [("1", True), ("0", False), ("true", True), ("false", False), ("", None)])
def test_headers_of_b3(word: str, sampled: bool | None) -> None:
    found = read(B3, x_b3_traceid=TRACE, x_b3_spanid=PARENT, x_b3_sampled=word)
    assert found == KNOWN._replace(sampled=sampled)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{TRACE}-{PARENT}-1", KNOWN),
        (f"{TRACE}-{PARENT}-0-{PARENT}", KNOWN._replace(sampled=False)),
        (f"{TRACE}-{PARENT}", KNOWN._replace(sampled=None)),
        (f"{TRACE}-{PARENT}-d", KNOWN._replace(debug=True)),
        (f"{TRACE[16:].upper()}-{PARENT}-1", KNOWN._replace(trace_id=TRACE[16:])),
        ("0", TraceContext(sampled=False)),
        ("d", TraceContext(sampled=True, debug=True)),
    ],
)
def test_one_header_b3(value: str, expected: TraceContext) -> None:
    assert read(B3, b3=value) == expected._replace(single=True)


@pytest.mark.parametrize(
    "value", ["", "x", "-", f"{TRACE}", f"{'0' * 32}-{PARENT}-1", f"{TRACE}-{'0' * 16}-1", f"{TRACE[1:]}-{PARENT}-1"]
)
def test_what_is_no_b3_begins_a_new_trace(value: str) -> None:
    assert read(B3, b3=value) is None


def test_b3_may_bring_a_decision_alone_or_ask_for_it_by_hand() -> None:
    assert read(B3, x_b3_sampled="0") == TraceContext(sampled=False)
    found = read(B3, x_b3_traceid=TRACE, x_b3_spanid=PARENT, x_b3_flags="1", x_b3_sampled="0")
    assert found == KNOWN._replace(debug=True)


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-03", True),
        (f"cc-{TRACE}-{PARENT}-01-more", True),
    ],
)
def test_a_traceparent(value: str, sampled: bool) -> None:
    found = read(W3C, traceparent=value, tracestate="v=1")
    assert found == KNOWN._replace(sampled=sampled, state=b"v=1")


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(value: str) -> None:
    assert read(W3C, traceparent=value) is None


def test_each_mode_reads_its_own_headers_and_the_first_that_is_there_counts() -> None:
    brought = {"traceparent": f"00-{TRACE}-{PARENT}-00", "b3": f"{TRACE}-{PARENT}-1"}
    assert read(B3, traceparent=brought["traceparent"]) is None
    assert read(W3C, b3=brought["b3"]) is None
    both: tuple[Mode, ...] = ("TRACE_CONTEXT", "B3")
    assert read(both, **brought) == KNOWN._replace(sampled=False)
    assert read(both, b3=brought["b3"]) == KNOWN._replace(single=True)


def test_a_context_takes_the_place_of_what_was_there_and_no_other() -> None:
    headers = [(b"host", b"a"), (b"x-b3-spanid", b"old"), (b"b3", b"old"), (b"traceparent", b"kept")]
    child = KNOWN.child("00f067aa0ba902b7")
    assert with_context(B3, headers, child) == [
        (b"host", b"a"),
        (b"traceparent", b"kept"),
        (b"x-b3-traceid", TRACE.encode()),
        (b"x-b3-spanid", b"00f067aa0ba902b7"),
        (b"x-b3-parentspanid", PARENT.encode()),
        (b"x-b3-sampled", b"1"),
    ]


@pytest.mark.parametrize(
    ("context", "value"),
    [
        (KNOWN._replace(single=True, sampled=False), f"{TRACE}-{PARENT}-0"),
        (KNOWN._replace(single=True, parent_id="00f067aa0ba902b7"), f"{TRACE}-{PARENT}-1-00f067aa0ba902b7"),
        (KNOWN._replace(single=True, debug=True), f"{TRACE}-{PARENT}-d"),
    ],
)
def test_one_header_in_is_one_header_out(context: TraceContext, value: str) -> None:
    assert with_context(B3, [], context) == [(b"b3", value.encode())]


def test_both_modes_are_written_and_short_ids_fill_a_traceparent() -> None:
    context = TraceContext(TRACE[16:], PARENT, None, sampled=False, state=b"v=1")
    assert with_context(("B3", "TRACE_CONTEXT"), [], context) == [
        (b"x-b3-traceid", TRACE[16:].encode()),
        (b"x-b3-spanid", PARENT.encode()),
        (b"x-b3-sampled", b"0"),
        (b"traceparent", f"00-{'0' * 16}{TRACE[16:]}-{PARENT}-00".encode()),
        (b"tracestate", b"v=1"),
    ]


@pytest.mark.parametrize(
    ("sampling", "decided", "asked", "rolls", "expected"),
    [
        (Sampling(0, 0, 0), True, False, [], True),
        (Sampling(), False, True, [], False),
        (Sampling(), None, False, [99.9, 99.9], True),
        (Sampling(random=0), None, False, [0.0], False),
        (Sampling(random=0), None, True, [0.0, 0.0], True),
        (Sampling(client=0, random=50), None, True, [0.0, 49.0, 0.0], True),
        (Sampling(client=0, random=50), None, True, [0.0, 50.0], False),
        (Sampling(overall=0), None, False, [0.0, 0.0], False),
    ],
)
def test_which_requests_are_traced(
    sampling: Sampling, decided: bool | None, asked: bool, rolls: list[float], expected: bool
) -> None:
    left = list(rolls)
    assert is_sampled(sampling, decided, lambda: left.pop(0), asked=asked) is expected
    assert left == []
