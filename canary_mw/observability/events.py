"""Events that observers receive, as values."""

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from typing import NamedTuple

from canary_mw.config.document import Diagnostic
from canary_mw.exceptions import ConfigError
from canary_mw.rules.epoch import Epoch


class Decided(NamedTuple):
    """A request was matched; nothing has been sent yet.

    Attributes:
        path: normalised path without the query, with the root path as far as the client has sent it.
        mapping: name of the chosen Mapping, None when no Mapping matched.
        service: service text of that Mapping.
        variant: "stable" or "gray".
        sent: see `Decision.sent`.
    """

    method: str
    path: str
    mapping: str | None = None
    service: str | None = None
    variant: str | None = None
    sent: bool = False


class Finished(NamedTuple):
    """The last byte of a response was sent, or the exchange was aborted; other fields as in `Decided`.

    Attributes:
        status: of the response, None when the client disconnected before there was one.
        seconds: from the request head to the end of the response.
        reason: why the proxy itself made the response, None for a relayed one.
        answered_by: "stable" where stable was asked in place of a gray variant that failed, else None.
        fallback: how gray failed where stable was asked, as in `FallbackCounters`, else None.
        release: that has decided; of a group without a release, with gray Mappings, its stable Mapping. Else None.
        drawn: the variant was drawn for the request, by its key or by chance.
        key: 64 bits of the hash of its key, None where no key was looked up.
        first_byte: seconds from the request head to the head of the response, None when there was none.
        client: address of the peer, None where the server does not know it.
        upstream: address:port that was asked last, None where no upstream was asked.
        tries: how often the request was sent to an upstream.
        request_id: the `x-request-id` that the upstream got, or else that of the client.
        bytes_in: of the body of the request; None where it came in chunks.
        bytes_out: of the body of the response.
        auth: allowed, denied, error or failed_open, by an AuthService; None where it was not asked.
        auth_seconds: how long it took.
        rate_limit: ok, over_limit or error, by a RateLimitService; None where it was not asked.
        rate_limit_seconds: how long it took.
    """

    method: str
    path: str
    status: int | None
    seconds: float
    mapping: str | None = None
    service: str | None = None
    variant: str | None = None
    reason: str | None = None
    sent: bool = False
    answered_by: str | None = None
    fallback: str | None = None
    release: str | None = None
    drawn: bool = False
    key: int | None = None
    first_byte: float | None = None
    client: str | None = None
    upstream: str | None = None
    tries: int = 0
    request_id: str | None = None
    bytes_in: int | None = None
    bytes_out: int = 0
    auth: str | None = None
    auth_seconds: float | None = None
    rate_limit: str | None = None
    rate_limit_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """New rules are in force, or `error` changed.

    Attributes:
        generation: number of the table in force; unchanged when only `error` changed.
        added, removed, changed: "name.namespace" of the Mappings that differ from the previous table.
        diagnostics: all findings about the rules in force.
        error: why the newest state of the source is not completely in force, or None.
        content: 64 bits in hexadecimal that are the same for the same texts of the source, "" before the first ones.
        mappings: number of those in force.
        epochs: of the releases in force, and of groups with gray Mappings and no release, by the names of these.
        lines: what has changed, in words.
        steps: of the releases whose weights are not those of their documents.
    """

    generation: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    error: ConfigError | None = None
    content: str = ""
    mappings: int = 0
    epochs: Dict[str, Epoch] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    steps: Dict[str, int] = field(default_factory=dict)
