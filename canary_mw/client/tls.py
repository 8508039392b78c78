"""TLS to upstreams: an `ssl.SSLContext` for each TLSContext, reloaded when its files change.

Certificates are renewed while the process runs, by the kubelet's swap of a symbolic link or file by file. While the
files are unusable, such as a pair that is half written, the last good context stays in use.
"""

import logging
import os
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from canary_mw.exceptions import ConfigError, UpstreamConnectError
from canary_mw.host import HostLogger
from canary_mw.rules.upstream import Origin, UpstreamTLS

logger = HostLogger(logging.getLogger("canary_mw.tls"))

SECRETS = "CANARY_MW_SECRETS"
CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
# Least seconds between two checks of the files of a TLSContext. They are checked only when a connection is opened.
RELOAD_INTERVAL = 1.0
VERSIONS = {"v1.2": ssl.TLSVersion.TLSv1_2, "v1.3": ssl.TLSVersion.TLSv1_3}


class ConnectionSecurity(NamedTuple):
    """The TLS settings of one connection.

    Attributes:
        context: None for plain text.
        name: the server name: sent as SNI (RFC 6066, section 3) and verified against the certificate. None for plain
            text.
    """

    context: ssl.SSLContext | None = None
    name: str | None = None


PLAIN = ConnectionSecurity()


class CertificateFiles(NamedTuple):
    """The files of a TLSContext; None for those that it does not have."""

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None


FileStamp = tuple[str, int, int, int]


class TLSContexts:
    """TLS settings of connections to origins, shared by all threads and event loops of a process.

    Args:
        secrets: directory that contains Secrets as `namespace/name` or `name`; by default that of the environment
            variable `CANARY_MW_SECRETS`.
        default: context of origins without a TLSContext; by default the system's CA certificates and full
            verification.
        alpn: the protocols that are offered to the server (RFC 7301), none by default.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        secrets: str | os.PathLike[str] | None = None,
        *,
        default: ssl.SSLContext | None = None,
        alpn: Sequence[str] = (),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        root = secrets or os.environ.get(SECRETS)
        self.root = Path(root) if root else None
        self._alpn = alpn
        self._default = default
        self._clock = clock
        self._reloaded: dict[UpstreamTLS, ReloadedContext] = {}

    def __call__(self, origin: Origin) -> ConnectionSecurity:
        """Return the TLS settings of a new connection.

        Raises:
            UpstreamConnectError: the files of the TLSContext were never usable.
        """
        if origin.scheme != "https":
            return PLAIN
        tls = origin.tls
        if tls is None:
            return ConnectionSecurity(self._default_context(), origin.host)
        reloaded = self._reloaded.get(tls)
        if reloaded is None:
            reloaded = self._reloaded.setdefault(tls, ReloadedContext(tls, self.root, self._make_context))
        return ConnectionSecurity(reloaded.current(self._clock()), tls.sni or origin.host)

    def _make_context(self, files: CertificateFiles, tls: UpstreamTLS) -> ssl.SSLContext:
        return _offering(make_context(files, tls), self._alpn)

    def _default_context(self) -> ssl.SSLContext:
        if self._default is None:
            self._default = _offering(ssl.create_default_context(), self._alpn)
        return self._default


class ReloadedContext:
    """The last good context of one TLSContext, and the current error of its files, if any."""

    def __init__(
        self,
        tls: UpstreamTLS,
        root: Path | None,
        make: Callable[[CertificateFiles, UpstreamTLS], ssl.SSLContext],
    ) -> None:
        self._tls, self._root, self._make = tls, root, make
        self._context: ssl.SSLContext | None = None
        self._stamps: tuple[FileStamp, ...] = ()
        self._error: str | None = None
        self._checked = False
        self._next_check = float("-inf")

    def current(self, now: float) -> ssl.SSLContext:
        # Without a lock, which would be held over I/O: threads that come during the first check make their own.
        if now >= self._next_check or not self._checked:
            self._next_check = now + RELOAD_INTERVAL
            self._check()
            self._checked = True
        if self._context is None:
            raise UpstreamConnectError(f"TLSContext {self._tls.name}: {self._error}")
        return self._context

    def _check(self) -> None:
        try:
            files = locate(self._tls, self._root)
            # Before reading: a change during the read is found by the next check.
            stamps = tuple(_stamp(path) for path in files if path is not None)
            if self._context is None or stamps != self._stamps:
                self._context = self._make(files, self._tls)
                self._stamps = stamps
                logger.info(
                    "TLSContext %s: read %s", self._tls.name, ", ".join(stamp[0] for stamp in stamps) or "nothing"
                )
        except (OSError, ConfigError) as exc:
            self._report(str(exc))
        else:
            self._error = None

    def _report(self, error: str) -> None:
        """Log an error once."""
        if error != self._error:
            kept = "no connection can be opened" if self._context is None else "what was read before stays in use"
            logger.error("TLSContext %s: %s; %s", self._tls.name, error, kept)
        self._error = error


def _offering(context: ssl.SSLContext, protocols: Sequence[str]) -> ssl.SSLContext:
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def with_tls(origins: Iterable[Origin], tls: UpstreamTLS | None) -> list[Origin]:
    """Return the origins of a Mapping with its TLSContext; those in plain text are unchanged."""
    return [origin._replace(tls=tls) if origin.scheme == "https" else origin for origin in origins]


def locate(tls: UpstreamTLS, root: Path | None) -> CertificateFiles:
    """Find the files of a TLSContext.

    Raises:
        ConfigError: some of them are missing.
    """
    own = _secret_directory(tls.secret, root) if tls.secret else None
    found = _secret_files(own) if own is not None else CertificateFiles()
    if tls.ca_secret is None:
        return found
    directory = _secret_directory(tls.ca_secret, root)
    authorities = next((path for name in (AUTHORITIES, CERTIFICATE) if (path := directory / name).exists()), None)
    if authorities is None:
        raise ConfigError(
            f"there is no {AUTHORITIES}", file=str(directory), hint="write the authorities into it, in PEM"
        )
    return found._replace(authorities=authorities)


def _secret_files(directory: Path) -> CertificateFiles:
    certificate, key, authorities = (
        path if path.exists() else None for path in map(directory.joinpath, (CERTIFICATE, KEY, AUTHORITIES))
    )
    if (certificate is None) != (key is None):
        missing = CERTIFICATE if certificate is None else KEY
        raise ConfigError(f"there is no {missing}", file=str(directory), hint="a certificate and its key go together")
    if certificate is None and authorities is None:
        hint = f"write {CERTIFICATE} and {KEY}, or {AUTHORITIES}, or all three"
        raise ConfigError("there is neither a certificate nor authorities", file=str(directory), hint=hint)
    return CertificateFiles(certificate, key, authorities)


def _secret_directory(secret: str, root: Path | None) -> Path:
    if secret.startswith("/"):
        return Path(secret)
    name = secret.rpartition("/")[2]
    if root is None:
        hint = f"set --secrets or {SECRETS}, or write the path of a directory"
        raise ConfigError(f"the directory of the Secret {name} is not known", hint=hint)
    candidates = (root / secret, root / name)
    found = next((place for place in candidates if place.is_dir()), None)
    if found is None:
        raise ConfigError(
            f"neither {candidates[0]} nor {candidates[1]} is a directory", hint="mount the Secret at one of them"
        )
    return found


def _stamp(path: Path) -> FileStamp:
    """Path, modification time, size and inode of a file: they differ when the file has changed."""
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino


def make_context(files: CertificateFiles, tls: UpstreamTLS) -> ssl.SSLContext:
    """Build a context that verifies against the CA certificates in the files, or the system's, and has our certificate.

    Raises:
        ConfigError: the content of a file is not usable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # First: it may fail repeatedly, and loading the system's CA certificates takes tens of milliseconds.
    if files.certificate is not None and files.key is not None:
        load_certificate(context, files.certificate, files.key)
    if files.authorities is None:
        context.load_default_certs()
    else:
        load_authorities(context, files.authorities)
        # An intermediate CA in the file is trusted without its root.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = VERSIONS[tls.min_version or "v1.2"]
    if tls.max_version:
        context.maximum_version = VERSIONS[tls.max_version]
    return context


def load_authorities(context: ssl.SSLContext, path: str | Path) -> None:
    """Trust the CA certificates of a file.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        context.load_verify_locations(path)
    except OSError as exc:
        hint = "write the certificates of the authorities, in PEM"
        raise ConfigError(f"no authorities can be read: {exc}", file=str(path), hint=hint) from exc


def load_certificate(context: ssl.SSLContext, certificate: str | Path, key: str | Path | None) -> None:
    """Load our certificate and its key.

    Raises:
        ConfigError: the files cannot be read, or do not match.
    """
    try:
        # Without a password, OpenSSL asks for that of an encrypted key on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as exc:
        text = f"it cannot be used with {key or 'the key in it'}: {exc}"
        hint = "write the certificate, followed by its intermediates, and its key, in PEM and without pass phrase"
        raise ConfigError(text, file=str(certificate), hint=hint) from exc
