"""TLS to upstreams: the files of a TLSContext as an `ssl.SSLContext` that follows them.

Certificates are renewed under a running process, by kubelet's swap of a link as well as file by file. What cannot be
used, a pair that is half-written say, leaves the last good one in force.
"""

import logging
import os
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import NamedTuple

from canary_mw.exceptions import ConfigError, UpstreamConnectError
from canary_mw.rules.upstream import Origin, UpstreamTLS

logger = logging.getLogger("canary_mw.tls")

SECRETS = "CANARY_MW_SECRETS"
CERTIFICATE, KEY, AUTHORITIES = "tls.crt", "tls.key", "ca.crt"
# Seconds between two looks at the files of one TLSContext; without new connections there are none.
RELOAD_INTERVAL = 1.0
_VERSIONS = {"v1.2": ssl.TLSVersion.TLSv1_2, "v1.3": ssl.TLSVersion.TLSv1_3}


class ConnectionSecurity(NamedTuple):
    """How one connection is secured.

    Attributes:
        context: None for plain text.
        name: asked for by SNI (RFC 6066, section 3), and what the certificate must hold; None for plain text.
    """

    context: ssl.SSLContext | None = None
    name: str | None = None


PLAIN = ConnectionSecurity()


class Files(NamedTuple):
    """Where the parts of a TLSContext are; None for what it does not have."""

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None


Stamp = tuple[str, int, int, int]


class TLSContexts:
    """How connections to origins are to be secured; for all threads and event loops of a process.

    Args:
        secrets: directory in which Secrets are found by `namespace/name` or `name`; by default the environment's
            `CANARY_MW_SECRETS`.
        default: for origins without a TLSContext; by default the system's authorities and full verification.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        secrets: str | os.PathLike[str] | None = None,
        *,
        default: ssl.SSLContext | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        root = secrets or os.environ.get(SECRETS)
        self._root = Path(root) if root else None
        self._default = default
        self._clock = clock
        self._followed: dict[UpstreamTLS, _Followed] = {}

    def __call__(self, origin: Origin) -> ConnectionSecurity:
        """How a new connection is secured.

        Raises:
            UpstreamConnectError: the files of its TLSContext were never good.
        """
        if origin.scheme != "https":
            return PLAIN
        tls = origin.tls
        if tls is None:
            return ConnectionSecurity(self._of_the_system(), origin.host)
        followed = self._followed.get(tls)
        if followed is None:
            followed = self._followed.setdefault(tls, _Followed(tls, self._root))
        return ConnectionSecurity(followed.current(self._clock()), tls.sni or origin.host)

    def _of_the_system(self) -> ssl.SSLContext:
        if self._default is None:
            self._default = ssl.create_default_context()
        return self._default


class _Followed:
    """The last good context of one TLSContext, and what is wrong with its files since."""

    def __init__(self, tls: UpstreamTLS, root: Path | None) -> None:
        self._tls = tls
        self._root = root
        self._lock = Lock()
        self._context: ssl.SSLContext | None = None
        self._read: tuple[Stamp, ...] = ()
        self._trouble: str | None = None
        self._due = float("-inf")

    def current(self, now: float) -> ssl.SSLContext:
        with self._lock:
            if now >= self._due:
                self._due = now + RELOAD_INTERVAL
                self._look()
            if self._context is None:
                raise UpstreamConnectError(f"TLSContext {self._tls.name}: {self._trouble}")
            return self._context

    def _look(self) -> None:
        try:
            files = locate(self._tls, self._root)
            # Taken before they are read: what changes meanwhile is seen at the next look.
            stamps = tuple(_stamp(path) for path in files if path is not None)
            if self._context is None or stamps != self._read:
                self._context = make_context(files, self._tls)
                self._read = stamps
                logger.info(
                    "TLSContext %s: read %s", self._tls.name, ", ".join(stamp[0] for stamp in stamps) or "nothing"
                )
        except (OSError, ConfigError) as exc:
            self._note(str(exc))
        else:
            self._trouble = None

    def _note(self, trouble: str) -> None:
        """Tell of what is wrong, where that is news."""
        if trouble != self._trouble:
            kept = "no connection can be opened" if self._context is None else "what was read before stays in use"
            logger.error("TLSContext %s: %s; %s", self._tls.name, trouble, kept)
        self._trouble = trouble


def with_tls(origins: Iterable[Origin], tls: UpstreamTLS | None) -> list[Origin]:
    """Origins of a Mapping with its TLSContext; those that are spoken to in plain text stay as they are."""
    return [origin._replace(tls=tls) if origin.scheme == "https" else origin for origin in origins]


def locate(tls: UpstreamTLS, root: Path | None) -> Files:
    """Find the files of a TLSContext as they are now.

    Raises:
        ConfigError: they are not there, or not all of them.
    """
    own = _directory(tls.secret, root) if tls.secret else None
    found = _in_secret(own) if own is not None else Files()
    if tls.ca_secret is None:
        return found
    directory = _directory(tls.ca_secret, root)
    authorities = next((path for name in (AUTHORITIES, CERTIFICATE) if (path := directory / name).exists()), None)
    if authorities is None:
        raise ConfigError(
            f"there is no {AUTHORITIES}", file=str(directory), hint="write the authorities into it, in PEM"
        )
    return found._replace(authorities=authorities)


def _in_secret(directory: Path) -> Files:
    certificate, key, authorities = (
        path if path.exists() else None for path in map(directory.joinpath, (CERTIFICATE, KEY, AUTHORITIES))
    )
    if (certificate is None) != (key is None):
        missing = CERTIFICATE if certificate is None else KEY
        raise ConfigError(f"there is no {missing}", file=str(directory), hint="a certificate and its key go together")
    if certificate is None and authorities is None:
        hint = f"write {CERTIFICATE} and {KEY}, or {AUTHORITIES}, or all three"
        raise ConfigError("there is neither a certificate nor authorities", file=str(directory), hint=hint)
    return Files(certificate, key, authorities)


def _directory(secret: str, root: Path | None) -> Path:
    if secret.startswith("/"):
        return Path(secret)
    name = secret.rpartition("/")[2]
    if root is None:
        hint = f"set --secrets or {SECRETS}, or write the path of a directory"
        raise ConfigError(f"nobody says where the Secret {name} is", hint=hint)
    places = (root / secret, root / name)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise ConfigError(f"neither {places[0]} nor {places[1]} is a directory", hint="mount the Secret at one of them")
    return found


def _stamp(path: Path) -> Stamp:
    """What changes when a file does."""
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size, status.st_ino


def make_context(files: Files, tls: UpstreamTLS) -> ssl.SSLContext:
    """A context that verifies against the authorities in the files, or the system's, and shows our certificate.

    Raises:
        ConfigError: a file does not hold what it should.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # First, because it is what may fail for some time, and the system's authorities take tens of milliseconds.
    if files.certificate is not None and files.key is not None:
        load_certificate(context, files.certificate, files.key)
    if files.authorities is None:
        context.load_default_certs()
    else:
        load_authorities(context, files.authorities)
        # What is written there is trusted as it is, an intermediate authority too.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.minimum_version = _VERSIONS[tls.min_version or "v1.2"]
    if tls.max_version:
        context.maximum_version = _VERSIONS[tls.max_version]
    return context


def load_authorities(context: ssl.SSLContext, path: str | Path) -> None:
    """Trust these.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        context.load_verify_locations(path)
    except OSError as exc:
        hint = "write the certificates of the authorities, in PEM"
        raise ConfigError(f"no authorities can be read: {exc}", file=str(path), hint=hint) from exc


def load_certificate(context: ssl.SSLContext, certificate: str | Path, key: str | Path | None) -> None:
    """Show this certificate.

    Raises:
        ConfigError: the files cannot be read, or do not belong together.
    """
    try:
        # A key with a pass phrase would ask for it on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as exc:
        text = f"it cannot be used with {key or 'the key in it'}: {exc}"
        hint = "write the certificate, with those above it behind, and its key, in PEM and without pass phrase"
        raise ConfigError(text, file=str(certificate), hint=hint) from exc
