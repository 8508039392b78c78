"""Findings about settings that do not fit the rules: names of services that are meant by `--local` and `--upstream`."""

from collections.abc import Collection, Iterable, Iterator

from canary_mw.config.document import Diagnostic
from canary_mw.config.wording import did_you_mean
from canary_mw.routing.table import RouteTable
from canary_mw.rules.mapping import Mapping


def lint_local(table: RouteTable, local: Iterable[str]) -> list[Diagnostic]:
    """Names of the local service to which no Mapping leads; one is enough of shop-stable and shop-stable.shop."""
    known = _names(table.mappings) | _other_names(table)
    local = list(local)
    used = [name.partition(":")[0] for name in local if name in known]
    text = "no Mapping leads to {}: the app answers only what no Mapping takes"
    return [
        _about_option("--local", "unknown-local", text.format(name), name, known)
        for name in local
        if name not in known and not _is_longer_or_shorter(name.partition(":")[0], used)
    ]


def _is_longer_or_shorter(host: str, others: Iterable[str]) -> bool:
    """Whether one of them is the host with its namespace, or without."""
    return any(f"{one}.".startswith(f"{other}.") for each in others for one, other in ((host, each), (each, host)))


def lint_upstreams(table: RouteTable, upstreams: Collection[str], local: Collection[str] = ()) -> list[Diagnostic]:
    """Services that no upstream is named for, and upstreams that no Mapping uses.

    Args:
        upstreams: the names that URLs are given for; `*` stands for all others.
        local: names of the local service, which needs no URL.
    """
    forwarding = [mapping for mapping in table.mappings if mapping.redirect is None]
    known = _names(forwarding) | _other_names(table)
    text = "no Mapping leads to {}: its URL is not used"
    unused = [name for name in upstreams if name != "*" and name not in known]
    found = [_about_option("--upstream", "unused-upstream", text.format(name), name, known) for name in unused]
    return found + list(_without_upstream(forwarding, {*upstreams, *local}))


def _without_upstream(mappings: Iterable[Mapping], given: set[str]) -> Iterator[Diagnostic]:
    reported: set[str] = set()
    for mapping in mappings:
        host, service = mapping.service.origin.host, mapping.service.text
        known = "*" in given or not given.isdisjoint(mapping.service.names) or service in reported
        # A name with a dot, an address, or this host: DNS is not needed, or likely to know it.
        if known or "." in host or ":" in host or host == "localhost":
            continue
        reported.add(service)
        yield Diagnostic(
            severity="warning",
            code="no-upstream",
            message=f"Mapping {mapping.name}: service {service} has no --upstream, and no dot in its name for DNS",
            file=mapping.file,
            line=mapping.line or None,
            mapping=mapping.name,
            hint=f"give --upstream {host}=http://HOST:PORT, or write name.namespace",
        )


def _names(mappings: Iterable[Mapping]) -> dict[str, None]:
    """The names of all services, in the order of the rules."""
    return {name: None for mapping in mappings for name in mapping.service.names}


def _other_names(table: RouteTable) -> dict[str, None]:
    """The names of services that no Mapping leads to: they are asked, or told, or get connections of TCPMappings."""
    auth, limits = table.settings.filters.auth, table.settings.filters.rate_limit
    asked = (*(auth.services if auth is not None else ()), *([limits.service] if limits is not None else ()))
    tracing = table.settings.tracing
    told = (*(each.service for each in table.settings.logs), *([] if tracing is None else [tracing.service]))
    services = (*asked, *told, *(each.mapping.service for each in table.settings.tcp))
    return {name: None for each in services for name in each.names}


def _about_option(option: str, code: str, message: str, name: str, known: dict[str, None]) -> Diagnostic:
    hint = did_you_mean(name, [*known])
    return Diagnostic(severity="warning", code=code, message=message, file=option, hint=hint or "correct the name")
