"""What a request is matched against: regexes as in Envoy, header and query conditions, host patterns."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any, Literal, Protocol

import re2

from canary_mw.exceptions import MappingError
from canary_mw.http.messages import RequestHead
from canary_mw.rules.wording import quoted

# Envoy's default limit; the Module may raise it up to the cap.
REGEX_MAX_SIZE = 200
REGEX_SIZE_CAP = 10_000
_PORT = re.compile(rb":\d+$")
_LOOSE_PORT = re.compile(rb":\d*$")


class Regex(Protocol):
    """The used part of a compiled RE2 pattern; texts are bytes."""

    pattern: bytes
    programsize: int
    groups: int

    def fullmatch(self, text: bytes) -> Any: ...
    def finditer(self, text: bytes) -> Iterator[Any]: ...
    def possiblematchrange(self, maxlen: int) -> tuple[bytes, bytes]: ...


def compile_regex(pattern: str, *, ignore_case: bool = False, max_size: int = REGEX_SIZE_CAP) -> Regex:
    """Compile a rule's regex with RE2, the engine of Envoy.

    Args:
        max_size: limit of instructions of the compiled program; for regexes of rules the Module's `regex_max_size`.

    Raises:
        MappingError: not RE2 syntax, or more than `max_size` instructions.
    """
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        compiled: Regex = re2.compile(pattern.encode(), options)
    except re2.error as exc:
        reason = exc.args[0].decode() if isinstance(exc.args[0], bytes) else str(exc.args[0])
        raise MappingError(
            f"regex {quoted(pattern)} is not RE2 syntax: {reason}", hint="RE2 has no lookaround and no backreferences"
        ) from None
    if compiled.programsize > max_size:
        raise MappingError(
            f"regex {quoted(pattern)} compiles to {compiled.programsize} instructions, the limit is {max_size}",
            hint="shorten it, or raise regex_max_size in the Module",
        )
    return compiled


@dataclass(frozen=True, slots=True)
class Condition:
    """A header or query parameter that must have a value.

    Args:
        name: header name (any case), query parameter name, or one of `:method`, `:path`.
        value: the exact value, or a regex that must match the whole value.
    """

    name: str
    value: str
    regex: bool = False
    key: bytes = field(init=False, repr=False, compare=False)
    expected: bytes = field(init=False, repr=False, compare=False)
    accepts: Callable[[bytes], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        expected = self.value.encode()
        accepts: Callable[[bytes], Any] = expected.__eq__
        if self.regex:
            accepts = _anything if self.value == ".*" else compile_regex(self.value).fullmatch
        object.__setattr__(self, "key", self.name.lower().encode())
        object.__setattr__(self, "expected", expected)
        object.__setattr__(self, "accepts", accepts)

    @property
    def length(self) -> int:
        """Its part of the sort key of its Mapping (Emissary `_route_weight`)."""
        return len(self.name) + len(self.value) + self.regex

    def __str__(self) -> str:
        if self.regex and self.value == ".*":
            return f"{self.name} present"
        return f"{self.name} {'~' if self.regex else '='} {self.value}"


def _anything(_text: bytes) -> bool:
    return True


def header_matcher(condition: Condition) -> Callable[[RequestHead], object]:
    """A function that is true when any single value of the header matches.

    `:method`, `:path`, `:authority` and `:scheme` are those of the request.
    """
    key, accepts = condition.key, condition.accepts
    if key[:1] == b":":
        return lambda head: bool(accepts(_pseudo_header(key, head)))
    # A lambda around the call would cost one more frame per request.
    return methodcaller("any_value_matches", key, accepts)


def _pseudo_header(key: bytes, head: RequestHead) -> bytes:
    if key == b":method":
        return head.method.encode("latin-1")
    if key == b":path":
        return head.path + head.query
    return without_port((head.host or b"").lower()) if key == b":authority" else head.scheme.encode()


def query_matches(condition: Condition, head: RequestHead) -> bool:
    """Whether the first parameter of the name matches; names and values are not decoded."""
    key = condition.name.encode()
    for item in head.query[1:].split(b"&"):
        name, _, value = item.partition(b"=")
        if name == key and item:
            return bool(condition.accepts(value))
    return False


class HostPattern:
    """A host of a rule: "*", exact, "*suffix", "prefix*" or a regex.

    The case of a host is ignored; the port of a request is compared only if the pattern has one.
    """

    __slots__ = ("accepts", "has_port", "kind", "regex", "text", "value")

    def __init__(self, text: str, regex: bool = False) -> None:
        self.text = text
        self.regex = regex
        folded = text.lower().encode()
        self.has_port = bool(_PORT.search(folded))
        self.kind: Literal["any", "exact", "suffix", "prefix", "regex"]
        self.accepts: Callable[[bytes], Any]
        if regex:
            self.kind, self.accepts = "regex", compile_regex(text, ignore_case=True).fullmatch
            self.value = text.encode()  # not folded: \D is not \d
        elif text == "*":
            self.kind, self.value, self.accepts = "any", b"", _anything
        elif text.startswith("*"):
            self.kind, self.value = "suffix", folded[1:]
            # Not a bound method: the reference cycle would keep a replaced table until the next garbage collection.
            self.accepts = _ends_with(self.value)
        elif text.endswith("*"):
            self.kind, self.value = "prefix", folded[:-1]
            self.accepts = _starts_with(self.value)
        else:
            self.kind, self.value, self.accepts = "exact", folded, folded.__eq__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostPattern) and (self.text, self.regex) == (other.text, other.regex)

    def __hash__(self) -> int:
        return hash((self.text, self.regex))

    def __reduce__(self) -> tuple[Any, ...]:
        # `accepts` may be a closure, which pickle does not take.
        return HostPattern, (self.text, self.regex)


def _ends_with(text: bytes) -> Callable[[bytes], bool]:
    return lambda host: host.endswith(text)


def _starts_with(text: bytes) -> Callable[[bytes], bool]:
    return lambda host: host.startswith(text)


ANY_HOST = HostPattern("*")


def without_port(host: bytes) -> bytes:
    """A Host value in lower case, without its port."""
    return _LOOSE_PORT.sub(b"", host)


def literal_prefix(pattern: Regex) -> bytes:
    """The text that every match of a regex begins with, as far as known.

    RE2 gives the range of possible matches: all of them share the common prefix of its two ends.
    """
    try:
        low, high = pattern.possiblematchrange(64)
    except Exception:  # noqa: BLE001 - re2.error has no narrower base; without a range there is only no shortcut
        return b""
    length = 0
    while length < min(len(low), len(high)) and low[length] == high[length]:
        length += 1
    return low[:length]
