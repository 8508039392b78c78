"""Authorities, certificates and Secrets for the tests of TLS."""

import ssl
from collections.abc import Callable
from pathlib import Path

import trustme

Secret = dict[str, str]

OURS, FOREIGN = trustme.CA(), trustme.CA()


def pem(of: trustme.CA) -> str:
    """The certificate of an authority."""
    return of.cert_pem.bytes().decode()


def leaf(*names: str, by: trustme.CA = OURS, common_name: str | None = None) -> trustme.LeafCert:
    """A certificate for these names."""
    return by.issue_cert(*names, common_name=common_name)


def secret(certificate: trustme.LeafCert | None = None, authority: trustme.CA | None = None) -> Secret:
    """The keys of a Secret."""
    held: Secret = {}
    if certificate is not None:
        held["tls.crt"] = "".join(each.bytes().decode() for each in certificate.cert_chain_pems)
        held["tls.key"] = certificate.private_key_pem.bytes().decode()
    if authority is not None:
        held["ca.crt"] = pem(authority)
    return held


def write(directory: Path, held: Secret) -> Path:
    """A Secret as a plain directory; returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in held.items():
        (directory / name).write_text(text)
    return directory


def server(
    certificate: trustme.LeafCert | None = None,
    *,
    clients: trustme.CA | None = None,
    seen: Callable[[str | None], object] | None = None,
) -> ssl.SSLContext:
    """What a server speaks TLS with, by default as 127.0.0.1 and localhost.

    Args:
        clients: the authority that a client's certificate has to be from; None asks for none.
        seen: called with the name that a client asks for.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (certificate or leaf("127.0.0.1", "localhost")).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    if seen is not None:
        notify = seen

        def asked(_socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
            notify(name)

        context.sni_callback = asked
    return context


def name_in(certificate: dict[str, object] | None) -> str:
    """The common name of a certificate as `getpeercert` gives it, "" where there is none."""
    subject = (certificate or {}).get("subject", ())
    assert isinstance(subject, tuple)
    return next((str(value) for part in subject for name, value in part if name == "commonName"), "")
