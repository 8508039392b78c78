"""ConsulResolver documents: where the endpoints of services are asked for, by Mappings that name them in `resolver`."""

import re
from collections.abc import Mapping as Dict
from typing import Any
from urllib.parse import quote

from canary_mw.config.ambassador.kinds import CONSUL_RESOLVER
from canary_mw.config.ambassador.schema import Strict
from canary_mw.config.document import Diagnostic
from canary_mw.config.resource import Resource
from canary_mw.config.services.named import Source, read_named
from canary_mw.config.validation import Report, validate
from canary_mw.exceptions import MappingError
from canary_mw.rules.service import parse_service
from canary_mw.rules.upstream import ConsulAgent, Origin
from canary_mw.rules.wording import quoted

# As in Emissary, for a document without an address.
_DEFAULT_ADDRESS = "127.0.0.1:8500"
_DEFAULT_PORT = 8500
_ADDRESS = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/:?#@\[\]]+)(?::(?P<port>\d{1,5}))?/?", re.A
)


class ConsulResolverModel(Strict):
    """The attributes with their types, the same in all versions."""

    address: str | None = None
    datacenter: str | None = None
    ambassador_id: str | list[str] | None = None


def read_agents(
    source: Source, last_good: Dict[str, ConsulAgent], diagnostics: list[Diagnostic]
) -> dict[str, ConsulAgent]:
    """The agents of the ConsulResolvers by name; see `read_named`. As in Emissary, two names stand for each other."""

    def convert(resource: Resource, _: str, report: Report) -> ConsulAgent | None:
        return _agent(resource.spec, report)

    found, _ = read_named(CONSUL_RESOLVER, source, lambda each: each.name or "", convert, last_good, diagnostics)
    for name, alias in (("consul", "consul-endpoint"), ("consul-endpoint", "consul")):
        if name in found:
            found.setdefault(alias, found[name])
    return found


def _agent(spec: Dict[str, Any], report: Report) -> ConsulAgent | None:
    model = validate(ConsulResolverModel, dict(spec), report)
    if model is None:
        return None
    if not model.datacenter:
        report("error", "missing", "datacenter is missing", hint="write the name of the datacenter, such as dc1")
        return None
    try:
        return ConsulAgent(_address(model.address or _DEFAULT_ADDRESS), model.datacenter)
    except MappingError as exc:
        report("error", "bad-value", exc.message, attribute="address", hint=exc.hint)
        return None


def _address(text: str) -> Origin:
    """The address of an agent; its scheme is empty where none is written.

    Raises:
        MappingError: it is none.
    """
    match = _ADDRESS.fullmatch(text.strip())
    port = int(match["port"] or _DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536 or "$" in text:
        hint = "write host:port, http://host:port or https://host:port"
        raise MappingError(f"address {quoted(text)} is not the address of a Consul agent", hint=hint)
    return Origin(match["scheme"] or "", match["host"].strip("[]").lower(), port)


def consul_name(text: str) -> str | None:
    """The name of a service in Consul that a Mapping names; None for an address, which needs no look-up.

    Raises:
        MappingError: the name has a dot, which no service in Consul has that is asked for by name.
    """
    host = parse_service(text)[0].origin.host
    if ":" in host or re.fullmatch(r"[\d.]+", host):
        return None
    if "." in host:
        hint = "write the name of the service in Consul, without a domain"
        raise MappingError(f"service {quoted(text)} has a dot, and no service of a ConsulResolver has one", hint=hint)
    # A name becomes part of a path.
    return quote(host, safe="")
