"""Dictionaries to messages of protocol buffers and back, by tables of fields (protobuf `encoding`, proto3).

The messages of Envoy's services are frozen: the number of a field never gets another meaning. So tables of the fields
that are used do, without a compiler and without a library at run time.
"""

from collections.abc import Iterator
from collections.abc import Mapping as Dict
from typing import Any, Literal, NamedTuple


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        kind: "int" is for all numbers that are varints, "fixed64" for those of 8 bytes, which are only written; "map"
            has texts on both sides; a table is that of a message.
    """

    number: int
    kind: "Literal['text', 'bytes', 'int', 'bool', 'fixed64', 'map'] | Dict[str, Field]" = "text"
    repeated: bool = False


Table = Dict[str, Field]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MASK = (1 << 64) - 1
# Bytes of the longest varint.
_MAX_VARINT = 10
_ENTRY: Table = {"key": Field(1), "value": Field(2)}


def encode(table: Table, values: Dict[str, Any]) -> bytes:
    """A message of the fields that are given; a field that is None, or has the default of its kind, is left out.

    A dictionary stands for a message, a list for a repeated field; a text may be given as its bytes in UTF-8.
    """
    out = bytearray()
    for name, value in values.items():
        field = table[name]
        if field.kind == "map":
            for entry in value.items():
                _add(out, field.number, encode(_ENTRY, dict(zip(_ENTRY, entry, strict=True))))
        elif field.repeated:
            for each in value:
                _encode_field(out, field, each, always=True)
        elif value is not None:
            _encode_field(out, field, value)
    return bytes(out)


def _encode_field(out: bytearray, field: Field, value: Any, *, always: bool = False) -> None:
    kind = field.kind
    if isinstance(kind, Dict):
        _add(out, field.number, encode(kind, value))
    elif not value and not always:
        return
    elif kind == "fixed64":
        out += _varint(field.number << 3 | _FIXED64) + value.to_bytes(8, "little")
    elif kind in ("text", "bytes"):
        _add(out, field.number, value.encode() if isinstance(value, str) else value)
    else:
        out += _varint(field.number << 3 | _VARINT) + _varint(int(value))


def _add(out: bytearray, number: int, data: bytes) -> None:
    out += _varint(number << 3 | _BYTES)
    out += _varint(len(data))
    out += data


def _varint(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes((value,))
    value &= _MASK
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(table: Table, data: bytes) -> dict[str, Any]:
    """The fields of a message that the table names; others are passed over, also those of another wire type.

    Raises:
        ValueError: it is no message, or a text is not UTF-8.
    """
    by_number = {field.number: (name, field) for name, field in table.items()}
    found: dict[str, Any] = {}
    parts: dict[str, bytes] = {}
    for number, value in _iter_fields(data):
        if number not in by_number:
            continue
        name, field = by_number[number]
        if isinstance(field.kind, Dict) and not field.repeated:
            # A message that comes several times is that of all its parts.
            if isinstance(value, bytes):
                parts[name] = parts.get(name, b"") + value
        elif (read := _value(field, value)) is None:
            continue
        elif field.repeated:
            found.setdefault(name, []).append(read)
        elif field.kind == "map":
            found.setdefault(name, {}).update(read)
        else:
            found[name] = read
    for name, part in parts.items():
        kind = table[name].kind
        assert isinstance(kind, Dict)
        found[name] = decode(kind, part)
    return found


def _value(field: Field, value: int | bytes) -> Any:
    """The value of a field as it is in dictionaries, None for another wire type."""
    kind = field.kind
    if kind in ("int", "bool"):
        return None if isinstance(value, bytes) else bool(value) if kind == "bool" else _signed(value)
    if not isinstance(value, bytes):
        return None
    if kind == "map":
        entry = decode(_ENTRY, value)
        return {entry.get("key", ""): entry.get("value", "")}
    if kind == "text":
        return value.decode()
    return decode(kind, value) if isinstance(kind, Dict) else value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _iter_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field: varints as numbers, texts and messages as bytes."""
    at, end = 0, len(data)
    while at < end:
        key, at = _read_varint(data, at)
        number, wire_type = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"there is no field {number}")
        if wire_type == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if wire_type == _BYTES:
            size, at = _read_varint(data, at)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise ValueError(f"field {number} has wire type {wire_type}")
        if size > end - at:
            raise ValueError(f"field {number} is cut off")
        if wire_type == _BYTES:
            yield number, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_MAX_VARINT):
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << (7 * shift)
        if byte < 128:
            return value & _MASK, at
    raise ValueError("a number is too long")
