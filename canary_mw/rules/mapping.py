"""One rule as a value: what a Mapping matches, where it sends requests, and what it changes in them.

A `Mapping` is made once per reload. Whatever can be computed before a request arrives (compiled patterns, bytes, the
sort key) is computed here.
"""

import re
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, NamedTuple

from canary_mw.rules.cors import CorsPolicy
from canary_mw.rules.filters.limits import Descriptor
from canary_mw.rules.header_templates import HeaderTemplate
from canary_mw.rules.matchers import ANY_HOST, Condition, HostPattern, Regex, compile_regex
from canary_mw.rules.service import Service
from canary_mw.rules.upstream import DEFAULT_OPTIONS, UpstreamOptions

# Emissary's default for `timeout_ms` and `connect_timeout_ms`.
DEFAULT_TIMEOUT_MS = 3000

PrefixKind = Literal["exact", "plain", "regex"]
Variant = Literal["stable", "gray"]


class HeaderChange(NamedTuple):
    """One entry of add_request_headers or add_response_headers; a value with operators is a template."""

    name: bytes
    value: bytes | HeaderTemplate
    append: bool = True


class Retry(NamedTuple):
    """`retry_policy`: what is retried, and how often; see also `UpstreamOptions.per_try_timeout`."""

    retry_on: str
    num_retries: int = 1


def percent(weight: int | None) -> int | None:
    """A weight as it counts: one outside 0..100 counts as 0."""
    return weight if weight is None or 0 <= weight <= 100 else 0


_REFERENCE = re.compile(rb"\\([0-9\\])")


@dataclass(frozen=True, slots=True)
class RegexRewrite:
    """RE2 pattern, and a substitution with `\\1` references (`\\0` is the whole match, `\\\\` a backslash).

    Compiled patterns have no equality of their own, so two rewrites are compared by `source`, the text of the pattern.
    """

    pattern: Regex = field(compare=False)
    substitution: bytes
    source: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.pattern.pattern)

    @property
    def usable(self) -> bool:
        """False when the substitution names a group that the pattern lacks: it then changes nothing, as in Envoy."""
        return self.highest_reference <= self.pattern.groups

    @property
    def highest_reference(self) -> int:
        """The highest group in the substitution, 0 for none."""
        return max((int(name) for name in _REFERENCE.findall(self.substitution) if name != b"\\"), default=0)

    def apply(self, text: bytes) -> bytes:
        """Replace every match, as RE2's GlobalReplace: an empty match right after another match does not count.

        A text without a match, or that would become empty, is returned unchanged.
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
    """`host_redirect: true` and its attributes; `path` takes precedence over `prefix`, `prefix` over `regex`."""

    host: str
    path: str | None = None
    prefix: str | None = None
    regex: RegexRewrite | None = None
    status: int = 301


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A validated Mapping, with the attribute names of v3alpha1 and Emissary's defaults.

    Attributes:
        method: exact, or a regex that matches the whole method; None for any.
        conditions: headers, then regex_headers, each sorted by name as in Emissary.
        weight: percent of its group as written, None for an equal part of the rest; see also `percent`.
        rewrite: replaces the matched prefix; None leaves the path unchanged.
        timeout_ms: for the whole exchange, all attempts together, 0 for none; None where neither the Mapping nor the
            Module names it.
        upgrades: protocols that may be upgraded to; None where the Mapping names none and forbids none, so that the
            mode decides (see `Decision.allows_upgrade`).
        options: of the connections and attempts to the upstream.
        shadow_writes: a shadow also gets copies of writes (`metadata_labels: {shadow_writes: allow}`).
        keep_request_id: False replaces a client's `x-request-id`.
        bypass_auth: no AuthService is asked about its requests.
        context_extensions: told to an AuthService that is asked over gRPC.
        descriptors: what a RateLimitService counts about its requests, by domain.
        extras: further attributes as written, only for display; most have no effect yet.
        file, line: where it is written; not part of equality.
        timeout: seconds of `timeout_ms`, or of its default; None for no limit.
        connect_timeout: seconds for one attempt to connect, infinite for no limit.
        via_comment: see `Service.via_comment`.
        percent: `weight`, or 0 if it is outside 0..100.
        fast_path_ok: no redirect, retries, circuit breakers, endpoint options or per-try timeout are set.
        prefix_bytes: the prefix encoded, to compare with a path.
        pattern: the prefix of a `prefix_regex` Mapping, compiled.
    """

    name: str
    prefix: str
    service: Service
    namespace: str = "default"
    prefix_kind: PrefixKind = "plain"
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
    timeout_ms: int | None = None
    connect_timeout_ms: int = DEFAULT_TIMEOUT_MS
    options: UpstreamOptions = DEFAULT_OPTIONS
    retry: Retry | None = None
    cors: CorsPolicy | None = None
    keep_request_id: bool = True
    add_request_headers: tuple[HeaderChange, ...] = ()
    remove_request_headers: tuple[bytes, ...] = ()
    add_response_headers: tuple[HeaderChange, ...] = ()
    remove_response_headers: tuple[bytes, ...] = ()
    redirect: Redirect | None = None
    shadow: bool = False
    shadow_writes: bool = False
    upgrades: tuple[str, ...] | None = None
    variant: Variant | None = None
    bypass_auth: bool = False
    context_extensions: tuple[tuple[str, str], ...] = ()
    descriptors: Dict[str, tuple[Descriptor, ...]] = field(default_factory=dict)
    extras: Dict[str, Any] = field(default_factory=dict)
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    timeout: float | None = field(init=False, repr=False, compare=False)
    connect_timeout: float = field(init=False, repr=False, compare=False)
    via_comment: bytes = field(init=False, repr=False, compare=False)
    percent: int | None = field(init=False, repr=False, compare=False)
    fast_path_ok: bool = field(init=False, repr=False, compare=False)
    prefix_bytes: bytes = field(init=False, repr=False, compare=False)
    pattern: Regex | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        slow_path_options = (
            self.redirect,
            self.retry,
            self.options.circuit_breakers,
            self.options.endpoints,
            self.options.per_try_timeout,
        )
        timeout_ms = DEFAULT_TIMEOUT_MS if self.timeout_ms is None else self.timeout_ms
        derived = {
            "timeout": timeout_ms / 1000 or None,
            "connect_timeout": self.connect_timeout_ms / 1000 or inf,
            "via_comment": self.service.via_comment,
            "percent": percent(self.weight),
            "fast_path_ok": slow_path_options == (None,) * len(slow_path_options),
            "prefix_bytes": self.prefix.encode(),
            "pattern": compile_regex(self.prefix) if self.prefix_kind == "regex" else None,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    @property
    def wrong_weight(self) -> bool:
        """Whether the weight is outside 0..100."""
        return self.percent != self.weight

    @property
    def key(self) -> tuple[object, ...]:
        """Identity of its group (Emissary `_group_id`, as a tuple and with the kind of prefix)."""
        return (
            self.prefix,
            self.prefix_kind,
            self.precedence,
            self.host.text,
            self.method and self.method.value,
            tuple((c.name, c.value) for c in self.conditions),
            tuple((c.name, c.value) for c in self.query),
        )

    @property
    def rank(self) -> list[int | str]:
        """Sort key of its group, larger first (Emissary `_route_weight`): lengths of texts, then the texts."""
        conditions = [*self.conditions, Condition(":authority", self.host.text)]
        host_extra = int(self.host.regex)
        if self.method:
            conditions.append(self.method)
        return [
            self.precedence,
            len(self.prefix),
            sum(c.length for c in conditions) + host_extra,
            sum(c.length for c in self.query),
            self.prefix,
            self.method.value if self.method else "GET",
            *(f"{c.name}-{c.value}" for c in (*conditions, *self.query)),
        ]

    def accepts_path(self, path: bytes) -> bool:
        """Whether the prefix matches a normalised path (RE2 full match for a regex)."""
        if self.pattern is not None:
            return self.pattern.fullmatch(path) is not None
        prefix = self.prefix_bytes
        if not self.case_sensitive:
            path, prefix = path.lower(), prefix.lower()
        return path == prefix if self.prefix_kind == "exact" else path.startswith(prefix)

    def __str__(self) -> str:
        return self.name
