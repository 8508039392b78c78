"""Every error that canary-mw raises, by who is at fault.

CanaryError
├── ConfigError                  the operator: the text names file, line, Mapping and a hint
│   ├── SourceError              rules cannot be read at all
│   ├── DocumentError            a text is not YAML, or not a document
│   └── MappingError             a Mapping contradicts itself
├── UpstreamError                the upstream: `status_hint` for the client, `sent` for retries
│   ├── UpstreamConnectError     503
│   │   └── UpstreamOverloaded   503, over a limit of circuit_breakers
│   ├── UpstreamTimeout          504
│   └── UpstreamProtocolError    502
├── ClientError                  the client: `status_hint` is the status of the response
│   ├── BadTarget                400
│   ├── Forbidden                403
│   ├── LengthRequired           411
│   ├── BodyTooLarge             413
│   ├── HeadTooLarge             431
│   └── LoopDetected             508
├── StateError                   nobody: the stored state of a release cannot be read
│   └── NewerFormat              a newer version has written it
├── CommandRefused               who gave a command that a release does not take now
└── ClientDisconnected           nobody: ends the exchange without a response
"""


class CanaryError(Exception):
    """Base of all errors in this module."""


class ConfigError(CanaryError):
    """Rules that the operator has to correct.

    Args:
        message: what is wrong, in one line.
        file: name of the file or source, where known.
        line: 1-based line in it, where known.
        mapping: name of the Mapping, where known.
        hint: how to correct it.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        mapping: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.mapping = mapping
        self.hint = hint

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        name = f"Mapping {self.mapping}: " if self.mapping else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{': ' if place else ''}{name}{self.message}{hint}"


class SourceError(ConfigError):
    """The source of the rules cannot be read, or is empty."""


class DocumentError(ConfigError):
    """A text is not YAML, is refused for its size or shape, or is not a document."""


class MappingError(ConfigError):
    """A Mapping contradicts itself, or holds a value that cannot work."""


class UpstreamError(CanaryError):
    """An upstream did not respond as it should.

    Args:
        message: for the log; never sent to the client.
        sent: whether the upstream may have received the request, so that a retry may execute it twice.

    Attributes:
        reason: what kind of failure it is, one of `forwarding.outages.REASONS`.
        address: host and port of the endpoint that was tried, where one was chosen among several.
        attempted: False where no attempt was made: it was too late for one.
        tried_before: the upstream may have received it in an earlier try, after which it was sent once more.
    """

    status_hint = 502
    reason = "protocol"
    address = ""
    attempted = True
    tried_before = False

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class UpstreamConnectError(UpstreamError):
    """No connection, or one that was lost before the first byte of the response (Envoy answers 503)."""

    status_hint = 503
    reason = "connect"


class UpstreamOverloaded(UpstreamConnectError):
    """A limit of `circuit_breakers` is reached; Envoy answers 503 with `x-envoy-overloaded: true`."""

    reason = "overload"


class UpstreamTimeout(UpstreamError):
    """The response was not complete within its time (Envoy answers 504).

    Attributes:
        deadline_exceeded: the time for all attempts is over, not only that of one attempt.
        in_queue: the request waited for a free connection.
    """

    status_hint = 504
    reason = "timeout"
    deadline_exceeded = True
    in_queue = False


class UpstreamProtocolError(UpstreamError):
    """The response is not HTTP, or ended before it was complete."""

    status_hint = 502


class ClientError(CanaryError):
    """A request that cannot be served as it was received."""

    status_hint = 400


class BadTarget(ClientError):
    """The request target cannot be matched and sent unambiguously."""


class LengthRequired(ClientError):
    """The end of the request body is not known (RFC 9110, section 15.5.12)."""

    status_hint = 411


class BodyTooLarge(ClientError):
    """The request body is over the limit."""

    status_hint = 413


class Forbidden(ClientError):
    """The address of the client is not allowed (`ip_allow`, `ip_deny`)."""

    status_hint = 403


class HeadTooLarge(ClientError):
    """The head of the request is over the limit (RFC 6585, section 5)."""

    status_hint = 431


class LoopDetected(ClientError):
    """The request was forwarded by this deployment before (RFC 5842, section 7.2)."""

    status_hint = 508


class StateError(CanaryError):
    """The stored state of a release cannot be read."""


class NewerFormat(StateError):
    """The state of a release was written by a newer version. Whoever finds it holds, and never raises."""


class CommandRefused(CanaryError):
    """A command does not fit the phase of a release; nothing changes (409)."""


class VersionMoved(CanaryError):
    """The state of a release has changed since the one who gives a command looked at it (412)."""


class StoreAway(CanaryError):
    """The store of states cannot be reached or written (503): nothing is raised. Lowering does not need it."""


class EvidenceRefused(CanaryError):
    """What another pod gives as its evidence is none: nothing of it is taken, and nothing is raised without it."""


class ClientDisconnected(CanaryError):
    """The client closed its connection; nobody waits for a response."""
