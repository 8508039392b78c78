"""TLSContext documents: TLS options of upstream connections, for Mappings with `tls` (Emissary `irtlscontext.py`).

Attributes that concern the listening side have no effect here; the server's own options configure that side.
"""

import re
from collections.abc import Callable
from collections.abc import Mapping as Dict
from typing import Any, Literal

from canary_mw.config.ambassador.schema import Flag, Strict
from canary_mw.config.document import Diagnostic
from canary_mw.config.resource import Resource
from canary_mw.config.validation import Report, validate
from canary_mw.exceptions import MappingError
from canary_mw.rules.upstream import UpstreamTLS
from canary_mw.rules.wording import quoted

Version = Literal["v1.0", "v1.1", "v1.2", "v1.3"]

# Names as Kubernetes allows them (RFC 1123); they become part of a path.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9:]([A-Za-z0-9._:-]*[A-Za-z0-9])?")
_MIN_SUPPORTED = "v1.2"


class TLSContext(Strict):
    """The attributes with their types, the same in all versions."""

    secret: str | None = None
    ca_secret: str | None = None
    secret_namespacing: Flag = True
    sni: str | None = None
    min_tls_version: Version | None = None
    max_tls_version: Version | None = None
    ambassador_id: str | list[str] | None = None
    hosts: list[str] | None = None
    alpn_protocols: str | None = None
    cert_required: Flag | None = None
    redirect_cleartext_from: int | None = None
    cipher_suites: list[str] | None = None
    ecdh_curves: list[str] | None = None
    crl_secret: str | None = None
    cert_chain_file: str | None = None
    private_key_file: str | None = None
    cacert_chain_file: str | None = None


_WITHOUT_EFFECT = (*("alpn_protocols", "redirect_cleartext_from", "cipher_suites", "ecdh_curves", "crl_secret"),)
_SINGLE_FILES = ("cert_chain_file", "private_key_file", "cacert_chain_file")


def read_contexts(
    resources: list[tuple[Resource, str]], last_good: Dict[str, UpstreamTLS], diagnostics: list[Diagnostic]
) -> dict[str, UpstreamTLS]:
    """The TLSContexts by name; one in error keeps its last good version.

    As with Mappings, a name that is used again in a second namespace gets that namespace appended.

    Args:
        resources: TLSContext documents, each with its file.
        diagnostics: what is found is added to this list.
    """
    found: dict[str, UpstreamTLS] = {}
    owners: dict[str, Resource] = {}
    for resource, file in resources:
        report = Report(resource, file)
        name = resource.name
        if not name:
            report("error", "no-name", "the TLSContext has no name: it is left out")
            diagnostics += report.diagnostics
            continue
        if name in owners and owners[name].namespace != resource.namespace:
            name = f"{name}.{resource.namespace}"
        if name in owners:
            report("error", "duplicate-name", "it is defined again; this one counts", hint="give it a name of its own")
        owners[name] = resource
        context = _upstream_tls(resource.spec, name, resource.namespace, report) or last_good.get(name)
        if context is not None:
            found[name] = context
        diagnostics += report.diagnostics
    return found


def _upstream_tls(spec: Dict[str, Any], name: str, namespace: str, report: Report) -> UpstreamTLS | None:
    """The value of a document; None if it cannot be used, with a finding reported for each reason."""
    model = validate(TLSContext, dict(spec), report)
    if model is None:
        return None
    values: dict[str, Any] = {}
    errors = [attribute for attribute in _SINGLE_FILES if getattr(model, attribute)]
    for attribute in errors:
        # No error by itself: the TLSContext may be meant for a listener only.
        hint = "name the directory of the files as secret or ca_secret: tls.crt, tls.key and ca.crt are read there"
        text = f"{attribute} is not supported: no Mapping can use this TLSContext"
        report("warning", "not-supported", text, attribute=attribute, hint=hint)
    for attribute, (argument, read) in _READERS.items():
        try:
            values[argument] = read(model, namespace)
        except MappingError as exc:
            errors.append(attribute)
            report("error", "bad-value", exc.message, attribute=attribute, hint=exc.hint)
    if errors:
        return None
    _report_no_effect(model, report)
    return UpstreamTLS(name, **values)


def _report_no_effect(model: TLSContext, report: Report) -> None:
    if "consul-connect" in (model.secret or ""):
        text = f"no certificates of Consul Connect are made: those in the Secret {model.secret} are used as they are"
        report("notice", "no-effect-yet", text, attribute="secret", hint="let whoever issues them renew the Secret")
    for attribute in _WITHOUT_EFFECT:
        if attribute in model.model_fields_set:
            text = f"{attribute} has no effect on connections to upstreams"
            report("notice", "no-effect-yet", text, attribute=attribute)
    if model.min_tls_version is not None and model.min_tls_version < _MIN_SUPPORTED:
        text = f"min_tls_version {model.min_tls_version} is read as {_MIN_SUPPORTED}: older versions are not spoken"
        report("notice", "tls-version", text, attribute="min_tls_version")


def _secret(text: str | None, model: TLSContext, namespace: str) -> str | None:
    """A path as it is, or a Secret as `NAMESPACE/NAME`."""
    if not text or text.startswith("/"):
        return text or None
    name = text
    if "." in text and model.secret_namespacing:
        name, _, namespace = text.partition(".")
    if not all(_NAME.fullmatch(part) for part in (name, namespace)):
        raise MappingError(
            f"{quoted(text)} is not the name of a Secret", hint="write name, name.namespace or /a/directory"
        )
    return f"{namespace}/{name}"


def _sni(model: TLSContext, _: str) -> str | None:
    if model.sni and not _HOST.fullmatch(model.sni):
        raise MappingError(f"sni {quoted(model.sni)} is not the name of a host", hint="write one name, without port")
    return model.sni or None


def _min_version(model: TLSContext, _: str) -> str | None:
    return max(model.min_tls_version, _MIN_SUPPORTED) if model.min_tls_version else None


def _max_version(model: TLSContext, _: str) -> str | None:
    highest = model.max_tls_version
    if highest and highest < max(model.min_tls_version or _MIN_SUPPORTED, _MIN_SUPPORTED):
        raise MappingError(f"max_tls_version {highest} leaves no version", hint="v1.2 and v1.3 are spoken")
    return highest


# Attributes of the document -> field of UpstreamTLS, and the function that reads it.
_READERS: dict[str, tuple[str, Callable[[TLSContext, str], Any]]] = {
    "secret": ("secret", lambda model, namespace: _secret(model.secret, model, namespace)),
    "ca_secret": ("ca_secret", lambda model, namespace: _secret(model.ca_secret, model, namespace)),
    "sni": ("sni", _sni),
    "min_tls_version": ("min_version", _min_version),
    "max_tls_version": ("max_version", _max_version),
    "hosts": ("hosts", lambda model, _: tuple(host.lower() for host in model.hosts or ())),
    "cert_required": ("cert_required", lambda model, _: bool(model.cert_required)),
}
