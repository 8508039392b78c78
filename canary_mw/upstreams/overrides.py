"""What replaces a service: URLs, transports and apps, each under one of its names; and its endpoints then."""

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from canary_mw.client.tls import with_tls
from canary_mw.exceptions import ConfigError
from canary_mw.rules.service import Service
from canary_mw.rules.upstream import EndpointOptions, Origin, UpstreamOptions
from canary_mw.upstreams.discovery.dns import is_looked_up
from canary_mw.upstreams.endpoints import EndpointSet
from canary_mw.upstreams.environment import Environment

T = TypeVar("T")


def find_override(table: Dict[str, T], service: Service) -> T | None:
    """The entry for a service under its most specific name: its text, host:port, host."""
    for name in service.names:
        if name in table:
            return table[name]
    return None


def is_replaced(service: Service, *tables: Dict[str, object]) -> bool:
    """Whether there is an entry for a service, or for all."""
    return any("*" in table or find_override(table, service) is not None for table in tables)


def place_of(
    service: Service, apps: Dict[str, object], transports: Dict[str, object], overrides: Dict[str, list[Origin]]
) -> str:
    """Where requests to a service go, for the log."""
    if find_override(apps, service) is not None:
        return "as an app of this process"
    if find_override(transports, service) is not None:
        return "by its transport"
    origins = find_override(overrides, service) or overrides.get("*")
    if origins:
        return f"at {' and '.join(f'{each.scheme}://{each.authority}' for each in origins)}"
    return f"by the name {service.origin.authority}" if is_looked_up(service.origin.host) else "by its own address"


def parse_origins(name: str, urls: str | Sequence[str]) -> list[Origin]:
    """The origins of one URL (scheme, host, port) or several.

    Args:
        name: the service, for the error message.

    Raises:
        ConfigError: there is no URL, or one with more than that or of another scheme.
    """
    found = [_origin(name, url) for url in ([urls] if isinstance(urls, str) else urls)]
    if not found:
        raise ConfigError(f"upstream {name}: no URL", hint="write NAME=http://host:port")
    return found


def _origin(name: str, url: str) -> Origin:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ConfigError(f"upstream {name}: {url!r} is not a URL of a host", hint="write http://host:port")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        hint = "leave it out: the Mapping's rewrite decides about the path"
        raise ConfigError(f"upstream {name}: {url!r} holds more than scheme, host and port", hint=hint)
    return Origin(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80))


def endpoints_of(
    service: Service,
    overrides: Dict[str, list[Origin]],
    options: UpstreamOptions,
    environment: Environment,
    *,
    look_up: bool,
) -> EndpointSet:
    """The endpoints of a service: its override, those that an API knows, or its own address."""
    given = find_override(overrides, service) or overrides.get("*")
    origins, endpoint_options = with_tls(given or [service.origin], options.tls), options.endpoints or EndpointOptions()
    discovery, resolver = environment.discovery, None
    if discovery is not None and look_up and not given:
        resolver = discovery.resolver(endpoint_options, origins[0], environment.resolve)
    return EndpointSet(origins, endpoint_options, environment, look_up=look_up, resolver=resolver)
