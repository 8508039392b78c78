"""Endpoint options of a Mapping, from its typed attributes: load balancing, health checks, outlier detection."""

from collections.abc import Mapping as Dict
from typing import Any

from canary_mw.config.ambassador.schema import (
    ActiveHealthCheck,
    AddedHeader,
    HTTPHealthCheck,
    LoadBalancer,
    LoadBalancerCookie,
    StatusRange,
)
from canary_mw.config.ambassador.traffic_policies import seconds
from canary_mw.config.wording import in_words
from canary_mw.config.yaml.loader import DocumentRefused, load
from canary_mw.exceptions import MappingError
from canary_mw.http.headers import FRAMING_HEADERS, has_control, is_header_name
from canary_mw.rules.upstream import Cookie, HealthCheck, LoadBalancing, OutlierDetection
from canary_mw.rules.wording import quoted

_HASH_POLICIES = ("ring_hash", "maglev")


def load_balancer(given: LoadBalancer | None) -> LoadBalancing:
    """`load_balancer`, with Emissary's checks.

    Raises:
        MappingError: a hash policy without exactly one of cookie, header and source_ip, another policy with any of
            them, or a value that is not valid.
    """
    if given is None:
        return LoadBalancing()
    named = [name for name in ("cookie", "header", "source_ip") if getattr(given, name)]
    if given.policy not in _HASH_POLICIES:
        if named:
            text = f"{given.policy} hashes nothing, but {named[0]} is given"
            raise MappingError(text, hint="use ring_hash or maglev")
        return LoadBalancing(given.policy)
    if len(named) != 1:
        found = " and ".join(named) or "none"
        raise MappingError(f"{given.policy} needs one of cookie, header and source_ip, not {found}")
    cookie = _cookie(given.cookie) if given.cookie else None
    return LoadBalancing(
        given.policy, cookie, _header_name(given.header) if given.header else None, bool(given.source_ip)
    )


def _cookie(given: LoadBalancerCookie) -> Cookie:
    path = given.path or ""
    if not is_header_name(given.name):
        raise MappingError(f"{quoted(given.name)} is not the name of a cookie")
    if has_control(path) or not path.isascii() or ";" in path:
        raise MappingError(f"{quoted(path)} is not the path of a cookie")
    return Cookie(given.name.encode(), path.encode(), seconds(given.ttl) if given.ttl else None)


def _header_name(name: str) -> bytes:
    if not is_header_name(name):
        raise MappingError(f"{quoted(name)} is not a header name")
    return name.lower().encode()


def health_checks(given: list[ActiveHealthCheck]) -> tuple[HealthCheck, ...]:
    """`health_checks` over HTTP; those over gRPC are left out.

    Raises:
        MappingError: a check that cannot be made.
    """
    for each in given:
        if (each.health_check.http is None) is (each.health_check.grpc is None):
            raise MappingError("health_check must be either http or grpc", hint="write http: {path: /health}")
    return tuple(_health_check(each, each.health_check.http) for each in given if each.health_check.http is not None)


def _health_check(given: ActiveHealthCheck, http: HTTPHealthCheck) -> HealthCheck:
    defaults = HealthCheck(_path(http.path))
    removed = {_header_name(name) for name in http.remove_request_headers}
    headers = [_added_header(*item) for item in sorted(http.add_request_headers.items())]
    host = http.hostname or ""
    if has_control(host) or not host.isascii() or " " in host:
        raise MappingError(f"{quoted(host)} is not a host name")
    return defaults._replace(
        host=host.encode() or None,
        headers=tuple(pair for pair in headers if pair[0] not in removed),
        statuses=tuple(_statuses(status) for status in http.expected_statuses) or defaults.statuses,
        interval=_positive("interval", given.interval, defaults.interval),
        timeout=_positive("timeout", given.timeout, defaults.timeout),
        healthy_threshold=_at_least_one("healthy_threshold", given.healthy_threshold, defaults.healthy_threshold),
        unhealthy_threshold=_at_least_one(
            "unhealthy_threshold", given.unhealthy_threshold, defaults.unhealthy_threshold
        ),
    )


def _statuses(given: StatusRange) -> tuple[int, int]:
    if not 100 <= given.min <= given.max <= 599:
        raise MappingError(f"expected_statuses {given.min} to {given.max} is no range within 100 to 599")
    return given.min, given.max


def _path(text: str) -> bytes:
    if not text.startswith("/") or not text.isascii() or has_control(text) or " " in text:
        raise MappingError(f"{quoted(text)} is not a path", hint="write it as /health")
    return text.encode()


def _added_header(name: str, given: str | AddedHeader) -> tuple[bytes, bytes]:
    value = given if isinstance(given, str) else given.value
    raw = _header_name(name)
    if raw in FRAMING_HEADERS or raw == b"host" or has_control(value):
        raise MappingError(f"{name}: {quoted(value)} cannot be sent with a health check")
    return raw, value.strip().encode()


def _positive(name: str, text: str | None, default: float) -> float:
    found = default if text is None else seconds(text)
    if found <= 0:
        raise MappingError(f"{name} {quoted(text or '')} is not a time", hint="write 5s")
    return found


def _at_least_one(name: str, number: int | None, default: int) -> int:
    found = default if number is None else number
    if found < 1:
        raise MappingError(f"{name} {number} is less than 1")
    return found


def outlier_detection(given: Any) -> tuple[OutlierDetection | None, str | None]:
    """`outlier_detection`, a map or a YAML text of one; never an error, because in Emissary it has no effect.

    Returns:
        The value, None if it has no effect; and the problem with it, None if there is none.
    """
    if isinstance(given, str):
        try:
            given = (load(given) or (None, None))[1]
        except DocumentRefused:
            given = "no map"
    if given is None:
        return None, None
    if not isinstance(given, Dict):
        return None, "outlier_detection is no map: it has no effect"
    known = {name: value for name, value in given.items() if name in OutlierDetection._fields}
    try:
        values: dict[str, Any] = {name: _outlier_value(name, value) for name, value in known.items()}
    except MappingError as exc:
        return None, f"outlier_detection has no effect: {exc.message}"
    others = ", ".join(sorted(str(name) for name in given if name not in known))
    return OutlierDetection(**values), f"outlier_detection: {others} has no effect" if others else None


def _outlier_value(name: str, value: Any) -> float:
    default = OutlierDetection._field_defaults[name]
    if isinstance(default, float):
        if not isinstance(value, str):
            raise MappingError(f"{name} must be a time, not {in_words(value)}", hint="write 5s")
        return _positive(name, value, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise MappingError(f"{name} must be a whole number, not {in_words(value)}")
    if value < 0:
        raise MappingError(f"{name} {value} is negative")
    return value
