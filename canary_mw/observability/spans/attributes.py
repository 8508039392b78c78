"""The name and the attributes of a span by the stable conventions of OpenTelemetry for HTTP."""

from collections.abc import Iterator

from canary_mw.observability.opentelemetry import method_name, redacted
from canary_mw.observability.spans.span import Called, Served
from canary_mw.routing.decided import Decision
from canary_mw.routing.governed import APP
from canary_mw.rules.release import STABLE

Value = str | int
Attributes = dict[str, Value]
# The reasons of a release in the words of OpenFeature; all others are choices: "targeting_match".
_FLAG_REASONS = {"sticky": "split", "roll": "split", "new": "split", "missing": "default", "disabled": "disabled"}


def name_of(about: Served | Called) -> str:
    """The name of a span: of few, whatever clients send."""
    if isinstance(about, Called):
        return f"{method_name(about.method)} {about.service}"
    route = _route(about.decision)
    method = method_name(about.logged.record.method)
    return method if route is None else f"{method} {route}"


def attributes_of(about: Served | Called) -> Attributes:
    """The attributes of a span; what is not known is left out."""
    found = _called(about) if isinstance(about, Called) else _served(about)
    return {name: value for name, value in found if value is not None and value != ""}


def error_of(about: Served | Called) -> str | None:
    """`error.type`: what went wrong, None for nothing. What a client did wrong is no error of a server."""
    if isinstance(about, Called):
        failed = about.status is not None and about.status >= 400
        return str(about.status) if failed else about.error
    record = about.logged.record
    if record.status is None:
        return record.reason or "no answer"
    return str(record.status) if record.status >= 500 else None


def flag_of(decision: Decision | None) -> dict[str, str] | None:
    """The attributes of the event `feature_flag.evaluation`, None where no release has decided."""
    release = None if decision is None else decision.release
    if release is None:
        return None
    return {
        "feature_flag.key": release.name,
        "feature_flag.provider.name": "canary-mw",
        "feature_flag.result.variant": release.variant or STABLE,
        "feature_flag.result.reason": _FLAG_REASONS.get(release.reason, "targeting_match"),
    }


def _route(decision: Decision | None) -> str | None:
    return None if decision is None or decision.mapping is APP else decision.mapping.prefix


def _served(about: Served) -> Iterator[tuple[str, Value | None]]:
    record, head = about.logged.record, about.logged.head
    yield from _method(record.method)
    yield "http.route", _route(about.decision)
    yield "http.response.status_code", record.status
    yield "error.type", error_of(about)
    yield "client.address", record.client
    if head is not None:
        target = redacted(head.mount.sent + head.path + head.query)
        path, _, query = target.partition("?")
        host = (head.host or b"").decode("latin-1")
        yield from (("url.scheme", head.scheme), ("url.path", path), ("url.query", query))
        yield "url.full", f"{head.scheme}://{host}{target}"
        yield "server.address", host
        yield "network.protocol.version", head.http_version
        yield "user_agent.original", (head.header(b"user-agent") or b"").decode("latin-1")
    yield from _decided(about.decision)
    yield "canary_mw.generation", about.generation or None


def _decided(decision: Decision | None) -> Iterator[tuple[str, Value | None]]:
    if decision is None:
        return
    release = decision.release
    if decision.mapping is not APP:
        yield "canary_mw.mapping", decision.mapping.name
    yield "canary_mw.variant", decision.variant if release is None else release.variant or STABLE
    yield "canary_mw.reason", "weight" if release is None else release.reason
    if release is not None:
        yield "canary_mw.release", release.name


def _called(about: Called) -> Iterator[tuple[str, Value | None]]:
    yield from _method(about.method)
    yield "url.full", about.url
    yield from (("server.address", about.host), ("server.port", about.port))
    yield "network.peer.address", about.address
    yield "http.request.resend_count", about.resent or None
    yield "http.response.status_code", about.status
    yield "error.type", error_of(about)
    yield "canary_mw.mapping", about.call or about.mapping
    yield "canary_mw.verdict", about.verdict


def _method(method: str) -> Iterator[tuple[str, Value]]:
    name = method_name(method)
    yield "http.request.method", method if name == method else "_OTHER"
