"""Values of added headers with Envoy's `%...%` operators, compiled once per reload.

A text without operators is compiled to bytes. `%%` is a percent sign. An operator without a value gives the empty text,
and a header whose whole value is then empty is not added.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from canary_mw.exceptions import MappingError
from canary_mw.http.headers import has_control
from canary_mw.http.messages import RequestHead, ResponseHead

_PART = re.compile(r"%%|%([A-Z_]+)(?:\(([^()%]*(?:%[^()]*)?)\))?(?::([0-9]{1,9}))?%|(%)")
DEFAULT_TIME = "%Y-%m-%dT%H:%M:%S.%3fZ"
_FRACTION = re.compile(r"%([1-9])f")


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """The request and response that operators are evaluated for.

    Attributes:
        response: None for the headers of a request.
        now: when the request was received, in seconds since the epoch.
    """

    head: RequestHead
    response: ResponseHead | None
    now: float


Operator = Callable[[TemplateContext], bytes]


@dataclass(frozen=True, slots=True)
class HeaderTemplate:
    """A header value that depends on the request or response; templates of the same text are equal."""

    text: str
    parts: tuple[bytes | Operator, ...] = field(compare=False, repr=False)

    def render(self, context: TemplateContext) -> bytes:
        """The value, without the CR, LF and NUL of the request or response, so that it cannot add a header line."""
        value = b"".join(part if isinstance(part, bytes) else part(context) for part in self.parts)
        return value.translate(None, b"\r\n\0")

    def __reduce__(self) -> tuple[Any, ...]:
        # Operators are closures, which pickle does not take.
        return compile_template, (self.text,)


def compile_template(text: str) -> bytes | HeaderTemplate:
    """Compile the value of an added header.

    Raises:
        MappingError: a control character, a bare `%`, or an operator that is not known.
    """
    if has_control(text):
        raise MappingError("the value holds a control character")
    parts: list[bytes | Operator] = []
    position = 0
    for match in _PART.finditer(text):
        parts.append(text[position : match.start()].encode())
        position = match.end()
        parts.append(b"%" if match[0] == "%%" else _operator(match))
    parts.append(text[position:].encode())
    if all(isinstance(part, bytes) for part in parts):
        return b"".join(part for part in parts if isinstance(part, bytes))
    return HeaderTemplate(text, tuple(part for part in parts if part))


def _operator(match: re.Match[str]) -> Operator:
    name, argument, length = match[1], match[2], match[3]
    if match[4]:
        raise MappingError("the value holds a bare %", hint="write %% for a percent sign")
    if name in _WITH_ARGUMENT:
        if not argument and name != "START_TIME":
            raise MappingError(f"%{name}% needs the name of a header", hint=f"write %{name}(x-name)%")
        operator = _WITH_ARGUMENT[name](argument or "")
    elif name in _PLAIN and argument is None:
        operator = _PLAIN[name]
    else:
        known = ", ".join(sorted((*_PLAIN, *_WITH_ARGUMENT)))
        raise MappingError(f"{match[0]} is not an operator that is known here", hint=f"known are {known}")
    return operator if length is None else _cut(operator, int(length))


def _cut(operator: Operator, length: int) -> Operator:
    return lambda context: operator(context)[:length]


def _request_header(argument: str) -> Operator:
    names = [name.strip().lower().encode() for name in argument.split("?")][:2]
    return lambda context: next((value for name in names if (value := _of_request(name, context.head))), b"")


def _of_request(name: bytes, head: RequestHead) -> bytes | None:
    if name == b":path":
        return head.path + head.query
    if name == b":method":
        return head.method.encode("latin-1")
    if name == b":scheme":
        return head.scheme.encode()
    return head.host if name in (b":authority", b"host") else head.header(name)


def _response_header(argument: str) -> Operator:
    names = [name.strip().lower().encode() for name in argument.split("?")][:2]

    def operator(context: TemplateContext) -> bytes:
        given = dict(reversed(context.response.headers)) if context.response else {}
        return next((given[name] for name in names if given.get(name)), b"")

    return operator


def _start_time(argument: str) -> Operator:
    form = argument or DEFAULT_TIME

    def operator(context: TemplateContext) -> bytes:
        moment = datetime.fromtimestamp(context.now, UTC)
        if form == "%s":
            return b"%d" % int(context.now)
        fraction = f"{moment.microsecond:06d}000"
        text = _FRACTION.sub(lambda found: fraction[: int(found[1])], form).replace("%s", str(int(context.now)))
        return moment.strftime(text).encode()

    return operator


def _address(context: TemplateContext) -> bytes:
    return (context.head.client or "").encode("latin-1")


def _address_with_port(context: TemplateContext) -> bytes:
    address = context.head.client or ""
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{context.head.client_port}".encode("latin-1")


_WITH_ARGUMENT: dict[str, Callable[[str], Operator]] = {
    "REQ": _request_header,
    "RESP": _response_header,
    "START_TIME": _start_time,
}
_PLAIN: dict[str, Operator] = {
    "PROTOCOL": lambda context: f"HTTP/{context.head.http_version}".encode(),
    "RESPONSE_CODE": lambda context: b"%d" % (context.response.status if context.response else 0),
    "DOWNSTREAM_REMOTE_ADDRESS": _address_with_port,
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _address,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": _address_with_port,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": _address,
    "DOWNSTREAM_REMOTE_PORT": lambda context: b"%d" % context.head.client_port,
}
