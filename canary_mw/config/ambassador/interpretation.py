"""One resource -> its Mapping: the checks of apiVersion, kind, name, attributes, and of what the Mapping refers to."""

from functools import partial

from canary_mw.config.ambassador.ambassador_id import ambassador_ids, matches_ambassador_id
from canary_mw.config.ambassador.kinds import (
    EDGE_STACK_KINDS,
    EFFECTIVE_KINDS,
    ENDPOINT_RESOLVER,
    INSTEAD,
    KNOWN_KINDS,
    KUBERNETES_RESOLVERS,
    REQUIRED,
)
from canary_mw.config.ambassador.mapping import to_mapping
from canary_mw.config.ambassador.misspellings import deciding_attribute
from canary_mw.config.ambassador.origin import DocumentOrigin, endpoints_in
from canary_mw.config.ambassador.schema import MODELS, Model
from canary_mw.config.ambassador.shared_resources import SharedResources
from canary_mw.config.foreign_objects import is_unrelated
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report, validate
from canary_mw.config.wording import did_you_mean
from canary_mw.rules.mapping import Mapping

_GROUP = "getambassador.io/"


def interpret(resource: Resource, file: str, shared: SharedResources, report: Report) -> Mapping | None:
    """Check one document by version, kind, types and values; None if it gives no Mapping."""
    if _is_for_others(resource, shared.ambassador_id, report):
        return None
    version = _version(resource, report)
    if resource.kind != "Mapping":
        _check_other_kind(resource, report)
        return None
    if not resource.name:
        report("error", "no-name", "the Mapping has no name: it is left out")
        return None
    model = version and _typed(resource, version, report)
    if not model:
        return None
    if model.resolver and model.resolver not in shared.resolvers:
        hint = "known are " + ", ".join(sorted(shared.resolvers))
        report("error", "unknown-resolver", f"resolver {model.resolver} is unknown", attribute="resolver", hint=hint)
        return None
    if isinstance(model.tls, str) and model.tls not in shared.tls_contexts:
        known = ", ".join(sorted(shared.tls_contexts)) or "none"
        text = f"TLSContext {model.tls} is not defined, or in error itself"
        report("error", "unknown-tls-context", text, attribute="tls", hint=f"define it; known are: {known}")
        return None
    place = (resource.name, resource.namespace, resource.labels, file, resource.line)
    resolver = model.resolver or shared.settings.attributes.get("resolver", "kubernetes-service")
    asked_in = endpoints_in(resource, file) if shared.resolvers.get(resolver) == ENDPOINT_RESOLVER else None
    agent = shared.agents.get(resolver)
    origin = DocumentOrigin(*place, shared.settings, shared.tls_contexts, asked_in, agent)
    mapping, found = to_mapping(model, origin)
    for each in found:
        report(each.severity, each.code, each.message, attribute=each.attribute, hint=each.hint)
    return mapping


def _typed(resource: Resource, version: str, report: Report) -> Model | None:
    misspelt = partial(deciding_attribute, version)
    return validate(MODELS[version], dict(resource.spec), report, misspelt=misspelt)


def _is_for_others(resource: Resource, ambassador_id: str, report: Report) -> bool:
    """Whether a document is meant for another program or process; reported if it would have an effect here."""
    if resource.api_version is None and is_unrelated(resource.kind, resource.spec, KNOWN_KINDS):
        return True
    if resource.kind in EDGE_STACK_KINDS:
        report("notice", "kind-ignored", "a kind of Edge Stack: ignored")
        return True
    if matches_ambassador_id(resource, ambassador_id):
        return False
    if resource.kind in EFFECTIVE_KINDS:
        text = f"passed over: it is for ambassador_id {', '.join(ambassador_ids(resource))}, not for {ambassador_id}"
        hint = "--ambassador-id names the id of this process"
        report("notice", "other-ambassador-id", text, attribute="ambassador_id", hint=hint)
    return True


def _check_other_kind(resource: Resource, report: Report) -> None:
    """Check what is no Mapping; `shared_resources.py` reads the kinds that have an effect."""
    if resource.kind in REQUIRED:
        _check_required(resource, report)
    elif resource.kind in KUBERNETES_RESOLVERS:
        if not resource.name:
            report("error", "no-name", "the resolver has no name: it is left out")
    elif resource.kind == "Module":
        if resource.name not in ("ambassador", "authentication"):
            report("notice", "kind-ignored", "only the Module called ambassador has an effect")
    elif resource.kind not in EFFECTIVE_KINDS:
        what = "no kind" if resource.kind is None else f"unknown kind {resource.kind}"
        report(
            "error", "unknown-kind", f"{what}: the document is left out", hint=did_you_mean(resource.kind, KNOWN_KINDS)
        )


def _check_required(resource: Resource, report: Report) -> None:
    """Check a kind without effect for the attributes it requires."""
    missing = [name for name in REQUIRED[resource.kind or ""] if resource.spec.get(name) in (None, "", [])]
    for name in missing:
        report("error", "missing", f"{name} is missing")
    if not missing:
        report("notice", "kind-ignored", f"ignored: {INSTEAD[resource.kind or '']}")


def _version(resource: Resource, report: Report) -> str | None:
    api_version = resource.api_version
    if api_version is None:
        report("warning", "no-api-version", "no apiVersion: read as getambassador.io/v2")
        return "v2"
    version = api_version.removeprefix(_GROUP)
    if version in MODELS and api_version.startswith(_GROUP):
        return version
    hint = "known are " + ", ".join(_GROUP + known for known in MODELS)
    report("error", "unknown-version", f"apiVersion {api_version} is not known", attribute="apiVersion", hint=hint)
    return None
