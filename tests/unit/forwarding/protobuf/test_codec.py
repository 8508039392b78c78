"""Messages by our tables beside Envoy's own definitions (`xds-protos`), in both directions."""

from collections.abc import Mapping as Dict
from typing import Any

import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from canary_mw.forwarding.protobuf.auth import CHECK_REQUEST, CHECK_RESPONSE
from canary_mw.forwarding.protobuf.codec import Field, Table, decode, encode
from canary_mw.forwarding.protobuf.rate_limit import RATE_LIMIT_REQUEST, RATE_LIMIT_RESPONSE
from canary_mw.forwarding.protobuf.traces import EXPORT_REQUEST

OTLP_NAMES = {
    "scope_spans": "instrumentation_library_spans",
    "scope": "instrumentation_library",
    "text": "string_value",
    "int": "int_value",
}
PAIRS: list[tuple[Table, type[Message]]] = [
    (CHECK_REQUEST, CheckRequest),
    (CHECK_RESPONSE, CheckResponse),
    (RATE_LIMIT_REQUEST, RateLimitRequest),
    (RATE_LIMIT_RESPONSE, RateLimitResponse),
]
# Only one of each may be set.
ONE_OF = [{"denied_response", "ok_response", "error_response"}]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def values(table: Table, descriptor: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Dictionaries of the fields of a table, as `decode` gives them."""
    fields = {name: value_of(field, descriptor.fields_by_name[name]) for name, field in table.items()}
    return st.fixed_dictionaries({}, optional=fields).map(_without_others)


def _without_others(found: dict[str, Any]) -> dict[str, Any]:
    for group in ONE_OF:
        for name in sorted(group & found.keys())[1:]:
            del found[name]
    return found


def value_of(field: Field, descriptor: Any) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if isinstance(field.kind, Dict):
        one = values(field.kind, descriptor.message_type)
    elif field.kind == "map":
        return st.dictionaries(TEXT, TEXT, min_size=1, max_size=3)
    elif field.kind == "bool":
        one = st.just(True)
    elif field.kind == "int":
        one = (
            st.integers(1, 2**31 - 1) if descriptor.type != descriptor.TYPE_INT64 else st.integers(-(2**63), 2**63 - 1)
        )
        one = one.filter(bool)
    elif field.kind == "bytes":
        one = st.binary(min_size=1, max_size=8)
    else:
        one = TEXT if field.repeated else TEXT.filter(bool)
    return st.lists(one, min_size=1, max_size=3) if field.repeated else one


def plain(message: Message) -> dict[str, Any]:
    """A message of the library as `decode` has it."""
    found: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            found[descriptor.name] = dict(value)
        elif descriptor.is_repeated:
            found[descriptor.name] = [_plain_value(each) for each in value]
        else:
            found[descriptor.name] = _plain_value(value)
    return found


def _plain_value(value: Any) -> Any:
    return plain(value) if isinstance(value, Message) else value


@pytest.mark.parametrize(("table", "kind"), PAIRS, ids=lambda each: getattr(each, "__name__", ""))
@settings(max_examples=25)
@given(data=st.data())
def test_a_message_is_the_same_to_the_library_in_both_directions(
    table: Table, kind: type[Message], data: st.DataObject
) -> None:
    wanted = data.draw(values(table, kind.DESCRIPTOR))
    message = kind()
    message.ParseFromString(encode(table, wanted))
    assert plain(message) == wanted
    assert decode(table, message.SerializeToString()) == wanted


@pytest.mark.parametrize(("table", "kind"), PAIRS, ids=lambda each: getattr(each, "__name__", ""))
def test_every_field_of_a_table_has_the_number_and_the_kind_of_the_library(table: Table, kind: type[Message]) -> None:
    def check(table: Table, descriptor: Any) -> None:
        for name, field in table.items():
            known = descriptor.fields_by_name[name]
            assert known.number == field.number
            assert known.is_repeated == (field.repeated or field.kind == "map")
            if isinstance(field.kind, Dict):
                check(field.kind, known.message_type)

    check(table, kind.DESCRIPTOR)


def test_spans_have_the_numbers_and_kinds_of_the_library() -> None:
    def check(table: Table, descriptor: Any) -> None:
        for name, field in table.items():
            # Of a value one is given; packages of Envoy bring an older protocol, in which scopes have another name.
            if name in OTLP_NAMES:
                known = descriptor.fields_by_name.get(name) or descriptor.fields_by_name[OTLP_NAMES[name]]
            elif name not in descriptor.fields_by_name:
                continue
            else:
                known = descriptor.fields_by_name[name]
            assert (known.number, known.is_repeated) == (field.number, field.repeated)
            assert (field.kind == "fixed64") == (known.type == known.TYPE_FIXED64)
            if isinstance(field.kind, Dict):
                check(field.kind, known.message_type)

    protocol: Any = trace_service_pb2
    check(EXPORT_REQUEST, protocol.ExportTraceServiceRequest.DESCRIPTOR)


@given(st.binary(max_size=60))
def test_what_the_library_takes_is_taken_and_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        found = decode(CHECK_RESPONSE, data)
    except ValueError:
        return
    message = CheckResponse()
    try:
        message.ParseFromString(data)
    except DecodeError:
        # The library checks what lies in fields that we pass over, and UTF-8.
        return
    assert found.get("status", {}).get("code", 0) in (message.status.code, message.status.code - 2**32) or (
        abs(found["status"]["code"]) >= 2**31
    )


def test_fields_of_other_versions_are_passed_over() -> None:
    response = CheckResponse()
    response.status.code = 7
    response.status.message = "not in the table"
    response.dynamic_metadata["a"] = {"b": [1.5, None]}
    response.denied_response.headers.add().keep_empty_value = True
    assert decode(CHECK_RESPONSE, response.SerializeToString()) == {
        "status": {"code": 7},
        "denied_response": {"headers": [{}]},
    }


def test_a_message_in_parts_is_put_together() -> None:
    parts = encode(CHECK_RESPONSE, {"ok_response": {"headers_to_remove": ["a"]}, "status": {"code": 1}})
    other = {"headers_to_remove": ["c"], "query_parameters_to_remove": ["b"]}
    parts += encode(CHECK_RESPONSE, {"ok_response": other, "status": {}})
    merged = plain(CheckResponse.FromString(parts))
    assert merged["ok_response"] == {"headers_to_remove": ["a", "c"], "query_parameters_to_remove": ["b"]}
    assert decode(CHECK_RESPONSE, parts) == merged


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05ab",
        b"\x08",
        b"\x08" + b"\xff" * 10,
        b"\x00\x00",
        b"\x0b",
        b"\x0c",
        b"\x0f",
        b"\x09\0\0",
        b"\x0d\0",
    ],
)
def test_what_is_cut_or_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|number"):
        decode(CHECK_RESPONSE, data)


def test_a_text_that_is_not_utf8_is_refused_as_by_the_library() -> None:
    data = encode(CHECK_RESPONSE, {"denied_response": {"body": b"caf\xe9"}})
    with pytest.raises(DecodeError):
        CheckResponse.FromString(data)
    with pytest.raises(ValueError, match="utf-8"):
        decode(CHECK_RESPONSE, data)


def test_defaults_are_left_out_and_empty_messages_are_not() -> None:
    assert encode(CHECK_RESPONSE, {"status": None}) == b""
    assert encode(CHECK_RESPONSE, {"status": {"code": 0}}) == b"\x0a\x00"
    assert encode(RATE_LIMIT_REQUEST, {"domain": ""}) == b""
    assert encode(RATE_LIMIT_REQUEST, {"domain": "ä"}) == b"\x0a\x02\xc3\xa4"
    # In a list, a default counts.
    assert decode(CHECK_RESPONSE, encode(CHECK_RESPONSE, {"ok_response": {"headers_to_remove": [""]}})) == {
        "ok_response": {"headers_to_remove": [""]}
    }
