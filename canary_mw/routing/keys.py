"""Key expressions: the bytes of a request by which a user is known.

The bytes are hashed as they are: no case folding, no Unicode normalisation, no mark of where they come from.
"""

from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import unquote_to_bytes

from canary_mw.http.messages import RequestHead
from canary_mw.routing.person import UNASKED, Person, Question
from canary_mw.rules.release import KeyExpression

ReadKey = Callable[[RequestHead, Person], bytes | None]


def key_reader(expression: KeyExpression) -> ReadKey:
    """The function that reads a key expression; None, or nothing, where the key is missing."""
    name = expression.name.encode()
    if expression.kind == "header":
        return lambda head, person: first_header(head, name)
    if expression.kind == "cookie":
        return lambda head, person: first_cookie(head, name)
    if expression.kind == "query":
        return lambda head, person: first_parameter(head, name)
    if expression.kind == "client_ip":
        return lambda head, person: client_key(person.client or head.client)
    path = tuple(expression.name.split("."))
    if expression.kind == "user":
        return lambda head, person: _text_of_user(person, path)
    return lambda head, person: text_at(person.session, path)


def first_header(head: RequestHead, name: bytes) -> bytes | None:
    """The first line of a name that is not empty."""
    first = head.headers_by_name.get(name)
    if first is None:
        return None
    if first := first.strip(b" \t"):
        return first
    for key, value in head.headers:
        if key == name and value and (value := value.strip(b" \t")):
            return value
    return None


def first_cookie(head: RequestHead, name: bytes) -> bytes | None:
    """The first pair of a name with a value, over all Cookie lines; one pair of quotes is taken off."""
    return next((value for value in _cookies(head, name) if value), None)


def _cookies(head: RequestHead, name: bytes) -> Iterator[bytes]:
    for header, line in head.headers:
        if header == b"cookie" and name in line:
            for pair in line.split(b";"):
                key, _, value = pair.partition(b"=")
                if key.strip(b" \t") == name:
                    value = value.strip(b" \t")
                    quoted = len(value) > 1 and value[:1] == value[-1:] == b'"'
                    yield value[1:-1] if quoted else value


def first_parameter(head: RequestHead, name: bytes) -> bytes | None:
    """The first query parameter of a name with a value, decoded; the name is compared undecoded."""
    for item in head.query[1:].split(b"&"):
        key, _, value = item.partition(b"=")
        if key == name and value:
            return unquote_to_bytes(value.replace(b"+", b" "))
    return None


def client_key(client: str | None) -> bytes | None:
    """An IPv4 address, also a mapped one, in dotted form; of IPv6 the /64, because privacy addresses change."""
    try:
        address = ip_address((client or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return str(ip_network((address, 64), strict=False)).encode()
        address = address.ipv4_mapped
    return str(address).encode()


def _text_of_user(person: Person, path: tuple[str, ...]) -> bytes | None:
    if person.user is UNASKED and person.questions is not None:
        person.questions.append(Question())
    return text_at(person.user, path)


def text_at(value: Any, path: tuple[str, ...]) -> bytes | None:
    """The text or whole number at a path through items, else attributes; anything else is missing.

    The value belongs to the app. Nothing of it is called, and whatever it raises means that the text is missing.
    """
    try:
        for part in path:
            value = _part_of(value, part)
        if isinstance(value, bool) or not isinstance(value, str | int):
            return None
        return str(value).encode()
    except Exception:  # noqa: BLE001 - it is the code of the app
        return None


def _part_of(value: Any, part: str) -> Any:
    try:
        return value[part]
    except Exception:  # noqa: BLE001 - it is the code of the app
        return getattr(value, part)
