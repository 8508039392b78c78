"""Traffic policies of a Mapping, from its typed attributes: retries, timeouts, circuit breakers, CORS, header changes.

`mapping.py` maps each attribute to the function that reads it.
"""

import re
from collections.abc import Mapping as Dict

from canary_mw.config.ambassador.schema import AddedHeader, CircuitBreaker, Cors, LegacyCors, RetryPolicy
from canary_mw.exceptions import MappingError
from canary_mw.http.headers import FRAMING_HEADERS, has_control, is_header_name
from canary_mw.rules.cors import CorsPolicy, cors_policy
from canary_mw.rules.header_templates import compile_template
from canary_mw.rules.mapping import HeaderChange, Retry
from canary_mw.rules.upstream import CircuitBreakers
from canary_mw.rules.wording import quoted

_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Numbers of Envoy have 32 bits. Times of Go and of the operating system end after 292 years.
_MAX_UNSIGNED = 2**32 - 1
_MAX_MS = 9_000_000_000_000


def retry_policy(policy: RetryPolicy | None) -> Retry | None:
    """`retry_policy` without `per_try_timeout`.

    Raises:
        MappingError: a count that Envoy does not take.
    """
    if policy is None:
        return None
    count = 1 if policy.num_retries is None else policy.num_retries
    return Retry(policy.retry_on, unsigned("num_retries", count, hint="0 means no retry"))


def per_try_timeout(policy: RetryPolicy | None) -> float | None:
    """Timeout of one attempt in seconds, None for no limit of its own.

    Raises:
        MappingError: `per_try_timeout` is no duration.
    """
    return seconds(policy.per_try_timeout) or None if policy and policy.per_try_timeout else None


def seconds(text: str) -> float:
    """A duration as Go writes it, `1.5s` or `1m30s`, in seconds.

    Raises:
        MappingError: it is not a duration.
    """
    parts = _DURATION.findall(text)
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not parts or total > _MAX_MS / 1000 or "".join(number + unit for number, unit in parts) != text:
        raise MappingError(f"{quoted(text)} is not a duration", hint="write 1.5s or 500ms")
    return total


def milliseconds(value: int) -> int:
    """A time in milliseconds.

    Raises:
        MappingError: it is negative, or too large for a clock.
    """
    if value < 0:
        raise MappingError(f"{value} ms is negative", hint="0 means no limit")
    if value > _MAX_MS:
        raise MappingError(f"{value} ms is more than {_MAX_MS}", hint="0 means no limit")
    return value


def unsigned(name: str, value: int, *, hint: str | None = None) -> int:
    """A number that Envoy takes as an unsigned one of 32 bits.

    Raises:
        MappingError: it is not.
    """
    if value < 0:
        raise MappingError(f"{name} {value} is negative", hint=hint)
    if value > _MAX_UNSIGNED:
        raise MappingError(f"{name} {value} is more than {_MAX_UNSIGNED}", hint=hint)
    return value


def seconds_from_ms(value: int | None) -> float | None:
    """A timeout in seconds from milliseconds, None for no limit: 0 or a missing value.

    Raises:
        MappingError: it is negative.
    """
    return milliseconds(value) / 1000 if value else None


def circuit_breakers(given: list[CircuitBreaker], priority: str | None = None) -> CircuitBreakers | None:
    """The limits of `circuit_breakers` for a priority; any other than "high" is the default one.

    Raises:
        MappingError: a limit that Envoy does not take.
    """
    for each in given:
        for name in CircuitBreakers._fields:
            value = getattr(each, name)
            if value is not None:
                unsigned(name, value, hint="leave it out for Envoy's default")
    wanted = "high" if priority == "high" else "default"
    found = next((each for each in given if each.priority == wanted), None)
    return (
        None
        if found is None
        else CircuitBreakers(**found.model_dump(include=set(CircuitBreakers._fields), exclude_none=True))
    )


def cors(policy: Cors | LegacyCors | None) -> CorsPolicy | None:
    """`cors`; a text of origins is split at commas, without trimming.

    Raises:
        MappingError: a value that is not allowed in a header.
    """
    if policy is None:
        return None
    origins = policy.origins.split(",") if isinstance(policy.origins, str) else policy.origins
    methods, headers, exposed = (_as_list(value) for value in (policy.methods, policy.headers, policy.exposed_headers))
    for text in (*origins, *methods, *headers, *exposed, policy.max_age or ""):
        if has_control(text):
            raise MappingError(f"{quoted(text)} holds a control character")
    return cors_policy(
        origins=origins,
        methods=methods,
        headers=headers,
        exposed_headers=exposed,
        credentials=policy.credentials,
        max_age=policy.max_age,
    )


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def added_headers(headers: Dict[str, str | AddedHeader]) -> tuple[HeaderChange, ...]:
    """`add_request_headers` or `add_response_headers`, sorted by name as in Emissary.

    Raises:
        MappingError: a header that may not be added, or a value that is not valid.
    """
    return tuple(_header_change(*item) for item in sorted(headers.items()))


def _header_change(name: str, given: str | AddedHeader) -> HeaderChange:
    value, append = (given, True) if isinstance(given, str) else (given.value, given.append)
    raw = _header_name(name)
    if raw in FRAMING_HEADERS:
        raise MappingError(f"{name} frames the message and cannot be added", hint="leave it out")
    try:
        return HeaderChange(raw, compile_template(value), append)
    except MappingError as exc:
        raise MappingError(f"{name}: {exc.message}", hint=exc.hint) from None


def removed_headers(names: str | list[str]) -> tuple[bytes, ...]:
    """`remove_request_headers` or `remove_response_headers`.

    Raises:
        MappingError: a header that may not be removed.
    """
    return tuple(_header_name(name) for name in _as_list(names))


def _header_name(name: str) -> bytes:
    if not is_header_name(name):
        raise MappingError(f"{quoted(name)} is not a header name")
    if name.lower() in ("host", ":authority"):
        raise MappingError("the Host header cannot be added or removed", hint="use host_rewrite")
    return name.lower().encode()
