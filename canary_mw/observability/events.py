"""What happened, as values."""

from dataclasses import dataclass
from typing import NamedTuple

from canary_mw.config.document import Diagnostic
from canary_mw.exceptions import ConfigError


class Decided(NamedTuple):
    """A request has been matched; nothing was sent yet.

    Attributes:
        path: normalised path, without the query.
        mapping: name of the Mapping that was chosen, None when no Mapping matched.
        service: service text of that Mapping.
        variant: "stable" or "gray".
    """

    method: str
    path: str
    mapping: str | None = None
    service: str | None = None
    variant: str | None = None


class Finished(NamedTuple):
    """The last byte of an answer is out, or the exchange was given up; fields as in `Decided`.

    Attributes:
        status: what the client was told, None when it left before there was an answer.
        seconds: from the request head to the end of the answer.
        reason: why the answer is our own and not an upstream's, None for a relayed one.
    """

    method: str
    path: str
    status: int | None
    seconds: float
    mapping: str | None = None
    service: str | None = None
    variant: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """Other rules are in force, or it changed whether the newest ones are.

    Attributes:
        generation: number of the table in force; the same as before when only `error` changed.
        added, removed, changed: "name.namespace" of the Mappings that differ from the table before.
        diagnostics: all findings about the rules in force.
        error: why the newest state of the source is not wholly in force, or None.
    """

    generation: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    error: ConfigError | None = None
