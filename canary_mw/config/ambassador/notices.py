"""Findings about a valid Mapping: attributes without effect, and values that are probably not intended."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from canary_mw.config.ambassador.endpoint_policies import outlier_detection
from canary_mw.config.ambassador.matching import was_written_without_host
from canary_mw.config.ambassador.schema import NO_EFFECT_YET, LegacyMapping, MappingV3, Model, health_checks_of
from canary_mw.config.document import Severity
from canary_mw.exceptions import MappingError
from canary_mw.rules.mapping import Mapping
from canary_mw.rules.matchers import ANY_HOST
from canary_mw.rules.service import parse_service


class AttributeDiagnostic(NamedTuple):
    """A finding about one attribute of a document."""

    severity: Severity
    attribute: str
    code: str
    message: str
    hint: str | None = None


def notices(
    model: Model, mapping: Mapping, given: set[str], wrong_labels: Iterable[MappingError] = ()
) -> Iterator[AttributeDiagnostic]:
    """Findings about a valid Mapping.

    Args:
        given: the attributes that the document itself names, without those of the Module.
        wrong_labels: what is wrong with labels, which are left out.
    """
    for each in wrong_labels:
        yield AttributeDiagnostic("error", "labels", "bad-label", each.message, each.hint)
    yield from _without_effect(model, given)
    _, problem = parse_service(model.service, mapping.namespace)
    if problem:
        yield AttributeDiagnostic("warning", "service", "service-text", problem)
    if was_written_without_host(model) or (isinstance(model, MappingV3) and mapping.host is ANY_HOST):
        attribute = "host" if "host" in given else "service"
        text = "no hostname: matches every host (Emissary: none)"
        yield AttributeDiagnostic("notice", attribute, "no-hostname", text)
    if mapping.regex_rewrite and "rewrite" in given:
        yield AttributeDiagnostic("notice", "rewrite", "rewrite-overridden", "regex_rewrite is used, rewrite is not")
    if mapping.regex_rewrite and not mapping.regex_rewrite.usable:
        text = "the substitution names a group that the pattern does not have: the path stays as it is"
        yield AttributeDiagnostic("warning", "regex_rewrite", "bad-reference", text)
    yield from _undecided(model)
    if mapping.wrong_weight:
        # Whether it is an error, and what becomes of the Mapping, is up to its group: `config/weights.py`.
        text = f"weight {mapping.weight} is {'below 0' if (mapping.weight or 0) < 0 else 'over 100'}"
        yield AttributeDiagnostic("warning", "weight", "weight-range", text, "write a percentage, 0 to 100")
    if others := [token for token in mapping.upgrades or () if token != "websocket"]:
        text = f"an upgrade to {others[0]} is not carried out: the request is forwarded without it"
        yield AttributeDiagnostic("notice", "allow_upgrade", "no-effect-yet", text)
    yield from _redirect_notices(model, mapping)
    yield from _endpoint_notices(model)
    yield from _consul_notices(mapping)


def _undecided(model: Model) -> Iterator[AttributeDiagnostic]:
    """Attributes that look as if they decided who matches, and do not."""
    hostname = isinstance(model, MappingV3) and model.hostname
    if isinstance(model, LegacyMapping) and model.headers_regex is not None:
        yield _no_effect("headers_regex", "is ignored, as in Emissary", "write regex_headers")
    if any(name.lower() == ":authority" and isinstance(value, str) for name, value in model.headers.items()) and (
        isinstance(model, LegacyMapping) or hostname or model.host
    ):
        yield _no_effect("headers", "of :authority are not compared: the host of the Mapping is", "write host")
    if hostname and model.host:
        yield _no_effect("host", "is not compared: hostname is", "leave one of them out")
    if model.host_regex and (hostname or not model.host):
        yield _no_effect("host_regex", "has no effect without host", "write host")
    if model.method_regex and not model.method:
        yield _no_effect("method_regex", "has no effect without method", "write method")
    if model.prefix_exact and model.prefix_regex:
        yield _no_effect("prefix_exact", "has no effect: prefix_regex overrides it", "leave one of them out")


def _no_effect(attribute: str, problem: str, hint: str) -> AttributeDiagnostic:
    return AttributeDiagnostic("warning", attribute, "no-effect", f"{attribute} {problem}", hint)


def _without_effect(model: Model, given: set[str]) -> Iterator[AttributeDiagnostic]:
    # `priority` selects one of the circuit breakers.
    effective = {"priority"} if model.circuit_breakers else set()
    for name in sorted(given & NO_EFFECT_YET - effective):
        yield AttributeDiagnostic("notice", name, "no-effect-yet", f"{name} is read and has no effect yet")


def _redirect_notices(model: Model, mapping: Mapping) -> Iterator[AttributeDiagnostic]:
    targets = [name for name in ("path_redirect", "prefix_redirect", "regex_redirect") if getattr(model, name)]
    if "redirect_response_code" in model.model_fields_set and not mapping.redirect and not targets:
        targets = ["redirect_response_code"]
    if mapping.redirect and len(targets) > 1:
        yield AttributeDiagnostic(
            "error", targets[1], "two-redirects", f"{targets[0]} is used, {' and '.join(targets[1:])} not"
        )
    if targets and not mapping.redirect:
        yield AttributeDiagnostic(
            "warning", targets[0], "no-redirect", f"{targets[0]} without host_redirect: true does nothing"
        )


def _endpoint_notices(model: Model) -> Iterator[AttributeDiagnostic]:
    _, problem = outlier_detection(model.outlier_detection)
    if problem:
        yield AttributeDiagnostic("warning", "outlier_detection", "outlier-detection", problem)
    if any(each.health_check.http is None for each in health_checks_of(model)):
        attribute = "v3health_checks" if "v3health_checks" in model.model_fields_set else "health_checks"
        text = "a health check that is not by http has no effect yet"
        yield AttributeDiagnostic("notice", attribute, "no-effect-yet", text)


def _consul_notices(mapping: Mapping) -> Iterator[AttributeDiagnostic]:
    endpoints = mapping.options.endpoints
    if endpoints is None or endpoints.consul_service is None:
        return
    if ":" in mapping.service.text.rpartition("://")[2]:
        text = "the port of the service has no effect: Consul names the port of each instance"
        yield AttributeDiagnostic("notice", "service", "no-effect", text)
