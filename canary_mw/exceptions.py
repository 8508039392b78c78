"""Every error that canary-mw raises, ordered by whose fault it is.

CanaryError
├── ConfigError                  the operator: file, line, Mapping and a hint stand in the text
│   ├── SourceError              rules cannot be read at all
│   ├── DocumentError            a text is not YAML, or not a document
│   └── MappingError             a Mapping contradicts itself
├── UpstreamError                the upstream: `status_hint` for the client, `sent` for the retry
│   ├── UpstreamConnectError     503
│   │   └── UpstreamOverloaded   503, over a limit of circuit_breakers
│   ├── UpstreamTimeout          504
│   └── UpstreamProtocolError    502
├── ClientError                  the client: `status_hint` is what it is told
│   ├── BadTarget                400
│   ├── Forbidden                403
│   ├── LengthRequired           411
│   ├── BodyTooLarge             413
│   ├── HeadTooLarge             431
│   └── LoopDetected             508
└── ClientDisconnected           nobody: ends the exchange silently
"""


class CanaryError(Exception):
    """Base of everything below."""


class ConfigError(CanaryError):
    """Rules that the operator has to mend.

    Args:
        message: what is wrong, in one line.
        file: name of the file or source, where known.
        line: 1-based line in it, where known.
        mapping: name of the Mapping, where known.
        hint: what to do about it.
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
    """The place that holds the rules cannot be read, or is empty."""


class DocumentError(ConfigError):
    """A text that is not YAML, is refused for its size or shape, or is not a document."""


class MappingError(ConfigError):
    """A Mapping that contradicts itself, or holds a value that cannot work."""


class UpstreamError(CanaryError):
    """An upstream did not answer as it should.

    Args:
        message: for the log; never shown to the client.
        sent: whether the upstream may have seen the request, so that a second try may do it twice.
    """

    status_hint = 502

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class UpstreamConnectError(UpstreamError):
    """No connection, or one that was lost before any of the answer was seen (Envoy answers 503)."""

    status_hint = 503


class UpstreamOverloaded(UpstreamConnectError):
    """A limit of `circuit_breakers` is reached; Envoy answers 503 with `x-envoy-overloaded: true`."""


class UpstreamTimeout(UpstreamError):
    """The deadline passed before the answer was complete (Envoy answers 504).

    Attributes:
        whole: the time for all tries is up, not that of one try.
    """

    status_hint = 504
    whole = True


class UpstreamProtocolError(UpstreamError):
    """The answer is not HTTP, or ended before it was complete."""

    status_hint = 502


class ClientError(CanaryError):
    """A request that cannot be served as it came."""

    status_hint = 400


class BadTarget(ClientError):
    """The request target is not one that can be matched and sent unambiguously."""


class LengthRequired(ClientError):
    """Where the request body ends is not known (RFC 9110, section 15.5.12)."""

    status_hint = 411


class BodyTooLarge(ClientError):
    """The request body is over the limit."""

    status_hint = 413


class Forbidden(ClientError):
    """The client may not come in (`ip_allow`, `ip_deny`)."""

    status_hint = 403


class HeadTooLarge(ClientError):
    """The head of the request is over the limit (RFC 6585, section 5)."""

    status_hint = 431


class LoopDetected(ClientError):
    """The request was forwarded by this deployment before (RFC 5842, section 7.2)."""

    status_hint = 508


class ClientDisconnected(CanaryError):
    """The client left; nobody is waiting for an answer."""
