"""The answer about the addresses of services."""

from collections.abc import Iterable

from canary_mw.admin.answers.frame import answer_frame
from canary_mw.admin.models.operations import Endpoint, EndpointsAnswer, ServiceEndpoints
from canary_mw.admin.subject import Subject
from canary_mw.observability.figures.values import Figures
from canary_mw.upstreams.health import EndpointStatus


def endpoints_answer(subject: Subject, figures: Figures) -> EndpointsAnswer:
    """The addresses that the process that answers knows."""
    services = _services(subject.endpoints())
    addresses = [each for service in services for each in service["endpoints"]]
    left_out = sum(each["state"] != "healthy" for each in addresses)
    return {
        **answer_frame(subject, figures),
        "finding": _finding(len(addresses), left_out),
        "services": services,
    }


def _services(statuses: Iterable[EndpointStatus]) -> list[ServiceEndpoints]:
    """By service; an address that several Mappings reach by options of their own is there once, in its worst state."""
    found: dict[str, dict[str, EndpointStatus]] = {}
    for each in statuses:
        known = found.setdefault(each.service, {})
        if each.address not in known or known[each.address].state == "healthy":
            known[each.address] = each
    return [{"service": name, "endpoints": [*map(_endpoint, found[name].values())]} for name in sorted(found)]


def _endpoint(status: EndpointStatus) -> Endpoint:
    return {
        "address": status.address,
        "state": status.state,
        "why": status.why,
        "back_in_seconds": None if status.back_in is None else round(status.back_in, 1),
        # Requests are counted by service, and not by address.
        "requests": None,
        "errors": None,
        "p95_ms": None,
        "connections": None if status.held is None else status.held.connections,
        "waiting": None if status.held is None else status.held.waiting,
    }


def _finding(total: int, left_out: int) -> str:
    if not total:
        return "No service has been asked yet."
    if not left_out:
        return "The only address gets requests." if total == 1 else f"All {total} addresses get requests."
    return f"{left_out} of {total} addresses {'gets' if left_out == 1 else 'get'} no requests."
