"""The certificates that connections are accepted with: those of TLSContexts, read anew when their files change."""

import ssl
from pathlib import Path
from time import monotonic

from canary_mw.client.tls import (
    AUTHORITIES,
    CERTIFICATE,
    KEY,
    VERSIONS,
    CertificateFiles,
    ReloadedContext,
    load_authorities,
    load_certificate,
)
from canary_mw.exceptions import ConfigError
from canary_mw.rules.upstream import UpstreamTLS


class Certificates:
    """The contexts of accepted connections.

    Args:
        root: directory of the Secrets; None where there is none.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._reloaded: dict[UpstreamTLS, ReloadedContext] = {}

    def __call__(self, tls: UpstreamTLS) -> ssl.SSLContext:
        """Return the context of a connection that is accepted with the certificate of a TLSContext.

        Raises:
            UpstreamConnectError: the files of the TLSContext were never usable.
        """
        reloaded = self._reloaded.get(tls)
        if reloaded is None:
            reloaded = self._reloaded[tls] = ReloadedContext(tls, self._root, make_server_context)
        return reloaded.current(monotonic())


def make_server_context(files: CertificateFiles, tls: UpstreamTLS) -> ssl.SSLContext:
    """Build a context that accepts connections with the certificate in the files.

    Raises:
        ConfigError: the content of a file is not usable.
    """
    if files.certificate is None:
        raise ConfigError("there is no certificate", hint=f"write {CERTIFICATE} and {KEY} into the Secret")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, files.certificate, files.key)
    if files.authorities is not None and (tls.ca_secret or tls.cert_required):
        load_authorities(context, files.authorities)
        context.verify_mode = ssl.CERT_REQUIRED if tls.cert_required else ssl.CERT_OPTIONAL
    elif tls.cert_required:
        raise ConfigError("there are no authorities for the certificates of clients", hint=f"write {AUTHORITIES}")
    context.minimum_version = VERSIONS[tls.min_version or "v1.2"]
    if tls.max_version:
        context.maximum_version = VERSIONS[tls.max_version]
    return context
