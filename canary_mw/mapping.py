"""One rule as a value: what a Mapping matches, where it sends, and what it changes on the way.

A `Mapping` is made once per reload. Everything that a request would have to work out (compiled patterns, byte forms,
the sort key, the parsed service) is worked out here.
"""

import re
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import re2

from .exceptions import MappingError
from .messages import Origin, RequestHead

PrefixKind = Literal["exact", "plain", "regex"]
Variant = Literal["stable", "gray"]
REGEX_MAX_SIZE = 200
_PORT = re.compile(rb":\d+$")
_LOOSE_PORT = re.compile(rb":\d*$")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Regex(Protocol):
    """The part of a compiled RE2 pattern that is used here; texts are bytes."""

    programsize: int
    groups: int

    def fullmatch(self, text: bytes) -> Any: ...
    def finditer(self, text: bytes) -> Iterator[Any]: ...
    def possiblematchrange(self, maxlen: int) -> tuple[bytes, bytes]: ...


def compile_regex(pattern: str, *, ignore_case: bool = False, max_size: int = REGEX_MAX_SIZE) -> Regex:
    """Compile a rule's regex with RE2, the engine and the size limit of Envoy.

    Raises:
        MappingError: not RE2 syntax, or a program of more than `max_size` instructions.
    """
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        compiled: Regex = re2.compile(pattern.encode(), options)
    except re2.error as exc:
        reason = exc.args[0].decode() if isinstance(exc.args[0], bytes) else str(exc.args[0])
        raise MappingError(
            f"regex {pattern!r} is not RE2 syntax: {reason}", hint="RE2 has no lookaround and no backreferences"
        ) from None
    if compiled.programsize > max_size:
        raise MappingError(
            f"regex {pattern!r} compiles to {compiled.programsize} instructions, the limit is {max_size}",
            hint="shorten it, or raise regex_max_size in the Module",
        )
    return compiled


@dataclass(frozen=True, slots=True)
class Condition:
    """A header or query parameter that must have a value.

    Args:
        name: header name (any case), query parameter name, or one of `:method`, `:path`.
        value: the exact value, or the source of a regex that must match all of it.
    """

    name: str
    value: str
    regex: bool = False
    key: bytes = field(init=False, repr=False, compare=False)
    want: bytes = field(init=False, repr=False, compare=False)
    accepts: Callable[[bytes], Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        want = self.value.encode()
        accepts: Callable[[bytes], Any] = want.__eq__
        if self.regex:
            accepts = _anything if self.value == ".*" else compile_regex(self.value).fullmatch
        object.__setattr__(self, "key", self.name.lower().encode())
        object.__setattr__(self, "want", want)
        object.__setattr__(self, "accepts", accepts)

    @property
    def length(self) -> int:
        """What it adds to the specificity of its Mapping (Emissary `_route_weight`)."""
        return len(self.name) + len(self.value) + self.regex

    def __str__(self) -> str:
        if self.regex and self.value == ".*":
            return f"{self.name} present"
        return f"{self.name} {'~' if self.regex else '='} {self.value}"


def _anything(_text: bytes) -> bool:
    return True


class HostPattern:
    """A host of a rule: "*", exact, "*suffix", "prefix*" or a regex.

    Hosts compare without case; the request's port counts only where the pattern names one.
    """

    __slots__ = ("accepts", "kind", "names_port", "regex", "text", "value")

    def __init__(self, text: str, regex: bool = False) -> None:
        self.text = text
        self.regex = regex
        folded = text.lower().encode()
        self.names_port = bool(_PORT.search(folded))
        self.kind: Literal["any", "exact", "suffix", "prefix", "regex"]
        self.accepts: Callable[[bytes], Any]
        if regex:
            self.kind, self.value, self.accepts = "regex", folded, compile_regex(text, ignore_case=True).fullmatch
        elif text == "*":
            self.kind, self.value, self.accepts = "any", b"", _anything
        elif text.startswith("*"):
            self.kind, self.value = "suffix", folded[1:]
            self.accepts = lambda host: host.endswith(self.value)
        elif text.endswith("*"):
            self.kind, self.value = "prefix", folded[:-1]
            self.accepts = lambda host: host.startswith(self.value)
        else:
            self.kind, self.value, self.accepts = "exact", folded, folded.__eq__


ANY_HOST = HostPattern("*")


def without_port(host: bytes) -> bytes:
    """A Host value in lower case -> the same without its port."""
    return _LOOSE_PORT.sub(b"", host)


class Service(NamedTuple):
    """A service string, normalised as Emissary does: lower-case host, namespace added, scheme and port as written."""

    text: str
    origin: Origin

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called in `local`, `--upstream NAME=URL` and `transports`, most specific first."""
        host = self.origin.host
        return (self.text, f"{host}:{self.origin.port}", host)


class HeaderChange(NamedTuple):
    """One entry of add_request_headers or add_response_headers."""

    name: bytes
    value: bytes
    append: bool = True


_REFERENCE = re.compile(rb"\\([0-9\\])")


class RegexRewrite(NamedTuple):
    """RE2 pattern, and a substitution with `\\1` references (`\\0` is the whole match, `\\\\` a backslash)."""

    pattern: Regex
    substitution: bytes

    @property
    def usable(self) -> bool:
        """False when it names a group that the pattern does not have: then, as in Envoy, it changes nothing."""
        return self.highest_reference <= self.pattern.groups

    @property
    def highest_reference(self) -> int:
        """The highest group that the substitution names, 0 for none."""
        return max((int(name) for name in _REFERENCE.findall(self.substitution) if name != b"\\"), default=0)

    def apply(self, text: bytes) -> bytes:
        """Replace every match, as RE2's GlobalReplace: no empty match right behind another match.

        A text without match, or that would become empty, stays as it is.
        """
        if not self.usable:
            return text
        out, position, last = [], 0, -1
        for match in self.pattern.finditer(text):
            start, end = match.span()
            if start == end == last:
                continue
            out += [text[position:start], self._expanded(match)]
            position = last = end
        return b"".join((*out, text[position:])) or text

    def _expanded(self, match: Any) -> bytes:
        return _REFERENCE.sub(lambda found: _referenced(match, found[1]), self.substitution)


def _referenced(match: Any, name: bytes) -> bytes:
    return name if name == b"\\" else match.group(int(name)) or b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """`host_redirect: true` and what goes with it; `path` wins over `prefix`, `prefix` over `regex`."""

    host: str
    path: str | None = None
    prefix: str | None = None
    regex: RegexRewrite | None = None
    status: int = 301


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A Mapping, validated: v3alpha1 attribute names, Emissary's defaults.

    Attributes:
        method: exact, or a regex that matches all of it; None for any.
        conditions: headers first, then regex_headers, each sorted by name, as Emissary lists them.
        weight: percent of its group, None when it takes its part of the rest.
        rewrite: replaces the matched prefix; None leaves the path alone.
        timeout_ms: for the whole exchange, 0 for none.
        extras: attributes that are kept and shown but have no effect yet.
        file, line: where it was written.
    """

    name: str
    prefix: str
    service: Service
    namespace: str = "default"
    kind: PrefixKind = "plain"
    case_sensitive: bool = True
    host: HostPattern = ANY_HOST
    method: Condition | None = None
    conditions: tuple[Condition, ...] = ()
    query: tuple[Condition, ...] = ()
    precedence: int = 0
    weight: int | None = None
    rewrite: str | None = "/"
    regex_rewrite: RegexRewrite | None = None
    host_rewrite: str | None = None
    auto_host_rewrite: bool = False
    timeout_ms: int = 3000
    connect_timeout_ms: int = 3000
    add_request_headers: tuple[HeaderChange, ...] = ()
    remove_request_headers: tuple[bytes, ...] = ()
    add_response_headers: tuple[HeaderChange, ...] = ()
    remove_response_headers: tuple[bytes, ...] = ()
    redirect: Redirect | None = None
    shadow: bool = False
    upgrades: tuple[str, ...] = ()
    variant: Variant | None = None
    extras: Dict[str, Any] = field(default_factory=dict)
    file: str = ""
    line: int = 0

    def __post_init__(self) -> None:
        if self.kind == "regex":
            _ = self.pattern

    @cached_property
    def prefix_bytes(self) -> bytes:
        """The prefix as it stands in a request."""
        return self.prefix.encode()

    @cached_property
    def pattern(self) -> Regex:
        """The prefix of a `prefix_regex` Mapping, compiled."""
        return compile_regex(self.prefix)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Identity of its group (Emissary `_group_id`, as a tuple of values and with the kind of prefix)."""
        return (
            self.prefix,
            self.kind,
            self.precedence,
            self.host.text,
            self.method and self.method.value,
            tuple((c.name, c.value) for c in self.conditions),
            tuple((c.name, c.value) for c in self.query),
        )

    @cached_property
    def rank(self) -> list[int | str]:
        """Sort key of its group, larger first (Emissary `_route_weight`): lengths of texts, then the texts."""
        listed = [*self.conditions, Condition(":authority", self.host.text)]
        host_extra = int(self.host.regex)
        if self.method:
            listed.append(self.method)
        return [
            self.precedence,
            len(self.prefix),
            sum(c.length for c in listed) + host_extra,
            sum(c.length for c in self.query),
            self.prefix,
            self.method.value if self.method else "GET",
            *(f"{c.name}-{c.value}" for c in (*listed, *self.query)),
        ]

    def accepts_path(self, path: bytes) -> bool:
        """Whether its prefix matches a normalised path (RE2 full match for a regex)."""
        if self.kind == "regex":
            return self.pattern.fullmatch(path) is not None
        prefix = self.prefix_bytes
        if not self.case_sensitive:
            path, prefix = path.lower(), prefix.lower()
        return path == prefix if self.kind == "exact" else path.startswith(prefix)

    def __str__(self) -> str:
        return self.name


def is_header_name(text: str) -> bool:
    """Whether a text is a token of RFC 9110, section 5.6.2."""
    return _TOKEN.fullmatch(text) is not None


def header_holds(condition: Condition, head: RequestHead) -> bool:
    """Whether any single value of the header matches; `:method`, `:path`, `:authority` and `host` are the request's."""
    key, accepts = condition.key, condition.accepts
    if key[:1] == b":":
        return bool(accepts(_pseudo(key, head)))
    for name, value in head.headers:  # noqa: SIM110 - hot path, a generator costs twice as much
        if name == key and accepts(value.strip(b" \t")):
            return True
    return False


def _pseudo(key: bytes, head: RequestHead) -> bytes:
    if key == b":method":
        return head.method.encode("latin-1")
    if key == b":path":
        return head.path + head.query
    return without_port((head.host or b"").lower()) if key == b":authority" else head.scheme.encode()


def query_holds(condition: Condition, head: RequestHead) -> bool:
    """Whether the first parameter of that name matches, compared undecoded."""
    key = condition.name.encode()
    for item in head.query[1:].split(b"&"):
        name, _, value = item.partition(b"=")
        if name == key and item:
            return bool(condition.accepts(value))
    return False


def parse_service(
    text: str, namespace: str = "default", *, own_namespace: str = "default"
) -> tuple[Service, str | None]:
    """Read a service string as Emissary's `normalize_service_name` does.

    Args:
        namespace: of the Mapping; a bare name from another namespace than `own_namespace` gets it appended.

    Returns:
        The service, and what is wrong with the text (it still works in part), or None.

    Raises:
        MappingError: no host can be read from it.
    """
    problem = None
    scheme, sep, rest = text.strip().partition("://")
    if not sep:
        scheme, rest = "http", text.strip()
    elif scheme.lower() not in ("http", "https"):
        problem, scheme = f"scheme {scheme!r} of the service is not http or https: taken as http", "http"
    scheme = scheme.lower()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if authority != rest:
        problem = f"service {text!r} holds more than scheme, name and port: the rest is ignored"
    host, port = _split_port(authority)
    if not host or "@" in authority or re.search(r"[\s\x00-\x20]", host):
        raise MappingError(f"service {text!r} names no host", hint="write name[.namespace][:port]")
    host = host.lower()
    if "." not in host and ":" not in host and host != "localhost" and namespace != own_namespace:
        host = f"{host}.{namespace}"
    default = 443 if scheme == "https" else 80
    number = default if port is None else _port_number(port)
    if number is None:
        problem, number = f"port {port!r} of service {text!r} is not in 1..65535", default
    shown = f"[{host}]" if ":" in host else host
    label = (f"{scheme}://" if sep else "") + shown + ("" if port is None else f":{port}")
    return Service(label, Origin(scheme, host, number)), problem


def _split_port(authority: str) -> tuple[str, str | None]:
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") else None
    host, sep, port = authority.partition(":")
    return host, port if sep else None


def _port_number(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdigit() else 0
    return number if 0 < number < 65536 else None
