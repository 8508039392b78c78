"""Who this process is for an API server, and how it reaches the server. A pod has this in its service account."""

import os
import ssl
import tempfile
from collections.abc import Callable
from collections.abc import Mapping as Dict
from dataclasses import dataclass

from canary_mw.exceptions import ConfigError

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How an API server is reached.

    Attributes:
        server: its URL.
        namespace: that of this process.
        context: name of the context of a kubeconfig; empty in a pod.
        ca: the authorities in PEM, read again for each connection; None for those of the system.
        insecure: whether the server's certificate is not verified.
        server_name: the name in its certificate, if that is not the host of the URL.
        proxy: the URL of a proxy.
        token: the bearer token of the next request, read again for each; None for none.
        certificate: the client certificate of the next connection.
        renew: called when the server does not know who this is (401).
    """

    server: str
    namespace: str
    context: str = ""
    ca: Callable[[], str | None] = _nothing
    insecure: bool = False
    server_name: str | None = None
    proxy: str | None = None
    token: Callable[[], str | None] = _nothing
    certificate: Callable[[], ClientCertificate | None] = _nothing
    renew: Callable[[], None] = _nothing


def in_cluster(environ: Dict[str, str] = os.environ, directory: str = SERVICE_ACCOUNT) -> Connection:
    """The API server of the cluster that this pod runs in.

    Raises:
        ConfigError: this is no pod, or it has no service account.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError(
            "KUBERNETES_SERVICE_HOST is not set: this is no pod of a cluster", hint="name ?kubeconfig=FILE"
        )
    token, ca, own = (os.path.join(directory, name) for name in ("token", "ca.crt", "namespace"))
    if not os.path.exists(token):
        hint = "set automountServiceAccountToken: true and a serviceAccountName in the pod"
        raise ConfigError(f"the pod has no token: {token} is missing", hint=hint)
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=read_text(own).strip() if os.path.exists(own) else "default",
        ca=lambda: read_text(ca),
        token=lambda: read_text(token).strip(),
    )


def read_text(path: str) -> str:
    """The text of a small file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(1 << 20)


def read_bytes(path: str) -> bytes:
    """The content of a small file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, mode="rb") as file:
        return file.read(1 << 20)


def tls_context(connection: Connection) -> ssl.SSLContext:
    """The TLS settings of a new connection.

    Raises:
        OSError: a file is missing, or holds no certificate or key.
    """
    ca = connection.ca()
    context = ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()
    if connection.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = connection.certificate()
    if certificate is not None:
        _load_certificate(context, certificate)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    """Load a certificate; the module ssl takes only a file, which is one of this user, and gone afterwards."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(certificate.certificate + b"\n" + certificate.key + b"\n")
        file.flush()
        context.load_cert_chain(file.name)
