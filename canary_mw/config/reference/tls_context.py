"""Descriptions of the attributes of a TLSContext, for the reference page and for editors."""

from canary_mw.config.reference.attribute_doc import AttributeDoc

_LISTENING = "For the listening side: no effect here, and a notice says so."
_NONE = "Has no effect yet, and a notice says so."
_AT_THE_SERVER = "no effect: the server's own options apply"
_FILES = "Not supported, with a warning: name the directory of the files as `secret` or `ca_secret`."
_NOT_USABLE = "a Mapping that names such a TLSContext is in error"

TLS_CONTEXT_ATTRIBUTES: dict[str, AttributeDoc] = {
    "secret": AttributeDoc(
        "Directory with `tls.crt` and `tls.key`, the client certificate, and `ca.crt`, which verifies the upstream's"
        " certificate; either may be missing. A name is looked up as `NAMESPACE/NAME` and as `NAME` below `--secrets`;"
        " an absolute path is used as it is. Changed files apply to new connections.",
        "secret: upstream-certs",
        differs="always verifies: without `ca.crt`, against the system's CA certificates",
    ),
    "ca_secret": AttributeDoc(
        "Directory with `ca.crt`, or as in Emissary `tls.crt`, which replaces the `ca.crt` of `secret`.",
        "ca_secret: upstream-ca",
        differs="applies to the upstream, and needs no `secret`",
    ),
    "secret_namespacing": AttributeDoc(
        "The text after the first dot of a Secret's name is its namespace.", "secret_namespacing: false"
    ),
    "sni": AttributeDoc(
        "Server name (SNI) in the handshake; the certificate of the upstream must contain it.",
        "sni: api.example.com",
        default="host of the service",
        differs="verified too",
    ),
    "min_tls_version": AttributeDoc(
        "Lowest version of TLS.", "min_tls_version: v1.3", default="`v1.2`", differs="never below `v1.2` (RFC 8996)"
    ),
    "max_tls_version": AttributeDoc("Highest version of TLS.", "max_tls_version: v1.2", differs="`v1.2` or `v1.3`"),
    "ambassador_id": AttributeDoc("As in a Mapping.", "ambassador_id: [default]", default="all"),
    "hosts": AttributeDoc(
        "Server names: the certificate of `secret` is that of a [TCPMapping](tcp.md) with one of them as `host`.",
        "hosts: [shop.example.com]",
        differs="no effect on the port of the proxy: the server's own options apply",
    ),
    "alpn_protocols": AttributeDoc(
        "Always HTTP/1.1; a notice says so.", "alpn_protocols: http/1.1", differs="no effect"
    ),
    "cert_required": AttributeDoc(
        "Whether clients of such a TCPMapping need a certificate.",
        "cert_required: true",
        differs="no effect on the port of the proxy: the server's own options apply",
    ),
    "redirect_cleartext_from": AttributeDoc(_LISTENING, "redirect_cleartext_from: 8080", differs=_AT_THE_SERVER),
    "cipher_suites": AttributeDoc(_NONE, "cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256]", differs="no effect yet"),
    "ecdh_curves": AttributeDoc(_NONE, "ecdh_curves: [P-256]", differs="no effect yet"),
    "crl_secret": AttributeDoc(_NONE, "crl_secret: revoked", differs="no effect yet"),
    "cert_chain_file": AttributeDoc(_FILES, "cert_chain_file: /certs/tls.crt", differs=_NOT_USABLE),
    "private_key_file": AttributeDoc(_FILES, "private_key_file: /certs/tls.key", differs=_NOT_USABLE),
    "cacert_chain_file": AttributeDoc(_FILES, "cacert_chain_file: /certs/ca.crt", differs=_NOT_USABLE),
}
