"""Service strings: where a Mapping sends requests."""

import re
from typing import NamedTuple

from canary_mw.exceptions import MappingError
from canary_mw.rules.upstream import KubernetesService, Origin
from canary_mw.rules.wording import quoted

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")


class Service(NamedTuple):
    """A service string, normalised as Emissary does: lower-case host, namespace added, scheme and port as written."""

    text: str
    origin: Origin

    @property
    def via_comment(self) -> bytes:
        """The comment in `via` (RFC 9110, section 7.6.3) that names the service that a request was sent to."""
        return b"(" + self.text.encode("ascii", "ignore").translate(None, b"()\\") + b")"

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in `local`, `--upstream NAME=URL` and `transports`, most specific first."""
        host = self.origin.host
        return (self.text, f"{host}:{self.origin.port}", host)


def parse_service(
    text: str, namespace: str = "default", *, own_namespace: str = "default"
) -> tuple[Service, str | None]:
    """Parse a service string as Emissary's `normalize_service_name` does.

    Args:
        namespace: of the Mapping; appended to a name without a dot, unless it is `own_namespace`.

    Returns:
        The service, and a problem of the text that does not prevent its use, or None.

    Raises:
        MappingError: the text has no host.
    """
    problem = None
    scheme, sep, rest = text.strip().partition("://")
    if not sep:
        scheme, rest = "http", text.strip()
    elif scheme.lower() not in ("http", "https"):
        problem, scheme = f"scheme {quoted(scheme)} of the service is not http or https: taken as http", "http"
    scheme = scheme.lower()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if authority != rest:
        problem = f"service {quoted(text)} holds more than scheme, name and port: the rest is ignored"
    host, port = _split_port(authority)
    if not host or "@" in authority or re.search(r"[\s\x00-\x20\x7f]", host):
        raise MappingError(f"service {quoted(text)} names no host", hint="write name[.namespace][:port]")
    host = host.lower()
    if "." not in host and ":" not in host and host != "localhost" and namespace != own_namespace:
        host = f"{host}.{namespace}"
    default = 443 if scheme == "https" else 80
    number = default if port is None else _port_number(port)
    if number is None:
        problem, number = f"port {quoted(port or '')} of service {quoted(text)} is not in 1..65535", default
    shown = f"[{host}]" if ":" in host else host
    label = (f"{scheme}://" if sep else "") + shown + ("" if port is None else f":{port}")
    return Service(label, Origin(scheme, host, number)), problem


def kubernetes_service(origin: Origin, namespace: str) -> KubernetesService | None:
    """The Service of a cluster that a host names: `name`, `name.namespace` or `name.namespace.svc` and what follows.

    None for an address, and for any other name of DNS, such as one of two parts that ends with a dot.

    Args:
        namespace: that of a host without one.
    """
    name, *rest = origin.host.removesuffix(".").split(".")
    place = rest[0] if rest else namespace
    is_service = rest[1] == "svc" if len(rest) > 1 else not origin.host.endswith(".")
    if not is_service or origin.host == "localhost" or name.isdigit() or not _LABEL.fullmatch(name):
        return None
    return KubernetesService(name, place, origin.port) if not place or _LABEL.fullmatch(place) else None


def _split_port(authority: str) -> tuple[str, str | None]:
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        return host, rest[1:] if rest.startswith(":") else None
    host, sep, port = authority.partition(":")
    return host, port if sep else None


def _port_number(text: str) -> int | None:
    # `int` refuses thousands of digits.
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    return number if 0 < number < 65536 else None
