"""The server name in the first bytes of a connection (RFC 8446, section 4.1.2; RFC 6066, section 3)."""

from enum import Enum

# A ClientHello that is longer is refused.
MAX_HELLO = 16384
_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0


class Start(Enum):
    """What a connection begins with, where that is no ClientHello with a name."""

    INCOMPLETE = "too few bytes to tell"
    OTHER = "no TLS"


def server_name(data: bytes) -> str | Start:
    """The server name of a ClientHello, in lower case; empty where it has none.

    Args:
        data: the first bytes of a connection.
    """
    try:
        hello = _client_hello(data)
        return hello if isinstance(hello, Start) else _name_in(hello)
    except IndexError:
        # A length inside that leads beyond the message.
        return Start.OTHER


def _client_hello(data: bytes) -> bytes | Start:
    """The body of the ClientHello that the records of some bytes hold."""
    message, position = b"", 0
    while True:
        record = data[position : position + 5]
        # Type, version 3.x, length: what does not fit them already is no TLS.
        if record[:1] not in (b"", b"\x16") or record[1:2] not in (b"", b"\x03"):
            return Start.OTHER
        if len(record) < 5:
            return Start.INCOMPLETE if len(data) < MAX_HELLO else Start.OTHER
        length = int.from_bytes(record[3:5])
        if not 0 < length <= MAX_HELLO:
            return Start.OTHER
        message += data[position + 5 : position + 5 + length]
        if message[:1] not in (b"", b"\x01"):
            return Start.OTHER
        if len(message) >= 4 and len(message) >= (end := 4 + int.from_bytes(message[1:4])):
            return message[4:end]
        if position + 5 + length > len(data):
            return Start.INCOMPLETE if len(data) < MAX_HELLO else Start.OTHER
        position += 5 + length


def _name_in(hello: bytes) -> str:
    """The name among the extensions of a ClientHello."""
    # Version and random; then a session id, cipher suites and compression methods, each behind its length.
    position = 34
    position += 1 + hello[position]
    position += 2 + int.from_bytes(hello[position : position + 2])
    position += 1 + hello[position]
    end = min(len(hello), position + 2 + int.from_bytes(hello[position : position + 2]))
    position += 2
    while position + 4 <= end:
        kind, length = (
            int.from_bytes(hello[position : position + 2]),
            int.from_bytes(hello[position + 2 : position + 4]),
        )
        position += 4
        if kind == _SERVER_NAME:
            return _host_name(hello[position : min(position + length, end)])
        position += length
    return ""


def _host_name(extension: bytes) -> str:
    """The first host name of a list of server names."""
    position = 2
    while position + 3 <= len(extension):
        length = int.from_bytes(extension[position + 1 : position + 3])
        name = extension[position + 3 : position + 3 + length]
        if extension[position] == _HOST_NAME:
            return name.decode("ascii", "replace").lower().removesuffix(".") if len(name) == length else ""
        position += 3 + length
    return ""
